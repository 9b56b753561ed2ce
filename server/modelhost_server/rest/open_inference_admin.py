"""What Triton's REST API has beside inference: its repository, shared memory, trace and log settings."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..compat import open_inference_pb2 as pb
from ..services.open_inference.errors import invalid, quoted
from .application import answering
from .bodies import read_body
from .calls import Methods, call_of
from .failures import JSON, Dialect
from .infer_requests import is_count, json_object, not_a_count
from .messages import message_document

SERVICE = "/inference.GRPCInferenceService/"
_FILE = "file:"


def routes(methods: Methods, max_body_bytes: int, dialect: Dialect) -> list[Route]:
    """All of them."""
    api = _Api(methods, max_body_bytes)
    found = [
        ("POST", "/v2/repository/index", api.index),
        ("POST", "/v2/repository/models/{model:model}/load", api.load),
        ("POST", "/v2/repository/models/{model:model}/unload", api.unload),
        ("GET", "/v2/trace/setting", api.trace_settings),
        ("POST", "/v2/trace/setting", api.trace_settings),
        ("GET", "/v2/models/{model:model}/trace/setting", api.trace_settings),
        ("POST", "/v2/models/{model:model}/trace/setting", api.trace_settings),
        ("GET", "/v2/logging", api.log_settings),
        ("POST", "/v2/logging", api.log_settings),
    ]
    for kind, regions in (("System", api.system_regions), ("Cuda", api.cuda_regions)):
        base = f"/v2/{kind.lower()}sharedmemory"
        for region in ("", "/region/{region}"):
            found.append(("GET", f"{base}{region}/status", regions.status))
            found.append(("POST", f"{base}{region}/unregister", regions.unregister))
        found.append(("POST", f"{base}/region/{{region}}/register", regions.register))
    return [
        Route(path, answering(endpoint, dialect, methods.admit), methods=[method]) for method, path, endpoint in found
    ]


class _Api:
    """What the routes lead to."""

    def __init__(self, methods: Methods, max_body_bytes: int) -> None:
        self._methods = methods
        self._max_body_bytes = max_body_bytes
        self.system_regions = _SystemRegions(self)
        self.cuda_regions = _CudaRegions(self)

    async def ask(self, request: Request, method: str, message: Any, response: type[Any]) -> Any:
        """What the service answers."""
        return await self._methods(SERVICE + method, message, response, call_of(request))

    async def document(self, request: Request) -> dict[str, Any]:
        """What the request says; it may say nothing."""
        body = await read_body(request, self._max_body_bytes)
        return json_object(body) if body else {}

    async def index(self, request: Request) -> Response:
        """Lists models."""
        ready = (await self.document(request)).get("ready", False)
        if not isinstance(ready, bool):
            raise invalid("attempt to access JSON non-boolean as boolean")
        message = pb.RepositoryIndexRequest(ready=ready)
        response = await self.ask(request, "RepositoryIndex", message, pb.RepositoryIndexResponse)
        rows = (message_document(model).items() for model in response.models)
        return _answer([{name: value for name, value in row if value} for row in rows])

    async def load(self, request: Request) -> Response:
        """Loads a model."""
        message = pb.RepositoryModelLoadRequest(model_name=request.path_params["model"])
        for name, value in _parameters(await self.document(request)).items():
            if not isinstance(value, str):
                raise invalid(f"parameter {quoted(name)}: attempt to access JSON non-string as string")
            if name.startswith(_FILE):
                message.parameters[name].bytes_param = _decoded(name, value)
            else:
                message.parameters[name].string_param = _text(value)
        await self.ask(request, "RepositoryModelLoad", message, pb.RepositoryModelLoadResponse)
        return Response()

    async def unload(self, request: Request) -> Response:
        """Unloads a model."""
        message = pb.RepositoryModelUnloadRequest(model_name=request.path_params["model"])
        for name, value in _parameters(await self.document(request)).items():
            if name == "unload_dependents" and not isinstance(value, bool):
                raise invalid("Unable to parse 'unload_dependents': attempt to access JSON non-boolean as boolean")
            if isinstance(value, bool):
                message.parameters[name].bool_param = value
        await self.ask(request, "RepositoryModelUnload", message, pb.RepositoryModelUnloadResponse)
        return Response()

    async def trace_settings(self, request: Request) -> Response:
        """Tells of trace settings, and changes them."""
        message = pb.TraceSettingRequest(model_name=request.path_params.get("model", ""))
        for name, value in (await self.document(request)).items():
            values = [] if value is None else value if isinstance(value, list) else [value]
            message.settings[_text(name)].value.extend(_text(item) for item in values)
        response = await self.ask(request, "TraceSetting", message, pb.TraceSettingResponse)
        settings = {name: list(setting.value) for name, setting in response.settings.items()}
        # Of levels there may be several.
        return _answer({name: found if name == "trace_level" else "".join(found) for name, found in settings.items()})

    async def log_settings(self, request: Request) -> Response:
        """Tells of log settings, and changes them."""
        message = pb.LogSettingsRequest()
        for name, value in (await self.document(request)).items():
            setting = message.settings[_text(name)]
            match value:
                case bool():
                    setting.bool_param = value
                case int() if 0 <= value < 2**32:
                    setting.uint32_param = value
                case _:
                    setting.string_param = _text(value)
        response = await self.ask(request, "LogSettings", message, pb.LogSettingsResponse)
        settings = response.settings.items()
        return _answer({name: getattr(each, each.WhichOneof("parameter_choice")) for name, each in settings})


class _SystemRegions:
    """Shared memory of the machine."""

    def __init__(self, api: _Api) -> None:
        self._api = api

    async def status(self, request: Request) -> Response:
        """Lists regions."""
        message = pb.SystemSharedMemoryStatusRequest(name=_region(request))
        response = await self._api.ask(
            request, "SystemSharedMemoryStatus", message, pb.SystemSharedMemoryStatusResponse
        )
        return _answer([message_document(region) for region in response.regions.values()])

    async def register(self, request: Request) -> Response:
        """Makes a region known."""
        document = await self._api.document(request)
        message = pb.SystemSharedMemoryRegisterRequest(
            name=_region(request), key=_text(document.get("key")), offset=_count(document, "offset", 0),
            byte_size=_count(document, "byte_size"),
        )  # fmt: skip
        await self._api.ask(request, "SystemSharedMemoryRegister", message, pb.SystemSharedMemoryRegisterResponse)
        return Response()

    async def unregister(self, request: Request) -> Response:
        """Forgets a region, or all."""
        message = pb.SystemSharedMemoryUnregisterRequest(name=_region(request))
        await self._api.ask(request, "SystemSharedMemoryUnregister", message, pb.SystemSharedMemoryUnregisterResponse)
        return Response()


class _CudaRegions:
    """Shared memory of GPUs."""

    def __init__(self, api: _Api) -> None:
        self._api = api

    async def status(self, request: Request) -> Response:
        """Lists regions."""
        message = pb.CudaSharedMemoryStatusRequest(name=_region(request))
        response = await self._api.ask(request, "CudaSharedMemoryStatus", message, pb.CudaSharedMemoryStatusResponse)
        return _answer([message_document(region) for region in response.regions.values()])

    async def register(self, request: Request) -> Response:
        """Makes a region known."""
        document = await self._api.document(request)
        message = pb.CudaSharedMemoryRegisterRequest(name=_region(request), byte_size=_count(document, "byte_size"))
        await self._api.ask(request, "CudaSharedMemoryRegister", message, pb.CudaSharedMemoryRegisterResponse)
        return Response()

    async def unregister(self, request: Request) -> Response:
        """Forgets a region, or all."""
        message = pb.CudaSharedMemoryUnregisterRequest(name=_region(request))
        await self._api.ask(request, "CudaSharedMemoryUnregister", message, pb.CudaSharedMemoryUnregisterResponse)
        return Response()


def _answer(document: Any) -> Response:
    return Response(orjson.dumps(document), media_type=JSON)


def _region(request: Request) -> str:
    return str(request.path_params.get("region", ""))


def _parameters(document: Mapping[str, Any]) -> dict[str, Any]:
    parameters = document.get("parameters", {})
    if not isinstance(parameters, dict):
        raise invalid("Unable to parse 'parameters': expected a JSON object")
    return parameters


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise invalid("attempt to access JSON non-string as string")
    return value


def _count(document: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = document.get(name, default)
    if not is_count(value):
        raise not_a_count(name)
    return value  # type: ignore[no-any-return]


def _decoded(name: str, value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise invalid(f"parameter {quoted(name)}: expected base64") from None
