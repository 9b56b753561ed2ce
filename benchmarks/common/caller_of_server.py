"""Calls a server on command (see `on_command`) with one of several prepared Predict requests.

Usage: python -m benchmarks.common.caller_of_server ADDRESS REQUEST_FILE...
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import grpc.aio

from .generator import Generator
from .on_command import WARM_UP, parse, say_ready, tell

_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


async def _window(generator: Generator, callers: int, seconds: float) -> None:
    generator.calls.clear()
    begin = time.monotonic()

    async def caller() -> None:
        while time.monotonic() < begin + WARM_UP + seconds:
            await generator.once()

    await asyncio.gather(*(caller() for _ in range(callers)))
    tell(generator.calls, begin)


async def main(address: str, requests: list[bytes]) -> None:
    """Obeys until its input ends."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        generators = [Generator(channel, request) for request in requests]
        for generator in generators:
            await generator.once()
        say_ready()
        while line := await asyncio.to_thread(sys.stdin.readline):
            which, callers, seconds = parse(line)
            await _window(generators[which], callers, seconds)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], [Path(file).read_bytes() for file in sys.argv[2:]]))
