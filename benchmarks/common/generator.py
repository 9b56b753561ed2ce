"""The load generator: sends one prepared Predict request over and over (see `load`).

Usage: python -m benchmarks.common.generator ADDRESS REQUEST_FILE closed CALLERS   each caller waits for its answer
       python -m benchmarks.common.generator ADDRESS REQUEST_FILE open RATE        calls a second, whatever comes back

Neither requests nor answers are looked at, so that this process takes as little of the machine as it can.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from pathlib import Path

import grpc.aio

from .load import tell

_PREDICT = "/modelhost.v1.PredictionService/Predict"
_TIMEOUT = 60
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Generator:
    """Calls one server with one request."""

    def __init__(self, channel: grpc.aio.Channel, request: bytes) -> None:
        self._call = channel.unary_unary(_PREDICT)
        self._request = request
        self.calls: list[tuple[float, float]] = []

    async def once(self) -> None:
        """Makes one call."""
        started = time.monotonic()
        await self._call(self._request, timeout=_TIMEOUT)
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
        """A call every 1/rate seconds, answered or not: a server that stalls is called on, and each call shows it."""
        begin = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for i in itertools.count():
                await asyncio.sleep(max(0, begin + i / rate - time.monotonic()))
                group.create_task(self.once())


async def main(address: str, request: bytes, kind: str, amount: str) -> None:
    """Calls until the input is closed."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        generator = Generator(channel, request)
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


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]).read_bytes(), sys.argv[3], sys.argv[4]))
