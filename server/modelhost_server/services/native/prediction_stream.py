"""One PredictStream: requests as they come, answers as they are ready, so many under way at most."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial

from modelhost.v1.prediction_service_pb2 import PredictRequest, PredictStreamRequest, StreamedRequest

from ...errors import ModelhostError, Reason
from ...hosting.prediction import Begun, Prediction
from ..call import Call
from ..failures import as_modelhost_error
from . import wire
from .failures import error_message
from .tensors import raw_inputs

# Predictions under way; reading stops there, and so, by flow control, does the sender.
_IN_FLIGHT = 256
# Answers go into one message up to here: gRPC clients take 4 MB unless they are told otherwise.
_MESSAGE_BYTES = 1 << 20

Begin = Callable[[wire.Request, Call], Begun]
Respond = Callable[[PredictRequest, Prediction], wire.Response]


class PredictionStream:
    """A stream; see `answers`.

    Args:
        begin: begins a prediction.
        respond: makes a response of what came of one.
        call: the stream.
    """

    def __init__(self, begin: Begin, respond: Respond, call: Call) -> None:
        self._begin = begin
        self._respond = respond
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._under_way: dict[Begun, asyncio.TimerHandle | None] = {}
        # Answers, and their sizes.
        self._ready: list[tuple[wire.Parts, int]] = []
        self._room = asyncio.Semaphore(_IN_FLIGHT)
        self._something = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    def end_reading(self) -> None:
        """Takes no more requests; those that have been read are answered."""
        if self._reader is not None:
            self._reader.cancel()

    async def answers(self, requests: AsyncIterator[PredictStreamRequest]) -> AsyncIterator[list[wire.Parts]]:
        """Answers requests, each message all that is ready.

        Raises:
            Exception: what reading the requests raised, after the answers to those before.
            asyncio.CancelledError: reading was ended.
        """
        reader = self._reader = self._loop.create_task(self._read(requests))
        reader.add_done_callback(lambda _: self._something.set())
        try:
            while self._ready or self._under_way or not reader.done():
                if not self._ready:
                    self._something.clear()
                    await self._something.wait()
                    continue
                message = self._message()
                yield message
                # Only now, so that nothing is buffered for a reader that does not read.
                for _ in message:
                    self._room.release()
            await reader
        finally:
            reader.cancel()
            for begun, alarm in self._under_way.items():
                begun.cancel()
                if alarm is not None:
                    alarm.cancel()

    def _message(self) -> list[wire.Parts]:
        """Of the answers that are ready, what goes into one message."""
        total = count = 0
        for _, size in self._ready:
            total += size
            if count and total > _MESSAGE_BYTES:
                break
            count += 1
        message = [parts for parts, _ in self._ready[:count]]
        del self._ready[:count]
        return message

    async def _read(self, requests: AsyncIterator[PredictStreamRequest]) -> None:
        async for message in requests:
            for item in message.requests:
                await self._room.acquire()
                self._start(item)

    def _start(self, item: StreamedRequest) -> None:
        deadline = self._call.deadline
        seconds = None
        if item.HasField("timeout"):
            seconds = item.timeout.ToNanoseconds() / 1e9
            own = self._loop.time() + seconds
            deadline = own if deadline is None else min(own, deadline)
        try:
            if seconds is not None and seconds <= 0:
                raise _late()
            request = wire.Request(item.request, raw_inputs(item.request.inputs))
            begun = self._begin(request, Call(deadline, self._call.caller))
        except Exception as error:
            self._fail(item.id, error)
            return
        # The stream's own deadline ends the stream; no timer is needed for that.
        self._under_way[begun] = (
            None if seconds is None else self._loop.call_later(seconds, self._expire, begun, item.id)
        )
        begun.when_done(partial(self._done, begun, item))

    def _done(self, begun: Begun, item: StreamedRequest, outcome: Prediction | ModelhostError) -> None:
        alarm = self._under_way.pop(begun, None)
        if alarm is not None:
            alarm.cancel()
        try:
            if isinstance(outcome, ModelhostError):
                raise outcome
            self._answer(wire.answer(item.id, self._respond(item.request, outcome)))
        except Exception as error:
            self._fail(item.id, error)

    def _expire(self, begun: Begun, number: int) -> None:
        if begun not in self._under_way:
            return
        del self._under_way[begun]
        begun.cancel()
        self._fail(number, _late())

    def _fail(self, number: int, error: Exception) -> None:
        message = error_message(as_modelhost_error(error))
        self._answer(wire.answer(number, None, message.SerializeToString()))

    def _answer(self, answer: tuple[wire.Parts, int]) -> None:
        self._ready.append(answer)
        self._something.set()


def _late() -> ModelhostError:
    return ModelhostError(Reason.DEADLINE_EXCEEDED, "the prediction's timeout passed before its answer")
