"""A small real gRPC server that speaks the protocol and hosts nothing, and drivers to test both clients against it."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import numpy as np
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from modelhost import AsyncClient, Client
from modelhost.v1 import (
    error_pb2,
    model_pb2,
    model_service_pb2,
    prediction_service_pb2,
    scope_pb2,
    scope_service_pb2,
    shared_memory_service_pb2,
)
from modelhost.v1.model_service_pb2_grpc import ModelServiceServicer, add_ModelServiceServicer_to_server
from modelhost.v1.prediction_service_pb2_grpc import PredictionServiceServicer, add_PredictionServiceServicer_to_server
from modelhost.v1.scope_service_pb2_grpc import ScopeServiceServicer, add_ScopeServiceServicer_to_server
from modelhost.v1.shared_memory_service_pb2_grpc import (
    SharedMemoryServiceServicer,
    add_SharedMemoryServiceServicer_to_server,
)

FLOAT32, FLOAT64 = 1, 2
NUMPY = {FLOAT32: np.float32, FLOAT64: np.float64}


class Refused(Exception):
    """What a service answers instead of a message."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        info = error_details_pb2.ErrorInfo(reason=reason, domain="modelhost")
        self.status = status_pb2.Status(code=code, message=reason.lower())
        self.status.details.add().Pack(info)
        self.error = error_pb2.Error(
            code=code, message=reason.lower(), reason=error_pb2.ErrorReason.Value(f"ERROR_REASON_{reason}")
        )


