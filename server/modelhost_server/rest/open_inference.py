"""The Open Inference Protocol's REST API, with Triton's extensions: `/v2/…`."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..compat import open_inference_pb2 as pb
from ..services.open_inference.errors import translate
from .application import answering
from .bodies import read_body
from .calls import Methods, call_of, while_there
from .failures import JSON, OPEN_INFERENCE_STATUSES, Dialect, error_response
from .infer_requests import infer_request
from .infer_responses import infer_response
from .messages import message_document
from .open_inference_admin import SERVICE
from .open_inference_admin import routes as admin_routes

_HEADER_LENGTH = "Inference-Header-Content-Length"
_NOT_READY = 400


def routes(methods: Methods, max_body_bytes: int) -> list[Route]:
    """All of them."""
    api = _Api(methods, max_body_bytes)
    dialect = Dialect(translate, OPEN_INFERENCE_STATUSES)
    gets = [
        ("/v2", api.metadata), ("/v2/models/stats", api.statistics),
    ]  # fmt: skip
    health = [("/v2/health/live", api.live), ("/v2/health/ready", api.ready)]
    posts = []
    for version in ("/versions/{version}", ""):
        model = "/v2/models/{model:model}" + version
        posts.append((f"{model}/infer", api.infer))
        gets += [
            (f"{model}/ready", api.model_ready), (f"{model}/config", api.config), (f"{model}/stats", api.statistics),
            (model, api.model_metadata),
        ]  # fmt: skip
    return [
        *admin_routes(methods, max_body_bytes, dialect),
        *(Route(path, answering(endpoint, dialect, methods.admit), methods=["POST"]) for path, endpoint in posts),
        *(Route(path, answering(endpoint, dialect, methods.admit), methods=["GET"]) for path, endpoint in gets),
        *(
            Route(path, answering(endpoint, dialect, methods.admit_anybody), methods=["GET"])
            for path, endpoint in health
        ),
    ]


class _Api:
    """What the routes lead to."""

    def __init__(self, methods: Methods, max_body_bytes: int) -> None:
        self._methods = methods
        self._max_body_bytes = max_body_bytes

    async def infer(self, request: Request) -> Response:
        """Runs a model."""
        body = await read_body(request, self._max_body_bytes)
        asked = infer_request(*_model(request), body, request.headers.get(_HEADER_LENGTH))
        inference = self._methods.begin(SERVICE + "ModelInfer", asked.request, call_of(request))
        content, header_length = infer_response(asked, await while_there(request, inference))
        if header_length is None:
            return Response(content, media_type=JSON)
        return Response(content, 200, {_HEADER_LENGTH: str(header_length)}, "application/octet-stream")

    async def metadata(self, request: Request) -> Response:
        """Tells of the server."""
        return await self._tell(request, "ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse)

    async def live(self, request: Request) -> Response:
        """Tells whether there is a server."""
        response = await self._ask(request, "ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse)
        return Response(status_code=200 if response.live else _NOT_READY)

    async def ready(self, request: Request) -> Response:
        """Tells whether the server takes requests."""
        response = await self._ask(request, "ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse)
        return Response(status_code=200 if response.ready else _NOT_READY)

    async def model_ready(self, request: Request) -> Response:
        """Tells whether a version takes requests."""
        model, version = _model(request)
        message = pb.ModelReadyRequest(name=model, version=version)
        response = await self._ask(request, "ModelReady", message, pb.ModelReadyResponse)
        return Response() if response.ready else error_response(_NOT_READY, "Model version not ready")

    async def model_metadata(self, request: Request) -> Response:
        """Tells of a model's inputs and outputs."""
        model, version = _model(request)
        message = pb.ModelMetadataRequest(name=model, version=version)
        return await self._tell(request, "ModelMetadata", message, pb.ModelMetadataResponse)

    async def config(self, request: Request) -> Response:
        """Tells how a model is configured."""
        model, version = _model(request)
        message = pb.ModelConfigRequest(name=model, version=version)
        response = await self._ask(request, "ModelConfig", message, pb.ModelConfigResponse)
        return Response(orjson.dumps(message_document(response.config)), media_type=JSON)

    async def statistics(self, request: Request) -> Response:
        """Tells what a model, or each, has done."""
        model, version = _model(request)
        message = pb.ModelStatisticsRequest(name=model, version=version)
        return await self._tell(request, "ModelStatistics", message, pb.ModelStatisticsResponse)

    async def _ask(self, request: Request, method: str, message: Any, response: type[Any]) -> Any:
        return await self._methods(SERVICE + method, message, response, call_of(request))

    async def _tell(self, request: Request, method: str, message: Any, response: type[Any]) -> Response:
        answer = await self._ask(request, method, message, response)
        return Response(orjson.dumps(message_document(answer)), media_type=JSON)


def _model(request: Request) -> tuple[str, str]:
    """Name and version; "" where the path has none."""
    return request.path_params.get("model", ""), request.path_params.get("version", "")
