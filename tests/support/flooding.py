"""Callers in a process of their own: `python flooding.py ADDRESS MODEL CONNECTIONS RATE SECONDS STEPS`.

Each connection sends its share of RATE predictions a second, whatever becomes of them (closed loops, one prediction at
a time each, when RATE is 0). Prints JSON: milliseconds of each prediction by what came of it.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import sys
import time
from collections import defaultdict
from typing import Any

import grpc
import numpy as np
from modelhost.v1 import prediction_service_pb2, prediction_service_pb2_grpc, tensor_pb2

SECONDS_TO_ANSWER = 60


class Caller:
    """A connection; what came of its predictions is noted in `told`."""

    def __init__(self, address: str, message: Any, told: dict[str, list[float]]) -> None:
        options = (("grpc.use_local_subchannel_pool", 1),)
        self._channel = grpc.aio.insecure_channel(address, options=options)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._message = message
        self._told = told

    async def connect(self) -> None:
        """Connects."""
        await asyncio.wait_for(self._channel.channel_ready(), SECONDS_TO_ANSWER)

    async def ask(self) -> None:
        """One prediction."""
        started = time.perf_counter()
        try:
            await self._stub.Predict(self._message, timeout=SECONDS_TO_ANSWER)
            outcome = "OK"
        except grpc.aio.AioRpcError as error:
            outcome = error.code().name
        self._told[outcome].append(1000 * (time.perf_counter() - started))

    async def flood(self, rate: float, end: float) -> None:
        """Asks at a rate, whether there are answers or not."""
        due, asked = time.monotonic() + random.random() / rate, []
        while due < end:
            await asyncio.sleep(due - time.monotonic())
            asked.append(asyncio.create_task(self.ask()))
            due += 1 / rate
        await asyncio.gather(*asked)

    async def ask_in_turn(self, end: float) -> None:
        """Asks, waits for the answer, and asks again."""
        while time.monotonic() < end:
            await self.ask()

    async def close(self) -> None:
        """Hangs up."""
        await self._channel.close()


async def run(address: str, model: str, connections: int, rate: float, seconds: float, steps: int) -> Any:
    """All callers."""
    told: dict[str, list[float]] = defaultdict(list)
    message = prediction_service_pb2.PredictRequest(model=model)
    message.inputs["steps"].CopyFrom(tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_INT32, raw=np.int32(steps).tobytes()))
    callers = [Caller(address, message, told) for _ in range(connections)]
    for caller in callers:
        await caller.connect()
    end = time.monotonic() + seconds
    work = [c.flood(rate / connections, end) if rate else c.ask_in_turn(end) for c in callers]
    await asyncio.gather(*work)
    for caller in callers:
        await caller.close()
    return told


def main() -> None:
    """See above."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    address, model, connections, rate, seconds, steps = sys.argv[1:]
    json.dump(asyncio.run(run(address, model, int(connections), float(rate), float(seconds), int(steps))), sys.stdout)


if __name__ == "__main__":
    main()
