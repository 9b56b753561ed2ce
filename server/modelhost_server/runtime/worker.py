"""The worker process: runs the models of one scope, on request of the server.

Lanes (threads) take turns at reading the socket: the lane that read a call runs it and answers it itself, while the
next one reads. No call waits for a hand-over between threads. Loads have threads of their own, at a lower priority,
so that they slow down nobody's predictions.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from ..engines.base import LoadedModel, LoadRequest
from ..engines.tensorflow import TensorflowEngine
from ..errors import ModelhostError, Reason
from ..ipc import frames
from ..ipc.arena import LARGE_BYTES, Arena
from ..ipc.frames import HEADER, Kind, TensorWriter
from ..memory import give_back, measure
from ..tensors import LentMemory

_READ_BYTES = 256 << 10
_LOAD_THREADS = 4
# Loads step back behind predictions, of this scope and of others. They run when a processor is idle, because a thread
# that is only nice keeps it to the end of its time slice; and on half of the processors, because a prediction that
# wakes up where a load is in the kernel waits for it. Beside predictions that take all there is, a load of 0.6 s took
# 3.7 s.
_LOAD_PROCESSORS = 0.5


class FrameReader:
    """Reads frames from a blocking socket; one thread at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray(_READ_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0

    def read(self) -> tuple[int, int, memoryview] | None:
        """The next frame's kind, call and body; None when the server has gone."""
        try:
            return self._read()
        except ConnectionError:
            # What the server went away without reading turns its end of stream into an error.
            return None

    def _read(self) -> tuple[int, int, memoryview] | None:
        if not self._fill(HEADER.size):
            return None
        length, kind, call = HEADER.unpack_from(self._buffer, self._start)
        self._start += HEADER.size
        body = bytearray(length)
        there = min(length, self._end - self._start)
        body[:there] = self._view[self._start : self._start + there]
        self._start += there
        view = memoryview(body)
        while there < length:
            count = self._sock.recv_into(view[there:])
            if count == 0:
                return None
            there += count
        return kind, call, view

    def _fill(self, size: int) -> bool:
        while self._end - self._start < size:
            if self._start == self._end:
                self._start = self._end = 0
            elif _READ_BYTES - self._start < size:
                rest = self._end - self._start
                self._buffer[:rest] = self._buffer[self._start : self._end]
                self._start, self._end = 0, rest
            count = self._sock.recv_into(self._view[self._end :])
            if count == 0:
                return False
            self._end += count
        return True


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
        self._read_lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._inputs = inputs
        self._outputs = outputs
        self._lanes = int(config["max_in_flight"])
        self._engine = TensorflowEngine(int(config["intra_op_threads"]), int(config["inter_op_threads"]))
        self._models: dict[int, LoadedModel] = {}
        self._loaders = ThreadPoolExecutor(_LOAD_THREADS, "loader", _step_back)

    def serve(self) -> None:
        """Serves until the server closes the socket."""
        self._prepare()
        # One lane more than may run at once, so that somebody always reads.
        for i in range(self._lanes):
            threading.Thread(target=self._lane, name=f"lane-{i}", daemon=True).start()
        self._lane()

    def _prepare(self) -> None:
        """Starts the engine's own threads: now, because from a loader they would inherit that it steps back; and on the
        loaders' processors, because it takes some milliseconds.
        """
        everywhere = os.sched_getaffinity(0)
        os.sched_setaffinity(0, _load_processors())
        self._engine.prepare()
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), everywhere)

    def _lane(self) -> None:
        try:
            while True:
                with self._read_lock:
                    frame = self._reader.read()
                if frame is None:
                    break
                self._handle(*frame)
        except BaseException:
            traceback.print_exc()
            os._exit(70)
        # The server has gone: nothing is worth finishing.
        os._exit(0)

    def _handle(self, kind: int, call: int, body: memoryview) -> None:
        if kind == Kind.PREDICT:
            self._predict(call, body)
        elif kind == Kind.RELEASE:
            for offset in frames.released_offsets(body):
                self._outputs.free(offset)
        else:
            action = {Kind.LOAD: self._load, Kind.UNLOAD: self._unload}[Kind(kind)]
            self._loaders.submit(self._control, action, call, frames.read_json(body))

    def _send(self, frame: list[Any]) -> None:
        data = b"".join(frame)
        with self._send_lock:
            self._sock.sendall(data)

    def _send_error(self, call: int, error: Exception, held: Sequence[int] = ()) -> None:
        if not isinstance(error, ModelhostError):
            traceback.print_exception(error)
            error = ModelhostError(Reason.INTERNAL, f"the worker failed with {type(error).__name__}; its log says more")
        self._send(frames.json_frame(Kind.ERROR, call, {**error.to_json(), "held": held}))

    def _predict(self, call: int, body: memoryview) -> None:
        inputs, writer = _Inputs(), TensorWriter(self._outputs)
        try:
            key, signature, outputs, count, start = frames.read_predict(body)
            tensors = frames.read_tensors(body, start, count, self._inputs, inputs.borrow)
            self._models[key].run(signature, tensors, outputs, _Outputs(writer))
        except Exception as error:
            writer.free()
            held = inputs.held()
            self._send_error(call, error, [offset for offset, _ in held])
        else:
            held = inputs.held()
            self._send(frames.result_frame(call, writer, [offset for offset, _ in held]))
        # Only now, so that the server never hears of a return before it hears that the range is held.
        for offset, memory in held:
            memory.when_returned(partial(self._release, offset))

    def _release(self, offset: int) -> None:
        self._send(frames.release_frame([offset]))

    def _control(self, action: Any, call: int, request: dict[str, Any]) -> None:
        try:
            self._send(frames.json_frame(Kind.DONE, call, action(call, request)))
        except Exception as error:
            self._send_error(call, error)

    def _load(self, call: int, request: dict[str, Any]) -> dict[str, Any]:
        before, started = measure()["private"], time.monotonic_ns()

        def progress(stage: str, done: int, total: int) -> None:
            self._send(frames.json_frame(Kind.PROGRESS, call, {"stage": stage, "done": done, "total": total}))

        model = self._engine.load(LoadRequest(request["path"], tuple(request["tags"])), progress)
        give_back()
        self._models[request["key"]] = model
        return {
            "engine": model.engine,
            "loader": model.loader,
            "signatures": [signature.to_json() for signature in model.signatures],
            "variables": [[v.name, v.dtype, v.shape] for v in model.variables],
            "variable_bytes": sum(v.nbytes for v in model.variables),
            "private_bytes": max(0, measure()["private"] - before),
            "load_ns": time.monotonic_ns() - started,
        }

    def _unload(self, call: int, request: dict[str, Any]) -> dict[str, Any]:
        self._models.pop(request["key"]).close()
        give_back()
        return dict(measure())


def _step_back() -> None:
    """Makes this thread, and those that are started from it, leave the way to others."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    os.sched_setaffinity(0, _load_processors())


def _load_processors() -> list[int]:
    processors = sorted(os.sched_getaffinity(0))
    return processors[-max(1, int(len(processors) * _LOAD_PROCESSORS)) :]


def main(sock: socket.socket, inputs_fd: int, outputs_fd: int, config: dict[str, Any]) -> None:
    """Runs a worker in this process until the server goes away; never returns."""
    # Many lanes that each compute for microseconds between C calls: waiting 5 ms for one's turn would be all the time.
    sys.setswitchinterval(0.0005)
    Worker(sock, Arena(inputs_fd), Arena(outputs_fd), config).serve()
    os._exit(0)
