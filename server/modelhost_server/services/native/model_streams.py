"""The streams of ModelService: many loads at once, and the watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from modelhost.v1 import model_pb2
from modelhost.v1 import model_service_pb2 as pb

from ...access.identity import Role
from ...hosting.host import Host
from ...store.events import Event
from ...store.names import DEFAULT_SCOPE
from ...store.operations import LoadRequest
from ...store.records import Version
from ..call import Call
from ..failures import as_modelhost_error
from .failures import error_message
from .messages import BASIC, progress_message, version_message


async def load_many(
    host: Host,
    request: pb.LoadModelsRequest,
    parse: Callable[[pb.LoadModelRequest], LoadRequest],
    respond: Callable[[Version], pb.LoadModelResponse],
    call: Call,
) -> AsyncIterator[pb.LoadModelsResponse]:
    """Runs the loads of a LoadModels request; see the proto."""
    total = len(request.loads)
    news: asyncio.Queue[pb.LoadModelsResponse] = asyncio.Queue()
    index_of: dict[int, int] = {}

    def on_progress(version: Version) -> None:
        if version.key in index_of:
            news.put_nowait(
                pb.LoadModelsResponse(index=index_of[version.key], progress=progress_message(version.progress))
            )

    async def load(index: int, message: pb.LoadModelRequest) -> None:
        try:
            call.require(Role.MANAGE, message.scope or DEFAULT_SCOPE)
            load = parse(message)
            version = await host.begin_load(load)
            index_of[version.key] = index
            version = await host.load_settled(version, wait=not message.no_wait)
            news.put_nowait(pb.LoadModelsResponse(index=index, loaded=respond(version)))
        except Exception as error:
            news.put_nowait(pb.LoadModelsResponse(index=index, error=error_message(as_modelhost_error(error))))

    stop_listening = host.store.listen_to_progress(on_progress)
    tasks = [asyncio.get_running_loop().create_task(load(i, message)) for i, message in enumerate(request.loads)]
    finished = 0
    try:
        while finished < total:
            response = await news.get()
            finished += response.WhichOneof("outcome") != "progress"
            response.finished_count, response.total_count = finished, total
            yield response
    finally:
        stop_listening()
        for task in tasks:
            task.cancel()


async def watch(host: Host, request: pb.WatchModelsRequest, call: Call) -> AsyncIterator[pb.WatchModelsResponse]:
    """Streams changes; see the proto."""
    store, view = host.store, request.view or BASIC
    scope = request.scope or (DEFAULT_SCOPE if request.model else "")
    if scope:
        store.scope(scope)
    revision = request.from_revision
    news = asyncio.Event()
    progressed: dict[int, Version] = {}

    def concerns(version: Version) -> bool:
        seen = version.scope == scope if scope else call.sees(version.scope)
        return seen and (not request.model or version.model == request.model)

    def on_progress(version: Version) -> None:
        if concerns(version):
            progressed[version.key] = version
            news.set()

    stops = [store.events.listen(lambda event: news.set()), host.draining.listen(news.set)]
    if request.include_progress:
        stops.append(store.listen_to_progress(on_progress))
    try:
        if not revision:
            revision = store.events.revision
            for existing in [v for v in store.all_versions() if concerns(v)]:
                yield _existing(existing, store.model(existing.scope, existing.model).labels, view)
            yield pb.WatchModelsResponse(type=pb.WATCH_EVENT_TYPE_SYNCED, revision=revision)
        while True:
            host.draining.check_accepting()
            news.clear()
            for event in store.events.since(revision):
                revision = event.revision
                if concerns(event.version):
                    yield _changed(event, view)
            for version in [progressed.pop(key) for key in list(progressed)]:
                yield pb.WatchModelsResponse(
                    type=pb.WATCH_EVENT_TYPE_PROGRESS, scope=version.scope, model=version.model,
                    version=version_message(version, BASIC),
                )  # fmt: skip
            await news.wait()
    finally:
        for stop in stops:
            stop()


def _existing(version: Version, labels: dict[str, int], view: model_pb2.ModelView.ValueType) -> pb.WatchModelsResponse:
    return pb.WatchModelsResponse(
        type=pb.WATCH_EVENT_TYPE_EXISTING, scope=version.scope, model=version.model,
        version=version_message(version, view), labels=labels,
    )  # fmt: skip


def _changed(event: Event, view: model_pb2.ModelView.ValueType) -> pb.WatchModelsResponse:
    return pb.WatchModelsResponse(
        type=pb.WATCH_EVENT_TYPE_CHANGED, revision=event.revision, scope=event.version.scope,
        model=event.version.model, version=version_message(event.version, view), labels=dict(event.labels),
    )  # fmt: skip
