"""A hostile worker: what is at the other end of a WorkerLink answers with damaged frames and frames out of place.

The link must either tell each caller one answer that can be sent on, or give the worker up; and nothing may be raised
into the event loop.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import socket
import struct
from collections.abc import Callable
from typing import Any

from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.hosting.reports import read_anonymous, read_loaded, read_progress
from modelhost_server.ipc import frames
from modelhost_server.ipc.arena import LARGE_BYTES, Arena, create_arena_fd
from modelhost_server.ipc.frames import HEADER, Kind, TensorWriter
from modelhost_server.services.native.tensors import spec_message
from modelhost_server.tensors import ITEMSIZE, STRING, RawTensor, element_count
from modelhost_server.transport.status import rich_status
from modelhost_server.workers.calls import ManyRun
from modelhost_server.workers.link import WorkerLink

from .damage import NUMBERS, damaged, damaged_json
from .tally import Tally

_SECONDS = 10.0
_FLOAT, _INT64 = 1, 9
_LOADED: dict[str, Any] = {
    "engine": "tensorflow", "loader": "own", "private_bytes": 1, "anonymous_bytes": 1, "variable_bytes": 4,
    "load_ns": 5, "is_pure": True, "warmup": {"success_count": 0, "failure_count": 0, "first_error": ""},
    "variables": [["v", 1, [2, 3]], ["w", 7, []]],
    "signatures": [
        {"name": "serving_default", "method_name": "",
         "inputs": [{"name": "x", "dtype": 1, "shape": [-1], "optional": False, "tensor": "x:0"}],
         "outputs": [{"name": "y", "dtype": 1, "shape": None, "optional": False, "tensor": "y:0"}]},
    ],
}  # fmt: skip
_ERROR: dict[str, Any] = {
    "reason": "MODEL_REJECTED_INPUT", "message": "no", "field": "", "retry_after": 0.5, "details": {"a": "b"},
    "held": [],
}  # fmt: skip


class _Case:
    """One connection: calls, a worker's answers to them, and what is told."""

    def __init__(self, noise: random.Random, inputs: int, outputs: int, tally: Tally) -> None:
        self._noise = noise
        self._tally = tally
        self._theirs, self._ours = socket.socketpair()
        self._ours.setblocking(False)
        self._theirs.setblocking(False)
        self._fds = inputs, outputs
        self._writer = Arena(outputs)
        self._told: dict[int, int] = {}
        self._killed = 0
        self._controls: list[asyncio.Task[Any]] = []

    async def run(self) -> None:
        noise, loop = self._noise, asyncio.get_running_loop()
        self.link = WorkerLink(Arena(self._fds[0]), Arena(self._fds[1]))
        self.link.on_broken = self._on_broken
        self.link.on_demoted = lambda key, engine, why: None
        transport, _ = await loop.create_unix_connection(lambda: self.link, sock=self._ours)
        kinds = [noise.choice(["predict", "large", "many", "load", "unload"]) for _ in range(noise.randint(1, 3))]
        for number, kind in enumerate(kinds, 1):
            self._call(number, kind)
        await asyncio.sleep(0)
        for data in self._frames(kinds):
            await self._send(data)
        for _ in range(3):
            await asyncio.sleep(0)
        if noise.random() < 0.2:
            self._theirs.close()
            await asyncio.sleep(0)
        # The template tells of a worker's end, whatever that came of.
        self.link.fail(ModelhostError(Reason.WORKER_DIED, "killed"))
        done = await asyncio.wait_for(asyncio.gather(*self._controls, return_exceptions=True), _SECONDS)
        for outcome in done:
            if isinstance(outcome, BaseException) and not isinstance(outcome, ModelhostError | ValueError):
                self._tally.fail(f"a control call ended with {outcome!r}")
        transport.close()
        self._theirs.close()
        # Thousands of them would take all addresses there are before anybody collected them.
        self._writer.close()
        if self._killed > 1:
            self._tally.fail(f"the worker was given up {self._killed} times")
        untold = [number for number, times in self._told.items() if times != 1]
        if untold:
            self._tally.fail(f"calls that were not told once: {untold} of {kinds}")
        self._tally.answers["given up" if self._killed else "kept"] += 1

    def _on_broken(self) -> None:
        self._killed += 1

    # The server's side

    def _call(self, number: int, kind: str) -> None:
        size = LARGE_BYTES if kind == "large" else 8
        tensor = RawTensor(_FLOAT, [size // 4], bytes(size))
        if kind in ("predict", "large"):
            self._told[number] = 0
            self.link.predict(7, 0, (), [(0, tensor)], [_FLOAT], self._once(number))
        elif kind == "many":
            self._told[number] = 0
            runs = [ManyRun(7, 0, (), [(0, 0)]), ManyRun(8, 0, (), [(0, 0)])]
            self.link.predict_many(runs, [tensor], [[_FLOAT], [_INT64, STRING]], self._once(number))
        else:
            request = {"key": 7}
            self._controls.append(asyncio.ensure_future(self._control(kind, request)))

    async def _control(self, kind: str, request: dict[str, Any]) -> None:
        if kind == "unload":
            read_anonymous(await self.link.control(Kind.UNLOAD, request))
            return
        loaded = read_loaded(await self.link.control(Kind.LOAD, request, self._progress))
        for signature in loaded.signatures:
            for tensor in (*signature.inputs, *signature.outputs):
                spec_message(tensor)

    def _progress(self, report: dict[str, Any]) -> None:
        try:
            read_progress(report)
        except ValueError:
            self._tally.answers["progress refused"] += 1

    def _once(self, number: int) -> Callable[[Any], None]:
        def told(answer: Any) -> None:
            self._told[number] += 1
            many = answer if answer and isinstance(answer, list) and not isinstance(answer[0], RawTensor) else [answer]
            for each in many:
                self._check(each)

        return told

    def _check(self, answer: Any) -> None:
        """What is told can be sent on."""
        if isinstance(answer, ModelhostError):
            rich_status(answer).SerializeToString()
            return
        for tensor in answer:
            content = tensor.data
            right = (
                len(content) == element_count(tensor.shape) and all(type(value) is bytes for value in content)
                if tensor.dtype == STRING
                else len(content) == element_count(tensor.shape) * ITEMSIZE[tensor.dtype]
            )  # fmt: skip
            if not right or any(extent < 0 for extent in tensor.shape):
                self._tally.fail(f"an output that is not one was passed on: {tensor.dtype} {tensor.shape}")

    # The worker's side

    def _frames(self, kinds: list[str]) -> list[bytes]:
        noise = self._noise
        answers = [self._answer(number, kind) for number, kind in enumerate(kinds, 1)]
        match noise.randrange(8):
            case 0:
                return [noise.randbytes(noise.randint(1, 200))]
            case 1:
                answers = [damaged(noise, b"".join(answers))]
            case 2:
                answers.insert(noise.randrange(len(answers) + 1), self._unasked())
            case 3:
                answers.append(noise.choice(answers))
            case 4:
                length = noise.choice([2**32 - 1, 2**31, 1 << 28])
                answers.insert(0, HEADER.pack(length, noise.choice(list(Kind)), 1) + bytes(100))
            case _:
                place = noise.randrange(len(answers))
                answers[place] = damaged(noise, answers[place]) if noise.random() < 0.5 else self._false(place, kinds)
        data = b"".join(answers)
        cuts = sorted(noise.randrange(len(data) + 1) for _ in range(noise.randrange(4)))
        return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if b > a]

    def _answer(self, call: int, kind: str) -> bytes:
        noise = self._noise
        if kind in ("predict", "large"):
            if noise.random() < 0.2:
                return b"".join(frames.json_frame(Kind.ERROR, call, _ERROR))
            writer = TensorWriter(self._writer)
            size = LARGE_BYTES if kind == "large" else 16
            writer.put(0, _FLOAT, [size // 4], bytes(size))
            return b"".join(frames.result_frame(call, writer, []))
        if kind == "many":
            writer = TensorWriter(self._writer)
            writer.put(0, _FLOAT, [1], bytes(4))
            writer.put(0, _INT64, [1, 1], bytes(8))
            writer.put(1, STRING, [2], [b"a", b"bc"])
            return b"".join(frames.many_frame(Kind.RESULT_MANY, call, {"answers": [1, 2], "held": []}, writer))
        if kind == "unload":
            return b"".join(frames.json_frame(Kind.DONE, call, {"anonymous": 5}))
        progress = frames.json_frame(Kind.PROGRESS, call, {"stage": "reading", "done": 1, "total": 2})
        return b"".join(progress + frames.json_frame(Kind.DONE, call, _LOADED))

    def _false(self, place: int, kinds: list[str]) -> bytes:
        """An answer that is well-formed, and says what cannot be."""
        noise, call, kind = self._noise, place + 1, kinds[place]
        if kind in ("predict", "large"):
            if noise.random() < 0.3:
                return b"".join(_json_frame(Kind.ERROR, call, damaged_json(noise, _ERROR)))
            shape = [noise.choice(NUMBERS[:-2]) for _ in range(noise.randrange(4))]
            size, offset = (noise.choice(NUMBERS) & 2**64 - 1 for _ in range(2))
            dtype, rank = noise.randrange(256), noise.choice([len(shape), noise.randrange(256)])
            extents = b"".join(struct.pack("<q", min(extent, 2**63 - 1)) for extent in shape)
            head = struct.pack("<HBB4xQQ", noise.randrange(3), dtype, rank, size, offset)
            held = [noise.choice([0, 4096, noise.randrange(2**64)]) for _ in range(noise.randrange(3))]
            counts = struct.pack("<HH", noise.choice([0, 1, 2, 65535]), len(held))
            body = counts + struct.pack(f"<{len(held)}Q", *held) + head + extents + bytes(noise.randrange(32))
            return HEADER.pack(len(body), Kind.RESULT, call) + body
        if kind == "many":
            text = json.dumps(damaged_json(noise, {"answers": [1, _ERROR], "held": [], "tensors": 1})).encode()
            tensor = struct.pack("<HBB4xQQq", 0, _FLOAT, 1, 4, 2**64 - 1, 1) + bytes(4)
            body = struct.pack("<I", noise.choice([len(text), *NUMBERS[:12]]) & 2**32 - 1) + text + tensor
            return HEADER.pack(len(body), Kind.RESULT_MANY, call) + body
        told = _LOADED if kind == "load" else {"anonymous": 5}
        return b"".join(_json_frame(noise.choice([Kind.DONE, Kind.ERROR]), call, damaged_json(noise, told)))

    def _unasked(self) -> bytes:
        noise = self._noise
        demoted = {"key": 7, "engine": "litert", "why": "w"}
        progress = {"stage": "reading", "done": 0, "total": 1}
        return b"".join(
            noise.choice(
                [
                    frames.release_frame([noise.choice([0, 4096, 65536, 2**40]) for _ in range(noise.randint(1, 3))]),
                    _json_frame(Kind.DEMOTED, 0, damaged_json(noise, demoted)),
                    _json_frame(Kind.PROGRESS, noise.randrange(4), damaged_json(noise, progress)),
                    frames.frame(noise.choice(list(Kind)), noise.randrange(5), noise.randbytes(noise.randrange(20))),
                    [HEADER.pack(9, noise.randrange(256), noise.choice(NUMBERS) & 2**64 - 1), bytes(9)],
                    [HEADER.pack(200_000, Kind.PROGRESS, 1), b"[" * 200_000],
                    frames.json_frame(Kind.PROGRESS, 1, {"stage": "reading", "done": 1, "total": 2}) * 300,
                ]
            )
        )

    async def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._theirs.send(view) :]
            except BlockingIOError:
                if self._killed:
                    return
            except OSError:
                return
            await asyncio.sleep(0)


def _json_frame(kind: Kind, call: int, body: Any) -> list[Any]:
    return frames.frame(kind, call, json.dumps(body).encode())


async def _run(tally: Tally, seed: int, cases: range) -> None:
    raised: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: raised.append(f"{context['message']}: {context.get('exception')!r}"))
    for number in cases:
        fds = create_arena_fd(), create_arena_fd()
        try:
            case = _Case(random.Random(f"{seed}/{number}"), *fds, tally)
            await asyncio.wait_for(case.run(), 2 * _SECONDS)
        except Exception as error:
            tally.fail(f"case {number}: {error!r}")
        finally:
            for fd in fds:
                os.close(fd)
        for what in raised:
            tally.fail(f"case {number}: {what}")
        raised.clear()
        tally.cases += 1


def fuzz_links(seed: int, cases: int, first: int = 0) -> Tally:
    """So many connections with a hostile worker."""
    tally = Tally("frames of a hostile worker")
    logger = logging.getLogger("modelhost_server.workers.link")
    logger.disabled = True
    try:
        with tally.timed():
            asyncio.run(_run(tally, seed, range(first, first + cases)))
    finally:
        logger.disabled = False
    return tally
