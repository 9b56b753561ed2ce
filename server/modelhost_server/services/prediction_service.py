"""PredictionService of modelhost.v1."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from modelhost.v1.prediction_service_pb2 import (
    PredictManyRequest,
    PredictManyResponse,
    PredictManyResult,
    PredictManyTarget,
    PredictRequest,
    PredictResponse,
    PredictStreamRequest,
    PredictStreamResponse,
    StreamedRequest,
    StreamedResponse,
)

from ..errors import ModelhostError, Reason
from ..hosting.host import Host
from ..hosting.many import Outcome, Target
from ..hosting.prediction import Prediction
from .call import Call
from .failures import as_modelhost_error, error_message
from .tensors import fill_outputs, raw_inputs

# Predictions of one stream that may be under way; reading stops there, and so, by flow control, does the sender.
_STREAM_IN_FLIGHT = 256
_MAX_TARGETS = 1000


class PredictionService:
    """Runs signatures of hosted models."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def predict(self, request: PredictRequest, call: Call) -> PredictResponse:
        """Runs one signature once."""
        version, label = _choice(request)
        prediction = await self._host.predict(
            request.scope, request.model, version, label, request.signature,
            raw_inputs(request.inputs), request.output_filter,
            deadline=call.deadline, caller=call.caller, priority=request.priority,
        )  # fmt: skip
        return _response(prediction)

    async def predict_many(self, request: PredictManyRequest, call: Call) -> PredictManyResponse:
        """Runs the same inputs through several models."""
        if len(request.targets) > _MAX_TARGETS:
            raise ModelhostError(
                Reason.INVALID_REQUEST,
                f"targets: expected at most {_MAX_TARGETS}; got {len(request.targets)}",
                field="targets",
            )
        targets = [Target(target.model, *_choice(target), target.signature) for target in request.targets]
        outcomes = await self._host.predict_many(
            request.scope, targets, raw_inputs(request.inputs), request.output_filter, call.caller
        )
        return PredictManyResponse(results=[_result(outcome) for outcome in outcomes])

    async def predict_stream(
        self, requests: AsyncIterator[PredictStreamRequest], call: Call
    ) -> AsyncIterator[PredictStreamResponse]:
        """Runs many predictions over one stream; answers come as they are ready, all that are at once."""
        loop = asyncio.get_running_loop()
        ready: list[StreamedResponse] = []
        something = asyncio.Event()
        room = asyncio.Semaphore(_STREAM_IN_FLIGHT)
        under_way: set[asyncio.Task[None]] = set()

        async def answer(item: StreamedRequest) -> None:
            answered = await self._answer(item, call)
            ready.append(answered)
            something.set()

        async def read() -> None:
            async for message in requests:
                for item in message.requests:
                    await room.acquire()
                    task = loop.create_task(answer(item))
                    under_way.add(task)
                    task.add_done_callback(ended)

        def ended(task: asyncio.Task[None]) -> None:
            under_way.discard(task)
            something.set()

        reader = loop.create_task(read())
        reader.add_done_callback(ended)
        # A drain ends the reading; what has been read is answered.
        stop_listening = self._host.on_drain(reader.cancel)
        try:
            while ready or under_way or not reader.done():
                if not ready:
                    something.clear()
                    await something.wait()
                    continue
                responses, ready = ready, []
                yield PredictStreamResponse(responses=responses)
                # Only now, so that nothing is buffered for a reader that does not read.
                for _ in responses:
                    room.release()
            self._host.check_accepting()
            await reader
        finally:
            stop_listening()
            for task in (reader, *under_way):
                task.cancel()

    async def _answer(self, item: StreamedRequest, call: Call) -> StreamedResponse:
        deadline, loop = call.deadline, asyncio.get_running_loop()
        if item.HasField("timeout"):
            own = loop.time() + item.timeout.ToNanoseconds() / 1e9
            deadline = own if deadline is None else min(own, deadline)
        try:
            async with asyncio.timeout_at(deadline):
                response = await self.predict(item.request, Call(deadline, call.caller))
        except TimeoutError:
            late = ModelhostError(Reason.DEADLINE_EXCEEDED, "the prediction's timeout passed before its answer")
            return StreamedResponse(id=item.id, error=error_message(late))
        except Exception as error:
            return StreamedResponse(id=item.id, error=error_message(as_modelhost_error(error)))
        return StreamedResponse(id=item.id, response=response)


def _choice(request: PredictRequest | PredictManyTarget) -> tuple[int, str]:
    """Version and label asked for; 0 and "" for the default.

    Raises:
        ModelhostError: INVALID_REQUEST.
    """
    version, label = request.version, request.label
    if not (version or label) and (choice := request.WhichOneof("choice")):
        wrong = "a number greater than 0; got 0" if choice == "version" else "a label's name; got nothing"
        raise ModelhostError(Reason.INVALID_REQUEST, f"{choice}: expected the field left out, or {wrong}", field=choice)
    return version, label


def _response(prediction: Prediction) -> PredictResponse:
    response = PredictResponse(version=prediction.version)
    fill_outputs(response, prediction.outputs)
    return response


def _result(outcome: Outcome) -> PredictManyResult:
    if isinstance(outcome, ModelhostError):
        return PredictManyResult(error=error_message(outcome))
    return PredictManyResult(response=_response(outcome))
