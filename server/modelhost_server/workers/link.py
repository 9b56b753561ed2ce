"""The server's end of one worker: sends it calls, hands its answers to whoever waits, and knows when it has gone."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import ModelhostError, Reason
from ..ipc import frames
from ..ipc.arena import Arena
from ..ipc.frames import HEADER, Kind, TensorWriter
from ..tensors import RawTensor

logger = logging.getLogger(__name__)

# Outputs by position, or why there are none.
Answer = list[RawTensor] | ModelhostError
OnAnswer = Callable[[Answer], None]
OnProgress = Callable[[dict[str, Any]], None]


class _Control:
    """A LOAD or UNLOAD under way."""

    __slots__ = ("future", "key", "on_progress")

    def __init__(self, key: int, future: asyncio.Future[dict[str, Any]], on_progress: OnProgress | None) -> None:
        self.key = key
        self.future = future
        self.on_progress = on_progress


class _Predict:
    """A prediction under way, and the ranges of the arena that its inputs are in."""

    __slots__ = ("key", "offsets", "on_answer")

    def __init__(self, key: int, on_answer: OnAnswer, offsets: list[int]) -> None:
        self.key = key
        self.on_answer = on_answer
        self.offsets = offsets


class WorkerLink(asyncio.Protocol):
    """Speaks frames with one worker. All methods are called on the event loop."""

    def __init__(self, inputs: Arena, outputs: Arena) -> None:
        self._inputs = inputs
        self._outputs = outputs
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, _Predict | _Control] = {}
        self._next_call = 1
        self._received = bytearray()
        self._outgoing: list[bytes | memoryview] = []
        self._released: list[int] = []
        self._flush_scheduled = False
        self._lost: ModelhostError | None = None
        self._idle_waiters: deque[asyncio.Future[None]] = deque()

    # Calls

    def predict(
        self,
        key: int,
        signature: int,
        outputs: Sequence[int],
        inputs: Sequence[tuple[int, RawTensor]],
        on_answer: OnAnswer,
    ) -> None:
        """Sends a prediction; `on_answer` is called exactly once, with its outputs or its error."""
        if self._lost is not None:
            on_answer(self._lost)
            return
        writer = TensorWriter(self._inputs)
        for position, tensor in inputs:
            writer.put(position, tensor.dtype, tensor.shape, tensor.data)  # type: ignore[arg-type]
        call = self._next_call
        self._next_call = call + 1
        self._calls[call] = _Predict(key, on_answer, writer.offsets)
        self._send(frames.predict_frame(call, key, signature, outputs, writer))

    async def control(
        self, kind: Kind, request: dict[str, Any], on_progress: OnProgress | None = None
    ) -> dict[str, Any]:
        """Sends a LOAD or UNLOAD and answers what the worker answers.

        Raises:
            ModelhostError: the worker's, or WORKER_DIED.
        """
        if self._lost is not None:
            raise self._lost
        future: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        call = self._next_call
        self._next_call = call + 1
        self._calls[call] = _Control(request["key"], future, on_progress)
        self._send(frames.json_frame(kind, call, request))
        # The caller may leave; the worker goes on and its answer must find its place.
        return await asyncio.shield(future)

    def busy_keys(self) -> set[int]:
        """Keys of the versions that are running or being loaded."""
        return {waiting.key for waiting in self._calls.values()}

    async def idle(self) -> None:
        """Returns when no call is under way."""
        while self._calls:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._idle_waiters.append(waiter)
            await waiter

    def close(self) -> None:
        """Hangs up; the worker ends itself."""
        if self._transport is not None:
            self._transport.close()

    # Sending

    def _send(self, frame: list[Any]) -> None:
        self._outgoing.extend(frame)
        self._schedule_flush()

    def _schedule_flush(self) -> None:
        # All that is sent within one turn of the event loop goes out in one write.
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._released:
            self._outgoing.extend(frames.release_frame(self._released))
            self._released.clear()
        if self._transport is not None and self._lost is None:
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    # Receiving

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        buffer: bytes | bytearray = data
        if self._received:
            self._received += data
            buffer = self._received
        start, size = 0, len(buffer)
        view = memoryview(buffer)
        while size - start >= HEADER.size:
            length, kind, call = HEADER.unpack_from(buffer, start)
            end = start + HEADER.size + length
            if end > size:
                break
            self._handle(kind, call, view[start + HEADER.size : end])
            start = end
        if start or buffer is data:
            # Answers may still look into the old buffer, so it is left to them.
            self._received = bytearray(view[start:])
        # A buffer that is being looked at cannot grow.
        view.release()

    def _handle(self, kind: int, call: int, body: memoryview) -> None:
        try:
            if kind == Kind.RESULT:
                self._result(call, body)
            elif kind == Kind.RELEASE:
                for offset in frames.released_offsets(body):
                    self._inputs.free(offset)
            elif kind == Kind.PROGRESS:
                control = self._calls.get(call)
                if isinstance(control, _Control) and control.on_progress is not None:
                    control.on_progress(frames.read_json(body))
            elif kind in (Kind.ERROR, Kind.DONE):
                self._reply(kind, call, frames.read_json(body))
            else:
                raise ValueError(f"unknown kind of frame {kind}")
        except (ValueError, KeyError, struct.error) as error:
            # Nothing that comes from a worker can be relied on once it sends nonsense.
            logger.error("a worker sent a broken frame (kind %d): %s; ending it", kind, error)
            self._fail(ModelhostError(Reason.WORKER_DIED, "the worker sent a broken answer and was ended"))
            self.close()

    def _result(self, call: int, body: memoryview) -> None:
        predict = self._calls.get(call)
        if not isinstance(predict, _Predict):
            raise ValueError("an answer to no call")
        count, held, start = frames.read_result(body)
        outputs = frames.read_tensors(body, start, count, self._outputs, self._copy_out)
        self._finish(call, predict, [tensor for _, tensor in outputs], held)

    def _copy_out(self, offset: int, view: memoryview) -> memoryview:
        self._released.append(offset)
        self._schedule_flush()
        return memoryview(bytes(view))

    def _reply(self, kind: int, call: int, reply: dict[str, Any]) -> None:
        waiting = self._calls.get(call)
        if waiting is None:
            raise ValueError("a reply to no call")
        if isinstance(waiting, _Predict):
            self._finish(call, waiting, ModelhostError.from_json(reply), [int(offset) for offset in reply["held"]])
            return
        self._forget(call)
        if waiting.future.done():
            return
        if kind == Kind.ERROR:
            waiting.future.set_exception(ModelhostError.from_json(reply))
        else:
            waiting.future.set_result(reply)

    def _finish(self, call: int, predict: _Predict, answer: Answer, held: Sequence[int]) -> None:
        self._forget(call)
        for offset in predict.offsets:
            if offset not in held:
                self._inputs.free(offset)
        predict.on_answer(answer)

    def _forget(self, call: int) -> None:
        del self._calls[call]
        if not self._calls:
            while self._idle_waiters:
                waiter = self._idle_waiters.popleft()
                if not waiter.done():
                    waiter.set_result(None)

    def fail(self, cause: ModelhostError) -> None:
        """The template says the worker has gone: what is under way fails for this cause, and so does what comes."""
        self._fail(cause)
        self._inputs.close()
        self._outputs.close()

    def _fail(self, cause: ModelhostError) -> None:
        if self._lost is None:
            self._lost = cause
        for call, waiting in list(self._calls.items()):
            self._forget(call)
            if isinstance(waiting, _Predict):
                waiting.on_answer(cause)
            elif not waiting.future.done():
                waiting.future.set_exception(cause)
                # Whoever waited may have left.
                waiting.future.exception()
