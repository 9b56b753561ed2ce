"""The Open Inference Protocol's model repository: what there is, loads and unloads, as Triton and KServe have them."""

from __future__ import annotations

import asyncio

from ...compat import open_inference_pb2 as pb
from ...errors import Code, ForeignError
from ...hosting.host import Host
from ...repositories.overrides import PREFIX
from ...repositories.triton_control import Ask, ModelControl
from ...repositories.triton_plan import status_text
from ...store.names import DEFAULT_SCOPE, MAX_LENGTH
from ...store.phases import SERVED, State
from ...store.records import Version
from ..call import Call
from ..names import model_name, scope_and_model
from .errors import invalid, quoted

_STATES = {
    State.LOADING: "LOADING",
    State.UNLOADING: "UNLOADING",
    State.UNLOADED: "UNAVAILABLE",
    State.FAILED: "UNAVAILABLE",
}
_NO_REPOSITORIES = "'repository_name' specification is not supported"


class RepositoryHandler:
    """Lists, loads and unloads models."""

    def __init__(self, host: Host, control: ModelControl) -> None:
        self._host = host
        self._control = control

    async def repository_index(self, request: pb.RepositoryIndexRequest, call: Call) -> pb.RepositoryIndexResponse:
        """Lists models and their versions."""
        if request.repository_name:
            raise ForeignError(Code.UNIMPLEMENTED, _NO_REPOSITORIES)
        models: dict[str, dict[int, tuple[str, str]]] = {}
        try:
            if call.sees(DEFAULT_SCOPE):
                models = {name: {} for name in await asyncio.to_thread(self._control.names)}
        except OSError as error:
            raise ForeignError(Code.INTERNAL, f"failed to read the model repository: {error.strerror}") from None
        for key, number, reason in self._control.absent():
            if call.sees(key[0]):
                models.setdefault(model_name(*key), {})[number] = "UNAVAILABLE", reason
        for version in self._host.store.all_versions():
            if not call.sees(version.scope):
                continue
            name = model_name(version.scope, version.model)
            models.setdefault(name, {})[version.number] = _state(version), _reason(version)
        response = pb.RepositoryIndexResponse()
        for name, versions in sorted(models.items()):
            for number, (state, reason) in sorted(versions.items()):
                if state == "READY" or not request.ready:
                    response.models.add(name=name, version=str(number), state=state, reason=reason)
            if not versions and not request.ready:
                response.models.add(name=name)
        return response

    async def repository_model_load(
        self, request: pb.RepositoryModelLoadRequest, call: Call
    ) -> pb.RepositoryModelLoadResponse:
        """Loads a model."""
        name = _asked(request)
        config, files = None, {}
        for key, parameter in request.parameters.items():
            kind = "bytes_param" if key.startswith(PREFIX) else "string_param"
            if key != "config" and not key.startswith(PREFIX):
                raise invalid(f"unrecognized load parameter {quoted(key)}.")
            if parameter.WhichOneof("parameter_choice") != kind:
                raise invalid(f"invalid value type for load parameter {quoted(key)}, expected {kind}.")
            if key == "config":
                config = parameter.string_param
            else:
                files[key] = parameter.bytes_param
        await self._control.load(scope_and_model(name), Ask(name, config, files))
        # Triton's clients expect an empty answer.
        return (
            pb.RepositoryModelLoadResponse()
            if request.model_name
            else pb.RepositoryModelLoadResponse(model_name=name, isLoaded=True)
        )

    async def repository_model_unload(
        self, request: pb.RepositoryModelUnloadRequest, call: Call
    ) -> pb.RepositoryModelUnloadResponse:
        """Begins to unload a model. No model here depends on another, so `unload_dependents` changes nothing."""
        name = _asked(request)
        dependents = request.parameters.get("unload_dependents")
        if dependents is not None and dependents.WhichOneof("parameter_choice") != "bool_param":
            raise invalid("invalid value type for 'unload_dependents' parameter, expected bool_param.")
        await self._control.unload(scope_and_model(name))
        return (
            pb.RepositoryModelUnloadResponse()
            if request.model_name
            else pb.RepositoryModelUnloadResponse(model_name=name, isUnloaded=True)
        )


def _asked(request: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest) -> str:
    """The model that is asked for. KServe's clients have its name where Triton's have the repository's."""
    if request.model_name and request.repository_name:
        raise ForeignError(Code.UNIMPLEMENTED, _NO_REPOSITORIES)
    name = request.model_name or request.repository_name
    if not name:
        raise invalid("model name must not be empty")
    if name.isspace():
        raise invalid("model name must not contain only whitespace characters")
    if ".." in name or name.startswith("/") or name.count("/") > 1 or len(name) > 2 * MAX_LENGTH:
        raise invalid(f"invalid model name {quoted(name)}, model name must not contain path traversal characters")
    return name


def _state(version: Version) -> str:
    # One that is EVICTED answers, too.
    return "READY" if version.phase in SERVED else _STATES[version.state]


def _reason(version: Version) -> str:
    if version.state is State.FAILED and version.error is not None:
        return status_text(version.error)
    return ""
