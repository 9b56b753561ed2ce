"""The server's end of one worker: sends it calls, hands its answers to whoever waits, and knows when it has gone."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, cast

from ..errors import ModelhostError, Reason
from ..ipc import frames
from ..ipc.arena import Arena
from ..ipc.frames import HEADER, Kind, TensorWriter
from ..tensors import Lease, LeasedBytes, RawTensor
from .calls import Answer, Control, Many, ManyRun, OnAnswer, OnAnswers, OnProgress, Predict, fail

logger = logging.getLogger(__name__)

# A worker without calls for this long is idle: memory for inputs goes back to the system.
_IDLE_SECONDS = 5.0

# What a worker sends in one frame. Large tensors are not in frames.
MAX_FRAME_BYTES = 256 << 20
# What comes of reading a frame that is not as a worker writes it.
_BROKEN = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError, struct.error)

# A version's key, the engine that failed it, and why.
OnDemoted = Callable[[int, str, str], None]


class WorkerLink(asyncio.Protocol):
    """Speaks frames with one worker. All methods are called on the event loop."""

    def __init__(self, inputs: Arena, outputs: Arena) -> None:
        self._inputs = inputs
        self._outputs = outputs
        # Predictions for which the worker found no memory.
        self.refusals = 0
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, Predict | Many | Control] = {}
        self._next_call = 1
        self._received = bytearray()
        self._outgoing: list[bytes | memoryview] = []
        self._released: list[int] = []
        self._flush_scheduled = False
        self._idle_since = 0.0
        self._trimming = False
        # Ranges of inputs that the worker still uses, though it has answered.
        self._held: set[int] = set()
        self._lost: ModelhostError | None = None
        self._closing = False
        self._idle_waiters: deque[asyncio.Future[None]] = deque()
        self.on_demoted: OnDemoted = lambda key, engine, why: None
        # Called once when the worker has hung up, or speaks nonsense: it is to be killed.
        self.on_broken: Callable[[], None] = lambda: None

    # Calls

    def predict(
        self,
        key: int,
        signature: int,
        outputs: Sequence[int],
        inputs: Sequence[tuple[int, RawTensor]],
        dtypes: Sequence[int],
        on_answer: OnAnswer,
    ) -> None:
        """Sends a prediction; `on_answer` is called exactly once, with its outputs, which are of these dtypes, or its
        error.

        Raises:
            OSError: an input in a file cannot be read; nothing is sent.
        """
        if self._lost is not None:
            on_answer(self._lost)
            return
        writer = self._written(inputs)
        call = self._next_call
        self._next_call = call + 1
        self._calls[call] = Predict(key, on_answer, writer.offsets, dtypes)
        self._send(frames.predict_frame(call, key, signature, outputs, writer))

    def predict_many(
        self,
        runs: Sequence[ManyRun],
        tensors: Sequence[RawTensor],
        dtypes: Sequence[Sequence[int]],
        on_answers: OnAnswers,
    ) -> None:
        """Sends several predictions on the same inputs; `on_answers` is called exactly once, with what came of each,
        whose outputs are of these dtypes.
        """
        if self._lost is not None:
            on_answers([self._lost] * len(runs))
            return
        writer = self._written(enumerate(tensors))
        call = self._next_call
        self._next_call = call + 1
        self._calls[call] = Many(runs, on_answers, writer.offsets, dtypes)
        self._send(frames.many_frame(Kind.PREDICT_MANY, call, {"runs": runs}, writer))

    def _written(self, tensors: Iterable[tuple[int, RawTensor]]) -> TensorWriter:
        writer = TensorWriter(self._inputs)
        try:
            for index, tensor in tensors:
                writer.put(index, tensor.dtype, tensor.shape, tensor.data)
        except OSError:
            writer.free()
            raise
        return writer

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
        self._calls[call] = Control(request["key"], future, on_progress)
        self._send(frames.json_frame(kind, call, request))
        # The caller may leave; the worker goes on and its answer must find its place.
        return await asyncio.shield(future)

    @property
    def under_way(self) -> int:
        """How many calls wait for an answer."""
        return len(self._calls)

    def busy_keys(self) -> set[int]:
        """Keys of the versions that are running or being loaded."""
        busy = set()
        for waiting in self._calls.values():
            busy.update([run.key for run in waiting.runs] if isinstance(waiting, Many) else [waiting.key])
        return busy

    async def idle(self) -> None:
        """Returns when no call is under way."""
        while self._calls:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._idle_waiters.append(waiter)
            await waiter

    def close(self) -> None:
        """Hangs up; the worker ends itself."""
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    def give_up(self, why: str) -> None:
        """Has a worker killed that nothing can be relied on of any more. What it is busy with fails when it is gone, so
        that its end is known, and who is to blame.
        """
        if not self._closing:
            logger.error("a worker is ended: %s", why)
            self.close()
            self.on_broken()

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
        if self._transport is not None and self._lost is None and not self._closing:
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    # Receiving

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol. Most often the process has ended, which the template is about to tell."""
        if not self._closing:
            self._closing = True
            self.on_broken()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        buffer: bytes | bytearray = data
        if self._received:
            self._received += data
            buffer = self._received
        start, size = 0, len(buffer)
        view = memoryview(buffer)
        while size - start >= HEADER.size and not self._closing:
            length, kind, call = HEADER.unpack_from(buffer, start)
            if length > MAX_FRAME_BYTES:
                self.give_up(f"it sends a frame of {length} bytes")
                break
            end = start + HEADER.size + length
            if end > size:
                break
            try:
                tell = self._read(kind, call, view[start + HEADER.size : end])
            except _BROKEN as error:
                self.give_up(f"it sent a broken frame (kind {kind}, {type(error).__name__}: {str(error)[:200]})")
                break
            tell()
            start = end
        if start or buffer is data:
            # Answers may still look into the old buffer, so it is left to them.
            self._received = bytearray() if self._closing else bytearray(view[start:])
        # A buffer that is being looked at cannot grow.
        view.release()

    def _read(self, kind: int, call: int, body: memoryview) -> Callable[[], None]:
        """Reads a frame, all of it before anything is done; what is answered tells whoever waits.

        Raises:
            Those of _BROKEN: it is not as it should be.
        """
        if kind == Kind.RESULT:
            return self._result(call, body)
        if kind == Kind.RESULT_MANY:
            return self._many_results(call, body)
        if kind == Kind.RELEASE:
            return self._given_back(frames.released_offsets(body))
        if kind == Kind.PROGRESS:
            control = self._calls.get(call)
            report = frames.read_json(body)
            if isinstance(control, Control) and control.on_progress is not None:
                return partial(control.on_progress, report)
            return _nothing
        if kind == Kind.DEMOTED:
            told = frames.read_json(body)
            return partial(self.on_demoted, int(told["key"]), str(told["engine"]), str(told["why"]))
        if kind in (Kind.ERROR, Kind.DONE):
            return self._reply(kind, call, frames.read_json(body))
        raise ValueError("an unknown kind")

    def _given_back(self, offsets: Sequence[int]) -> Callable[[], None]:
        if not self._held.issuperset(offsets) or len(set(offsets)) != len(offsets):
            raise ValueError("memory is given back that was not held")

        def free() -> None:
            for offset in offsets:
                self._held.remove(offset)
                self._inputs.free(offset)

        return free

    def _result(self, call: int, body: memoryview) -> Callable[[], None]:
        predict = self._calls.get(call)
        if not isinstance(predict, Predict):
            raise ValueError("an answer to no call")
        count, held, start = frames.read_result(body)
        outputs = frames.read_tensors(body, start, count, self._outputs, self._lease)
        answer = [tensor for _, tensor in outputs]
        _check_dtypes(answer, predict.dtypes)
        _check_held(predict, held)
        return partial(self._finish, call, predict, held, answer)

    def _many_results(self, call: int, body: memoryview) -> Callable[[], None]:
        many = self._calls.get(call)
        if not isinstance(many, Many):
            raise ValueError("an answer to no call")
        head, start = frames.read_many(body)
        tensors = frames.read_tensors(body, start, head["tensors"], self._outputs, self._lease)
        answers: list[Answer] = []
        place = 0
        for answer in head["answers"]:
            if isinstance(answer, int):
                answers.append([tensor for _, tensor in tensors[place : place + answer]])
                place += answer
            else:
                answers.append(self._error(answer))
        if len(answers) != len(many.runs) or place != len(tensors):
            raise ValueError("not one answer for each run")
        for given, dtypes in zip(answers, many.dtypes, strict=True):
            if not isinstance(given, ModelhostError):
                _check_dtypes(given, dtypes)
        _check_held(many, head["held"])
        return partial(self._finish, call, many, head["held"], answers)

    def _lease(self, offset: int, view: memoryview) -> LeasedBytes:
        return LeasedBytes(view, Lease(partial(self._release, offset)))

    def _release(self, offset: int) -> None:
        self._released.append(offset)
        if self._lost is None:
            self._schedule_flush()

    def _reply(self, kind: int, call: int, reply: dict[str, Any]) -> Callable[[], None]:
        waiting = self._calls.get(call)
        if waiting is None:
            raise ValueError("a reply to no call")
        if not isinstance(waiting, Control):
            _check_held(waiting, reply["held"])
            error = self._error(reply)
            answer = [error] * len(waiting.runs) if isinstance(waiting, Many) else error
            return partial(self._finish, call, waiting, reply["held"], answer)
        outcome = ModelhostError.from_json(reply) if kind == Kind.ERROR else reply

        def tell() -> None:
            self._forget(call)
            if waiting.future.done():
                return
            if isinstance(outcome, ModelhostError):
                waiting.future.set_exception(outcome)
            else:
                waiting.future.set_result(outcome)

        return tell

    def _error(self, told: dict[str, Any]) -> ModelhostError:
        error = ModelhostError.from_json(told)
        self.refusals += error.reason is Reason.MEMORY_LIMIT
        return error

    def _finish(self, call: int, waiting: Predict | Many, held: Sequence[int], answer: Any) -> None:
        self._forget(call)
        for offset in waiting.offsets:
            if offset not in held:
                self._inputs.free(offset)
        self._held.update(held)
        if isinstance(waiting, Many):
            waiting.on_answers(answer)
        else:
            waiting.on_answer(answer)

    def _forget(self, call: int) -> None:
        del self._calls[call]
        if not self._calls:
            self._idle_since = self._loop.time()
            if not self._trimming:
                self._trimming = True
                self._loop.call_later(_IDLE_SECONDS, self._trim_when_idle)
            while self._idle_waiters:
                waiter = self._idle_waiters.popleft()
                if not waiter.done():
                    waiter.set_result(None)

    def _trim_when_idle(self) -> None:
        rest = self._idle_since + _IDLE_SECONDS - self._loop.time()
        if self._lost is not None:
            return
        if self._calls or rest > 0:
            self._loop.call_later(max(rest, 1.0), self._trim_when_idle)
            return
        self._trimming = False
        self._inputs.trim()

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
            if not isinstance(waiting, Control):
                fail(waiting, cause)
            elif not waiting.future.done():
                waiting.future.set_exception(cause)
                # Whoever waited may have left.
                waiting.future.exception()


def _check_dtypes(outputs: Sequence[RawTensor], dtypes: Sequence[int]) -> None:
    if [tensor.dtype for tensor in outputs] != dtypes:
        raise ValueError("an answer has not the outputs that were asked for")


def _check_held(waiting: Predict | Many, held: Sequence[int]) -> None:
    if len(set(held)) != len(held) or not set(held) <= set(waiting.offsets):
        raise ValueError("memory is held that was not lent")


def _nothing() -> None:
    pass
