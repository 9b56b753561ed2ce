"""The load generator: sends one prepared Predict request over and over (see `load`).

Usage: python -m benchmarks.common.generator ADDRESS REQUEST_FILE closed CALLERS   each caller waits for its answer
       python -m benchmarks.common.generator ADDRESS REQUEST_FILE open RATE        calls a second, whatever comes back

More arguments: another method's path, and metadata as NAME=VALUE. Neither requests nor answers are looked at, so that
this process takes as little of the machine as it can.
"""

from __future__ import annotations

import asyncio
import itertools
import selectors
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import grpc.aio

from .load import FAILED, UNANSWERED, tell

_PREDICT = "/modelhost.v1.PredictionService/Predict"
_TIMEOUT = 60
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
Metadata = Sequence[tuple[str, str]]


class Generator:
    """Calls one server with one request."""

    def __init__(
        self, channel: grpc.aio.Channel, request: bytes, path: str = _PREDICT, metadata: Metadata = ()
    ) -> None:
        self._call = channel.unary_unary(path)
        self._request, self._metadata = request, metadata
        self.calls: list[tuple[float, float]] = []

    async def once(self) -> None:
        """Makes one call."""
        started = time.monotonic()
        await self._call(self._request, timeout=_TIMEOUT, metadata=self._metadata)
        self.calls.append((started, time.monotonic() - started))

    async def closed(self, callers: int) -> None:
        """Callers who wait for their answer before they call again."""

        async def caller() -> None:
            while True:
                await self.once()

        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(caller())

    async def open(self, rate: float) -> None:
        """A call every 1/rate seconds, answered or not: a server that stalls is called on, and each call shows it.

        A call's latency counts from when it was due, were this process late, too.
        """
        begin = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for i in itertools.count():
                due = begin + i / rate
                await asyncio.sleep(max(0, due - time.monotonic()))
                group.create_task(self._due(due))

    async def _due(self, due: float) -> None:
        seconds = UNANSWERED
        try:
            await self._call(self._request, timeout=_TIMEOUT, metadata=self._metadata)
            seconds = time.monotonic() - due
        except grpc.aio.AioRpcError:
            seconds = FAILED
        finally:
            self.calls.append((due, seconds))


async def main(address: str, request: bytes, kind: str, amount: str, path: str = _PREDICT, *metadata: str) -> None:
    """Calls until the input is closed."""
    pairs = [(name, value) for name, _, value in (item.partition("=") for item in metadata)]
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        generator = Generator(channel, request, path, pairs)
        await generator.once()
        print("ready", flush=True)
        calling = generator.closed(int(amount)) if kind == "closed" else generator.open(float(amount))
        load = asyncio.create_task(calling)
        stop = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        await asyncio.wait([load, stop], return_when=asyncio.FIRST_COMPLETED)
        if load.done():
            load.result()
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
    tell(generator.calls)


def _exact_loop() -> asyncio.AbstractEventLoop:
    # epoll(7), the usual one, sleeps for whole milliseconds.
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=_exact_loop) as runner:
        runner.run(main(sys.argv[1], Path(sys.argv[2]).read_bytes(), *sys.argv[3:]))
