"""Calls modelhost by its own client (see `load`).

Usage: python -m benchmarks.common.sdk_caller WAY ADDRESS MODEL INPUT.npy CALLERS

A way is how the calls are made: `unary`, each by a task that waits for its answer; `shared-memory`, the same with
tensors in memory that is shared with the server; or `stream`, all on one stream, with so many under way.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator

import numpy as np
from modelhost import AsyncClient

from .load import tell

_INPUT = "x"


class SdkCaller:
    """Calls one model with one input until it is told to stop."""

    def __init__(self, client: AsyncClient, model: str, x: np.ndarray) -> None:
        self._client, self._model, self._inputs = client, model, {_INPUT: x}
        self.calls: list[tuple[float, float]] = []
        self.stopped = False

    async def unary(self, callers: int) -> None:
        """A call each."""
        await asyncio.gather(*(self._caller() for _ in range(callers)))

    async def _caller(self) -> None:
        while not self.stopped:
            started = time.monotonic()
            await self._client.predict(self._model, self._inputs)
            self.calls.append((started, time.monotonic() - started))

    async def stream(self, callers: int) -> None:
        """One stream."""
        started: list[float] = []

        async def requests() -> AsyncIterator[tuple[str, dict[str, np.ndarray]]]:
            while not self.stopped:
                started.append(time.monotonic())
                yield self._model, self._inputs

        async for result in self._client.predict_stream(requests(), in_flight=callers):
            result.unwrap()
            begun = started[result.index]
            self.calls.append((begun, time.monotonic() - begun))


async def main(way: str, address: str, model: str, x: np.ndarray, callers: int) -> None:
    """Calls until the input is closed."""
    async with AsyncClient(address, shared_memory=way == "shared-memory") as client:
        caller = SdkCaller(client, model, x)
        await client.predict(model, {_INPUT: x})
        print("ready", flush=True)
        load = asyncio.create_task(caller.stream(callers) if way == "stream" else caller.unary(callers))
        stop = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        await asyncio.wait([load, stop], return_when=asyncio.FIRST_COMPLETED)
        caller.stopped = True
        await load
    tell(caller.calls)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], np.load(sys.argv[4]), int(sys.argv[5])))
