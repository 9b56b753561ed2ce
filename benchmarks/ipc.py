"""The hop between server and worker: what carrying a tensor there and back costs, by each way that was considered.

The first two ways are the server's and the worker's own code, with the size from which a tensor goes through shared
memory (`arena.LARGE_BYTES`) set to never and to always; where they cross is where it should be.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median
from typing import Annotated, Any

import grpc.aio
import numpy as np
import typer
from modelhost_server.ipc import frames
from modelhost_server.ipc.arena import LARGE_BYTES, Arena, create_arena_fd
from modelhost_server.tensors import RawTensor
from modelhost_server.workers.link import WorkerLink

from .common import ROOT
from .common.clocks import cpu_seconds
from .common.report import Report, console

SIZES = {"16 B": 16, "4 kB": 4 << 10, "64 kB": 64 << 10, "600 kB": 600 << 10, "10 MB": 10 << 20}
IN_FLIGHT = (1, 16)
INLINE, SHARED, GRPC = "in the frame", "shared memory", "second gRPC hop"
_LARGE_BYTES = {INLINE: 1 << 62, SHARED: 1}
_FLOAT32 = 1
_WARM_UP = 0.3

Send = Callable[[bytes], Awaitable[Any]]


@asynccontextmanager
async def _framed(large_bytes: int) -> AsyncIterator[tuple[Send, int]]:
    """A link to an echoing worker, and the worker's process id."""
    ours, theirs = socket.socketpair()
    fds = [theirs.fileno(), create_arena_fd(), create_arena_fd()]
    inputs, outputs = Arena(fds[1]), Arena(fds[2])
    process = _echo(["frames", *map(str, fds), str(large_bytes)], fds)
    theirs.close()
    for fd in fds[1:]:
        os.close(fd)
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    _, link = await loop.create_unix_connection(lambda: WorkerLink(inputs, outputs), sock=ours)

    async def send(data: bytes) -> Any:
        future: asyncio.Future[Any] = loop.create_future()
        frames.LARGE_BYTES = large_bytes
        link.predict(0, 0, (), [(0, RawTensor(_FLOAT32, (len(data) // 4,), data))], future.set_result)
        (tensor,) = await future
        return tensor.data

    try:
        yield send, process.pid
    finally:
        link.close()
        # Not here: the loop has the socket yet to close.
        await asyncio.to_thread(process.wait)


@asynccontextmanager
async def _grpc() -> AsyncIterator[tuple[Send, int]]:
    """A stub for an echoing gRPC server, and the server's process id."""
    with tempfile.TemporaryDirectory() as directory:
        process = _echo(["grpc", f"{directory}/socket"])
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        async with grpc.aio.insecure_channel(f"unix:{directory}/socket", options=options) as channel:
            call = channel.unary_unary("/hop/Echo")
            await call(b"", wait_for_ready=True)
            try:
                yield call, process.pid
            finally:
                process.terminate()
                process.wait()


def _echo(arguments: list[str], fds: list[int] | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "benchmarks.ipc_echo", *arguments], cwd=ROOT, pass_fds=fds or ())


async def _measure(send: Send, pid: int, data: bytes, in_flight: int, seconds: float) -> dict[str, float]:
    """Median latency and processor time of a message on either side, in microseconds."""
    latencies: list[float] = []
    end = time.monotonic() + _WARM_UP

    async def caller() -> None:
        while (started := time.monotonic()) < end:
            await send(data)
            latencies.append(time.monotonic() - started)

    await asyncio.gather(*[caller() for _ in range(in_flight)])
    latencies.clear()
    near, far = time.process_time(), cpu_seconds(pid)
    end = time.monotonic() + seconds
    await asyncio.gather(*[caller() for _ in range(in_flight)])
    near, far = time.process_time() - near, cpu_seconds(pid) - far
    count = len(latencies)
    return {"p50": float(np.median(latencies)) * 1e6, "server": near / count * 1e6, "worker": far / count * 1e6}


async def _run(seconds: float, rounds: int) -> None:
    columns = ("tensor", "in flight", "way", "p50 µs", "server CPU µs", "worker CPU µs", "CPU µs, both")
    report = Report("ipc", "A tensor from server to worker and back", columns)
    measured: dict[str, dict[int, dict[str, list[dict[str, float]]]]] = {}
    async with AsyncExitStack() as stack:
        ways = {way: await stack.enter_async_context(_framed(size)) for way, size in _LARGE_BYTES.items()}
        ways[GRPC] = await stack.enter_async_context(_grpc())
        for way, (send, _) in ways.items():
            assert bytes(await send(b"echo" * 4)) == b"echo" * 4, way
        for name, size in SIZES.items():
            console.print(f"measuring {name}", style="dim")
            data = os.urandom(size)
            for in_flight in IN_FLIGHT:
                results: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
                for _ in range(rounds):
                    for way, (send, pid) in ways.items():
                        results[way].append(await _measure(send, pid, data, in_flight, seconds))
                measured.setdefault(name, {})[in_flight] = results
    costs = {}
    for name, by_in_flight in measured.items():
        for in_flight, results in by_in_flight.items():
            for way, rounds_of_way in results.items():
                p50, near, far = (median(r[key] for r in rounds_of_way) for key in ("p50", "server", "worker"))
                report.row(name, in_flight, way, p50, near, far, near + far)
                costs[name, in_flight, way] = near + far
    for in_flight in IN_FLIGHT:
        cheaper = [name for name in SIZES if costs[name, in_flight, SHARED] < costs[name, in_flight, INLINE]]
        report.note(f"{in_flight} in flight: shared memory takes less CPU for {', '.join(cheaper) or 'no size'}.")
    report.note(f"The server uses shared memory from {LARGE_BYTES >> 10} kB up.")
    report.finish(measured)


def main(
    seconds: Annotated[float, typer.Option(help="Of each measurement.")] = 1.0,
    rounds: Annotated[int, typer.Option(help="Measurements of each kind; the median counts.")] = 3,
) -> None:
    """Measure the ways between server and worker."""
    asyncio.run(_run(seconds, rounds))


if __name__ == "__main__":
    typer.run(main)