class Service(ModelServiceServicer, PredictionServiceServicer, ScopeServiceServicer, SharedMemoryServiceServicer):
    """One model, "default/half": y = x / 2 + 2. Its input's name and dtype, and what goes wrong, are the test's."""

    def __init__(self) -> None:
        self.input = "x"
        self.dtype = FLOAT32
        self.calls: list[tuple[str, Any, dict[str, str]]] = []
        self.refuse: dict[str, Refused] = {}
        self.regions: dict[str, int] = {}
        self.stream_messages: list[int] = []
        self.stream_metadata: dict[str, str] = {}
        self.watches: list[list[model_service_pb2.WatchModelsResponse | Refused]] = []

    def seen(self, name: str) -> list[Any]:
        """The requests that came to an RPC."""
        return [request for called, request, _ in self.calls if called == name]

    def version(self, number: int = 1) -> model_pb2.Version:
        version = model_pb2.Version(version=number, state=model_pb2.VERSION_STATE_AVAILABLE, source="/half")
        signature = version.signatures.add(name="serving_default")
        signature.inputs.add(name=self.input, dtype=self.dtype, shape=[-1])
        signature.outputs.add(name="y", dtype=self.dtype, shape=[-1])
        return version

    def run(self, request: prediction_service_pb2.PredictRequest) -> prediction_service_pb2.PredictResponse:
        if request.model != "half":
            raise Refused(code_pb2.NOT_FOUND, "MODEL_NOT_FOUND")
        if set(request.inputs) != {self.input}:
            raise Refused(code_pb2.INVALID_ARGUMENT, "INPUT_UNKNOWN")
        tensor = request.inputs[self.input]
        if tensor.dtype != self.dtype:
            raise Refused(code_pb2.INVALID_ARGUMENT, "INPUT_DTYPE_MISMATCH")
        y = (np.frombuffer(self.content(tensor), NUMPY[self.dtype]) / 2 + 2).astype(NUMPY[self.dtype])
        response = prediction_service_pb2.PredictResponse(version=request.version or 1)
        response.outputs["y"].dtype = self.dtype  # type: ignore[assignment]
        response.outputs["y"].shape.extend(tensor.shape)
        place = request.output_regions.get("y", None)
        if place is None or place.byte_size < y.nbytes:
            response.outputs["y"].raw = y.tobytes()
        else:
            os.pwrite(self.region(place), y.tobytes(), place.offset)
            response.outputs["y"].shared_memory.CopyFrom(place)
            response.outputs["y"].shared_memory.byte_size = y.nbytes
        return response

    def content(self, tensor: Any) -> bytes:
        place = tensor.shared_memory
        return os.pread(self.region(place), place.byte_size, place.offset) if place.region else tensor.raw

    def region(self, place: Any) -> int:
        if place.region not in self.regions:
            raise Refused(code_pb2.NOT_FOUND, "REGION_NOT_FOUND")
        return self.regions[place.region]

    def RegisterRegion(self, request: Any, context: Any) -> Any:  # noqa: N802
        def make() -> Any:
            if request.region not in self.regions:
                try:
                    self.regions[request.region] = os.open(f"/dev/shm/{request.file_name}", os.O_RDWR)
                except OSError:
                    raise Refused(code_pb2.INVALID_ARGUMENT, "REGION_INVALID") from None
            return shared_memory_service_pb2.RegisterRegionResponse()

        return self.answer("RegisterRegion", request, context, make)

    def forget_regions(self) -> None:
        """As a server does that is started again."""
        while self.regions:
            os.close(self.regions.popitem()[1])

    def answer(self, name: str, request: Any, context: Any, make: Callable[[], Any]) -> Any:
        self.calls.append((name, request, dict(context.invocation_metadata())))
        try:
            if name in self.refuse:
                raise self.refuse[name]
            return make()
        except Refused as refused:
            context.abort_with_status(rpc_status.to_status(refused.status))

    def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self.answer("Predict", request, context, lambda: self.run(request))

    def PredictStream(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802
        self.stream_metadata = dict(context.invocation_metadata())
        # Answered in pairs, the later one first; a single one is what a stream ends with.
        iterator = (request for message in self.noted(request_iterator) for request in message.requests)
        while pair := list(itertools.islice(iterator, 2)):
            for request in reversed(pair):
                self.calls.append(("PredictStream", request, {}))
                try:
                    answer = prediction_service_pb2.StreamedResponse(id=request.id, response=self.run(request.request))
                except Refused as refused:
                    answer = prediction_service_pb2.StreamedResponse(id=request.id, error=refused.error)
                yield prediction_service_pb2.PredictStreamResponse(responses=[answer])

    def noted(self, messages: Iterator[Any]) -> Iterator[Any]:
        for message in messages:
            self.stream_messages.append(len(message.requests))
            yield message

    def GetModel(self, request: Any, context: Any) -> Any:  # noqa: N802
        def make() -> Any:
            if request.model != "half":
                raise Refused(code_pb2.NOT_FOUND, "MODEL_NOT_FOUND")
            model = model_pb2.Model(
                scope=request.scope, model="half", versions=[self.version(2), self.version(1)], labels={"stable": 1}
            )
            return model_service_pb2.GetModelResponse(model=model)

        return self.answer("GetModel", request, context, make)

    def ListModels(self, request: Any, context: Any) -> Any:  # noqa: N802
        def make() -> Any:
            page = int(request.page_token or "0")
            models = [model_pb2.Model(scope="default", model=f"m{2 * page + i}") for i in range(2)]
            token = str(page + 1) if page < 2 else ""
            return model_service_pb2.ListModelsResponse(models=models, next_page_token=token)

        return self.answer("ListModels", request, context, make)

    def LoadModel(self, request: Any, context: Any) -> Any:  # noqa: N802
        def make() -> Any:
            return model_service_pb2.LoadModelResponse(
                scope=request.scope, model=request.model, version=self.version(request.version or 1)
            )

        return self.answer("LoadModel", request, context, make)

    def LoadModels(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.calls.append(("LoadModels", request, {}))
        total = len(request.loads)
        for index, load in enumerate(request.loads):
            news = {"index": index, "total_count": total}
            stage = model_pb2.LOAD_STAGE_READING
            progress = model_pb2.LoadProgress(stage=stage, fraction=0.5, bytes_done=4, bytes_total=8)
            yield model_service_pb2.LoadModelsResponse(progress=progress, finished_count=index, **news)
            if load.source == "/bad":
                error = Refused(code_pb2.INVALID_ARGUMENT, "SOURCE_INVALID").error
                yield model_service_pb2.LoadModelsResponse(error=error, finished_count=index + 1, **news)
            else:
                loaded = model_service_pb2.LoadModelResponse(scope=load.scope, model=load.model, version=self.version())
                yield model_service_pb2.LoadModelsResponse(loaded=loaded, finished_count=index + 1, **news)

    def UnloadModel(self, request: Any, context: Any) -> Any:  # noqa: N802
        versions = [request.version] if request.version else [2, 1]
        return self.answer(
            "UnloadModel", request, context, lambda: model_service_pb2.UnloadModelResponse(versions=versions)
        )

    def SetLabels(self, request: Any, context: Any) -> Any:  # noqa: N802
        labels = {"old": 1, "stable": 1, **request.labels}
        now = {label: version for label, version in labels.items() if label not in request.remove}
        return self.answer("SetLabels", request, context, lambda: model_service_pb2.SetLabelsResponse(labels=now))

    def WatchModels(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.calls.append(("WatchModels", request, {}))
        for message in self.watches.pop(0):
            if isinstance(message, Refused):
                context.abort_with_status(rpc_status.to_status(message.status))
            yield message

    def ListScopes(self, request: Any, context: Any) -> Any:  # noqa: N802
        scopes = [scope_pb2.Scope(scope="default", worker_state=scope_pb2.WORKER_STATE_READY, model_count=1)]
        return self.answer("ListScopes", request, context, lambda: scope_service_pb2.ListScopesResponse(scopes=scopes))

    def CreateScope(self, request: Any, context: Any) -> Any:  # noqa: N802
        scope = scope_pb2.Scope(scope=request.scope, config=request.config)
        return self.answer("CreateScope", request, context, lambda: scope_service_pb2.CreateScopeResponse(scope=scope))

    def UpdateScope(self, request: Any, context: Any) -> Any:  # noqa: N802
        scope = scope_pb2.Scope(scope=request.scope, config=request.config)
        return self.answer("UpdateScope", request, context, lambda: scope_service_pb2.UpdateScopeResponse(scope=scope))

    def DeleteScope(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self.answer("DeleteScope", request, context, scope_service_pb2.DeleteScopeResponse)


class Served:
    """A service on a free port."""

    def __init__(self) -> None:
        self.service = Service()
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        add_ModelServiceServicer_to_server(self.service, self._server)
        add_PredictionServiceServicer_to_server(self.service, self._server)
        add_ScopeServiceServicer_to_server(self.service, self._server)
        add_SharedMemoryServiceServicer_to_server(self.service, self._server)
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()
        self.service.forget_regions()


class Synchronous:
    """A Client whose streams are read to their end."""

    def __init__(self, target: str, **options: Any) -> None:
        self._client = Client(target, **options)

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            result = getattr(self._client, name)(*arguments, **options)
            return self.collect([], result) if isinstance(result, Iterator) else result

        return call

    def stream(self, into: list[Any], name: str, **options: Any) -> None:
        self.collect(into, getattr(self._client, name)(**options))

    @staticmethod
    def collect(into: list[Any], result: Iterator[Any]) -> list[Any]:
        into.extend(result)
        return into


class Asynchronous:
    """An AsyncClient used as if it were a Client; streams are read to their end."""

    def __init__(self, target: str, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = self._runner.run(self._make(target, options))

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            async def run() -> Any:
                result = getattr(self._client, name)(*arguments, **options)
                return await (self.collect([], result) if isinstance(result, AsyncIterator) else result)

            return self._runner.run(run())

        return call

    def stream(self, into: list[Any], name: str, **options: Any) -> None:
        self._runner.run(self.collect(into, getattr(self._client, name)(**options)))

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()

    @staticmethod
    async def _make(target: str, options: dict[str, Any]) -> AsyncClient:
        # It belongs to the loop in which it is made.
        return AsyncClient(target, **options)

    @staticmethod
    async def collect(into: list[Any], result: AsyncIterator[Any]) -> list[Any]:
        async for item in result:
            into.append(item)  # noqa: PERF401 (what came before an error counts)
        return into


EXISTING, SYNCED, CHANGED, PROGRESS = 1, 2, 3, 4


def event(kind: int, revision: int) -> model_service_pb2.WatchModelsResponse:
    message = model_service_pb2.WatchModelsResponse(type=kind, revision=revision, scope="default", model="half")  # type: ignore[arg-type]
    if kind != model_service_pb2.WATCH_EVENT_TYPE_SYNCED:
        message.version.version = 1
    return message
