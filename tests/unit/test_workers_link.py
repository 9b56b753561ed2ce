"""The server's end of a worker that cannot be relied on."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from fuzz.links import fuzz_links
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.ipc import frames
from modelhost_server.ipc.arena import ARENA_BYTES, LARGE_BYTES, Arena, create_arena_fd
from modelhost_server.ipc.frames import HEADER, Kind, TensorWriter
from modelhost_server.tensors import RawTensor
from modelhost_server.workers.link import MAX_FRAME_BYTES, WorkerLink

FLOAT32, FLOAT64 = 1, 2
DIED = ModelhostError(Reason.WORKER_DIED, "killed")


@pytest.fixture
async def ends() -> AsyncIterator[Any]:
    """A link with a call under way, and the worker's end of it."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    fds = create_arena_fd(), create_arena_fd()
    link = WorkerLink(Arena(fds[0]), Arena(fds[1]))
    ends = SimpleNamespace(link=link, worker=theirs, outputs=Arena(fds[1]), inputs=fds[0], answers=[], given_up=0)

    def on_broken() -> None:
        ends.given_up += 1

    link.on_broken = on_broken
    await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=ours)
    tensor = RawTensor(FLOAT32, [LARGE_BYTES // 4], bytes(LARGE_BYTES))
    link.predict(7, 0, (), [(0, tensor)], [FLOAT32], ends.answers.append)
    yield ends
    link.close()
    theirs.close()
    for fd in fds:
        os.close(fd)


async def send(ends: Any, *parts: bytes | memoryview) -> None:
    ends.worker.send(b"".join(parts))
    for _ in range(3):
        await asyncio.sleep(0)


def result(ends: Any, dtype: int = FLOAT32, held: tuple[int, ...] = ()) -> list[Any]:
    writer = TensorWriter(ends.outputs)
    writer.put(0, dtype, [1], bytes(8 if dtype == FLOAT64 else 4))
    return frames.result_frame(1, writer, held)


BROKEN = {
    "another dtype": lambda ends: result(ends, FLOAT64),
    "no output": lambda ends: frames.result_frame(1, TensorWriter(ends.outputs), ()),
    "memory held that was not lent": lambda ends: result(ends, held=(4096,)),
    "memory given back that is in use": lambda ends: frames.release_frame([0]),
    "JSON that nests too deep": lambda ends: frames.frame(Kind.ERROR, 1, b"[" * 100_000),
    "an error with a reason that is none": lambda ends: frames.json_frame(Kind.ERROR, 1, {"reason": [], "held": []}),
    "an error without what is held": lambda ends: frames.json_frame(
        Kind.ERROR, 1, {"reason": "INTERNAL", "message": ""}
    ),
    "held memory that is no list": lambda ends: frames.json_frame(
        Kind.ERROR, 1, {"reason": "INTERNAL", "message": "", "held": 7}
    ),
    "a frame without end": lambda ends: [HEADER.pack(MAX_FRAME_BYTES + 1, Kind.RESULT, 1)],
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
async def test_a_worker_that_sends_nonsense_is_given_up_and_its_calls_told_when_it_has_gone(ends: Any, broken: Any):
    await send(ends, *broken(ends), *result(ends))
    assert ends.given_up == 1
    # Until its end is known: whoever was running is to blame.
    assert (ends.answers, ends.link.busy_keys()) == ([], {7})
    ends.link.fail(DIED)
    assert ends.answers == [DIED]


async def test_a_worker_that_hangs_up_is_given_up(ends: Any):
    ends.worker.close()
    for _ in range(3):
        await asyncio.sleep(0)
    assert (ends.given_up, ends.answers) == (1, [])


async def test_a_worker_that_is_hung_up_on_is_not_given_up(ends: Any):
    ends.link.close()
    for _ in range(3):
        await asyncio.sleep(0)
    assert ends.given_up == 0


async def test_memory_that_was_held_is_given_back_once(ends: Any):
    await send(ends, *result(ends, held=(0,)), *frames.release_frame([0]))
    assert (len(ends.answers), ends.given_up) == (1, 0)
    await send(ends, *frames.release_frame([0]))
    assert ends.given_up == 1


async def test_a_worker_cannot_cut_short_the_memory_that_the_server_looks_at(ends: Any):
    for size in (0, ARENA_BYTES + 1):
        with pytest.raises(PermissionError) as refused:
            os.ftruncate(ends.inputs, size)
        assert refused.value.errno == errno.EPERM


async def test_what_an_error_of_a_worker_says_can_be_sent_on(ends: Any):
    error = {"reason": "INTERNAL", "message": "\ud800" + "m" * 10**5, "retry_after": float("nan"), "held": []}
    await send(ends, *frames.json_frame(Kind.ERROR, 1, {**error, "details": {"\ud800": "\ud800", "b": [1] * 999}}))
    (answer,) = ends.answers
    assert (answer.reason, answer.retry_after) == (Reason.INTERNAL, None)
    for text in (answer.message, *answer.details, *answer.details.values()):
        assert len(text.encode()) <= 4000


def test_whatever_a_worker_sends_each_caller_is_told_once():
    tally = fuzz_links(seed=6, cases=300)
    assert not tally.failures
    assert {"given up", "kept"} <= tally.answers.keys()
