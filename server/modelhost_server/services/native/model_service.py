"""ModelService of modelhost.v1, but for its streams (`model_streams`) and uploads (`uploads`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

from modelhost.v1 import model_pb2
from modelhost.v1 import model_service_pb2 as pb

from ...errors import ModelhostError, Reason
from ...hosting.host import Host
from ...store.operations import LoadRequest, UnloadRequest
from ...store.phases import SERVED
from ...store.records import LoadOptions, Version
from ...store.resolve import find_version
from ..call import Call
from .batching import batching_options
from .messages import BASIC, ENGINES, FULL, model_message, version_message
from .model_streams import load_many, watch
from .tensors import samples

_DEFAULTS = LoadOptions()
_MAX_IDLE_SECONDS = 366 * 86400.0


class ModelService:
    """Loads, unloads, lists and watches models."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def load_model(self, request: pb.LoadModelRequest, call: Call) -> pb.LoadModelResponse:
        """Loads a version of a model."""
        return load_response(await self._host.load(load_request(request), wait=not request.no_wait))

    def load_models(self, request: pb.LoadModelsRequest, call: Call) -> AsyncIterator[pb.LoadModelsResponse]:
        """Loads several versions, and streams how they fare."""
        return load_many(self._host, request, load_request, load_response, call)

    async def unload_model(self, request: pb.UnloadModelRequest, call: Call) -> pb.UnloadModelResponse:
        """Unloads one version, or all versions of a model."""
        choice = request.WhichOneof("choice")
        if choice is None or (choice == "all_versions" and not request.all_versions):
            raise ModelhostError(
                Reason.INVALID_REQUEST,
                "choice: expected `version`, `label` or `all_versions`; got none",
                field="choice",
            )
        unload = UnloadRequest(
            request.scope, request.model, request.version, request.label, request.all_versions, request.request_id
        )
        try:
            versions = await self._host.unload(unload, wait=not request.no_wait)
        except ModelhostError as error:
            missing = (Reason.MODEL_NOT_FOUND, Reason.VERSION_NOT_FOUND, Reason.LABEL_NOT_FOUND, Reason.SCOPE_NOT_FOUND)
            if request.allow_missing and error.reason in missing:
                return pb.UnloadModelResponse()
            raise
        return pb.UnloadModelResponse(versions=list(dict.fromkeys(version.number for version in versions)))

    async def set_labels(self, request: pb.SetLabelsRequest, call: Call) -> pb.SetLabelsResponse:
        """Puts labels on versions of a model, moves them and takes them off."""
        model = self._host.store.model(request.scope, request.model)
        await self._host.set_labels(model, request.labels, request.remove)
        return pb.SetLabelsResponse(labels=model.labels)

    async def get_model(self, request: pb.GetModelRequest, call: Call) -> pb.GetModelResponse:
        """Describes a model."""
        model = self._host.store.model(request.scope, request.model)
        if request.version:
            find_version(model, request.version, "")
        for version in model.newest_first():
            if version.phase in SERVED and request.version in (0, version.number):
                # One that cannot be loaded now is described without what it takes.
                with suppress(ModelhostError):
                    await self._host.learn(version)
        await self._host.keepers.of(model.scope).measure_shared(model.newest_first())
        return pb.GetModelResponse(model=model_message(model, request.view or FULL, request.version))

    async def list_models(self, request: pb.ListModelsRequest, call: Call) -> pb.ListModelsResponse:
        """Lists models."""
        store = self._host.store
        models, token = store.models(request.scope, request.page_size, request.page_token, call.sees)
        return pb.ListModelsResponse(
            models=[model_message(model, request.view or BASIC) for model in models],
            next_page_token=token,
            revision=store.events.revision,
        )

    def watch_models(self, request: pb.WatchModelsRequest, call: Call) -> AsyncIterator[pb.WatchModelsResponse]:
        """Streams every change of every version."""
        return watch(self._host, request, call)


def load_request(message: pb.LoadModelRequest) -> LoadRequest:
    """A load as the store takes it.

    Raises:
        ModelhostError: INVALID_REQUEST, INPUT_MALFORMED, UNSUPPORTED.
    """
    options = message.options
    names = {number: name for name, number in ENGINES.items()}
    if options.engine not in names:
        raise ModelhostError(
            Reason.INVALID_REQUEST,
            f"options.engine: expected one of the engines of modelhost.v1.Engine; got the number {options.engine}",
            field="options.engine",
        )
    if not 0 <= options.tolerance <= 1:
        raise ModelhostError(
            Reason.INVALID_REQUEST,
            f"options.tolerance: expected 0 (the default, {_DEFAULTS.tolerance}) to 1; got {options.tolerance}",
            field="options.tolerance",
        )
    return LoadRequest(
        scope=message.scope,
        model=message.model,
        version=message.version,
        source=message.source,
        options=LoadOptions(
            tags=tuple(options.tags),
            engine=names[options.engine],
            annotations=tuple(sorted(options.annotations.items())),
            pinned=options.pinned,
            evictable=options.evictable,
            tolerance=options.tolerance or _DEFAULTS.tolerance,
            require_warmup=options.require_warmup,
            batching=batching_options(options.batching),
            idle_timeout=_idle_timeout(options),
        ),
        labels=tuple(message.labels),
        keep_older=message.keep_older,
        request_id=message.request_id,
        is_callers=True,
        samples=samples("warmup", message.warmup),
    )


def _idle_timeout(options: model_pb2.LoadOptions) -> float:
    """Seconds; 0 for never.

    Raises:
        ModelhostError: INVALID_REQUEST; the options contradict one another, too.
    """
    timeout = options.idle_timeout
    seconds = float(timeout.seconds + timeout.nanos / 1e9)
    if options.HasField("idle_timeout") and not 0 < seconds <= _MAX_IDLE_SECONDS:
        raise ModelhostError(
            Reason.INVALID_REQUEST,
            f"options.idle_timeout: expected more than 0 and at most {_MAX_IDLE_SECONDS:g} seconds (left out: never); "
            f"got {seconds:g}",
            field="options.idle_timeout",
        )
    if options.pinned and (options.evictable or seconds):
        other = "evictable" if options.evictable else "idle_timeout"
        raise ModelhostError(
            Reason.INVALID_REQUEST,
            f"options.pinned: expected one of `pinned`, which is never evicted, and `{other}`; got both",
            field="options.pinned",
        )
    return seconds


def load_response(version: Version) -> pb.LoadModelResponse:
    """The answer to a load."""
    return pb.LoadModelResponse(scope=version.scope, model=version.model, version=version_message(version, FULL))
