"""The worker process: runs the models of one scope, on request of the server.

Predictions are run by the lanes (see `lanes`). Loads have threads of their own, at a lower priority, so that they slow
down nobody's predictions.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from ..engines.base import EngineFailure, EngineOptions, out_of_memory
from ..errors import ModelhostError, Reason
from ..ipc import frames
from ..ipc.arena import LARGE_BYTES, Arena
from ..ipc.frames import Kind, TensorWriter
from ..memory import give_back, measure
from ..tensors import LentMemory
from .lanes import Lanes
from .loader import Job, Loader
from .reader import FrameReader
from .slots import Slots

_LOAD_THREADS = 4
# A worker without calls for this long is idle.
_IDLE_SECONDS = 5.0
# Loads step back behind predictions, of this scope and of others. They run when a processor is idle, because a thread
# that is only nice keeps it to the end of its time slice; and on half of the processors, because a prediction that
# wakes up where a load is in the kernel waits for it. Beside predictions that take all there is, a load of 0.6 s took
# 3.7 s.
_LOAD_PROCESSORS = 0.5


class _Inputs:
    """Keeps account of the ranges of the server's arena that a call uses."""

    def __init__(self) -> None:
        self.lent: list[tuple[int, LentMemory]] = []

    def borrow(self, offset: int, view: memoryview) -> LentMemory:
        memory = LentMemory(view)
        self.lent.append((offset, memory))
        return memory

    def held(self) -> list[tuple[int, LentMemory]]:
        """The ranges that the engine still uses, because the model kept an input."""
        return [(offset, memory) for offset, memory in self.lent if memory.in_use]


class _Outputs:
    """Takes a run's outputs straight into the answer's frame."""

    def __init__(self, writer: TensorWriter) -> None:
        self._writer = writer

    def put(self, dtype: int, shape: Any, data: Any) -> None:
        writer = self._writer
        # A view's memory goes with the run; what stays in the frame must be copied.
        small = bytes(data) if isinstance(data, memoryview) and len(data) < LARGE_BYTES else data
        writer.put(writer.count, dtype, shape, small)


class Worker:
    """The models of one scope, and the threads that run them."""

    def __init__(self, sock: socket.socket, inputs: Arena, outputs: Arena, config: dict[str, Any]) -> None:
        self._sock = sock
        self._reader = FrameReader(sock)
        self._send_lock = threading.Lock()
        self._inputs = inputs
        self._outputs = outputs
        self._options = EngineOptions(
            intra_op_threads=int(config["intra_op_threads"]),
            inter_op_threads=int(config["inter_op_threads"]),
            lanes=int(config["max_in_flight"]),
            cache_dir=Path(config["cache_dir"]),
        )
        self._loader = Loader(self._options)
        self._slots = Slots()
        # About how many; lanes do not wait for one another to count.
        self._runs = 0
        # A call found no memory, since memory was last given back.
        self._lacks_memory = False
        self._loaders = ThreadPoolExecutor(_LOAD_THREADS, "loader", _step_back)
        # What a prediction waits for: a version that was evicted, and room for it. On a busy machine idle time is rare.
        self._awaited = ThreadPoolExecutor(1, "awaited", _step_aside)
        self._preparing = ThreadPoolExecutor(1, "preparing")

    def serve(self, engines: Sequence[str]) -> None:
        """Serves until the server closes the socket; `engines` are made ready at once."""
        for engine in engines:
            self._prepare(engine)
        # One lane more than may run at once, so that somebody always reads.
        threading.Thread(target=self._give_back_when_idle, name="idle", daemon=True).start()
        Lanes(self._reader, self._handle, self._is_short).run(self._options.lanes + 1)

    def _give_back_when_idle(self) -> None:
        """Returns what large batches left, once nobody asks for more: until then the next one takes it over."""
        given = 0
        while True:
            before = self._runs
            time.sleep(_IDLE_SECONDS)
            # Where others need it, it is not kept for the next one.
            if self._lacks_memory or given != self._runs == before:
                self._lacks_memory = False
                give_back()
                self._outputs.trim()
                given = self._runs

    def _prepare(self, engine: str) -> None:
        """Starts an engine's own threads on a thread that does not step back, for they would inherit that; and on the
        loaders' processors, because it takes some milliseconds.
        """
        everywhere, before = os.sched_getaffinity(0), set(os.listdir("/proc/self/task"))
        os.sched_setaffinity(0, _load_processors())
        self._loader.prepare(engine)
        os.sched_setaffinity(0, everywhere)
        for thread in set(os.listdir("/proc/self/task")) - before:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), everywhere)

    def _is_short(self, kind: int, body: memoryview) -> bool:
        return kind == Kind.RELEASE or (kind == Kind.PREDICT and self._slots.is_quick(frames.predicted_key(body)))

    def _handle(self, kind: int, call: int, body: memoryview) -> None:
        if kind == Kind.PREDICT:
            self._predict(call, body)
        elif kind == Kind.PREDICT_MANY:
            self._predict_many(call, body)
        elif kind == Kind.RELEASE:
            for offset in frames.released_offsets(body):
                self._outputs.free(offset)
        elif kind == Kind.SHARED:
            self._control(self._shared, call, frames.read_json(body))
        elif kind == Kind.UNLOAD:
            request = frames.read_json(body)
            self._threads(request["is_awaited"]).submit(self._control, self._unload, call, request)
        elif kind == Kind.LOAD:
            self._preparing.submit(self._begin_load, call, Job.from_json(frames.read_json(body)))
        else:
            raise ValueError(f"unknown kind of frame {kind}")

    def _begin_load(self, call: int, job: Job) -> None:
        """Makes the engine ready, on a thread that does not step back, and has another do the load."""
        try:
            self._prepare(job.engine)
        except Exception as error:
            self._send_error(call, error)
            return
        self._threads(job.is_awaited).submit(self._control, self._load, call, job)

    def _threads(self, is_awaited: bool) -> ThreadPoolExecutor:
        return self._awaited if is_awaited else self._loaders

    def _send(self, frame: list[Any]) -> None:
        data = b"".join(frame)
        with self._send_lock:
            self._sock.sendall(data)

    def _send_error(self, call: int, error: Exception, held: Sequence[int] = ()) -> None:
        if isinstance(error, MemoryError):
            error = out_of_memory("the worker has none left")
        if isinstance(error, ModelhostError):
            self._lacks_memory |= error.reason is Reason.MEMORY_LIMIT
        else:
            traceback.print_exception(error)
            error = ModelhostError(Reason.INTERNAL, f"the worker failed with {type(error).__name__}; its log says more")
        self._send(frames.json_frame(Kind.ERROR, call, {**error.to_json(), "held": held}))

    def _predict(self, call: int, body: memoryview) -> None:
        inputs, writer = _Inputs(), TensorWriter(self._outputs)
        try:
            key, signature, outputs, count, start = frames.read_predict(body)
            tensors = frames.read_tensors(body, start, count, self._inputs, inputs.borrow)
            self._run(key, signature, tensors, outputs, _Outputs(writer))
        except Exception as error:
            writer.free()
            held = inputs.held()
            self._send_error(call, error, [offset for offset, _ in held])
        else:
            held = inputs.held()
            self._send(frames.result_frame(call, writer, [offset for offset, _ in held]))
        self._release_later(held)

    def _predict_many(self, call: int, body: memoryview) -> None:
        """Runs several models on the same inputs, one after the other: the server spreads them over the lanes."""
        inputs, writer = _Inputs(), TensorWriter(self._outputs)
        answers: list[Any] = []
        try:
            head, start = frames.read_many(body)
            read = frames.read_tensors(body, start, head["tensors"], self._inputs, inputs.borrow)
            tensors = [tensor for _, tensor in read]
            for key, signature, outputs, chosen in head["runs"]:
                before = writer.count
                try:
                    self._run(key, signature, [(place, tensors[i]) for place, i in chosen], outputs, _Outputs(writer))
                    answers.append(writer.count - before)
                except ModelhostError as error:
                    if writer.count > before:
                        # What it has written would be taken for the next one's.
                        raise
                    answers.append(error.to_json())
        except Exception as error:
            writer.free()
            held = inputs.held()
            self._send_error(call, error, [offset for offset, _ in held])
        else:
            held = inputs.held()
            answer = {"answers": answers, "held": [offset for offset, _ in held]}
            self._send(frames.many_frame(Kind.RESULT_MANY, call, answer, writer))
        self._release_later(held)

    def _run(self, key: int, signature: int, inputs: Any, outputs: Sequence[int], sink: _Outputs) -> None:
        self._runs += 1
        use = self._slots.acquire(key)
        started = time.monotonic()
        try:
            use.model.run(signature, inputs, outputs, sink)
            use.note(time.monotonic() - started)
        except EngineFailure as failure:
            # No other engine stands behind this one.
            raise ModelhostError(Reason.MODEL_EXECUTION_FAILED, f"the model failed: {failure}") from None
        except MemoryError:
            raise out_of_memory("the worker has none left") from None
        finally:
            use.end()

    def _release_later(self, held: list[tuple[int, LentMemory]]) -> None:
        # After the answer, so that the server never hears of a return before it hears that the range is held.
        for offset, memory in held:
            memory.when_returned(partial(self._release, offset))

    def _release(self, offset: int) -> None:
        self._send(frames.release_frame([offset]))

    def _control(self, action: Any, call: int, request: Any) -> None:
        try:
            self._send(frames.json_frame(Kind.DONE, call, action(call, request)))
        except Exception as error:
            self._send_error(call, error)

    def _load(self, call: int, job: Job) -> dict[str, Any]:
        def progress(stage: str, done: int, total: int) -> None:
            self._send(frames.json_frame(Kind.PROGRESS, call, {"stage": stage, "done": done, "total": total}))

        def on_failure(why: str) -> None:
            self._send(frames.json_frame(Kind.DEMOTED, 0, {"key": job.key, "engine": job.engine, "why": why}))

        model, report = self._loader.load(job, progress, on_failure)
        self._slots.put(job.key, model)
        return report

    def _unload(self, call: int, request: dict[str, Any]) -> dict[str, Any]:
        self._slots.remove(request["key"])
        give_back()
        return dict(measure())

    def _shared(self, call: int, request: dict[str, Any]) -> dict[str, Any]:
        return {"shared_bytes": self._slots.shared_bytes(request["key"])}


def _step_back() -> None:
    """Makes this thread, and those that are started from it, leave the way to others."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    os.sched_setaffinity(0, _load_processors())


def _step_aside() -> None:
    """Leaves some processors to others."""
    os.sched_setaffinity(0, _load_processors())


def _load_processors() -> list[int]:
    processors = sorted(os.sched_getaffinity(0))
    return processors[-max(1, int(len(processors) * _LOAD_PROCESSORS)) :]


def main(sock: socket.socket, inputs_fd: int, outputs_fd: int, config: dict[str, Any]) -> None:
    """Runs a worker in this process until the server goes away; never returns."""
    # Many lanes that each compute for microseconds between C calls: waiting 5 ms for one's turn would be all the time.
    sys.setswitchinterval(0.0005)
    inputs, outputs = Arena(inputs_fd), Arena(outputs_fd)
    # The arenas have descriptors of their own.
    os.close(inputs_fd)
    os.close(outputs_fd)
    Worker(sock, inputs, outputs, config).serve(config["engines"])
    os._exit(0)
