"""Turns at changing what a worker holds: loads side by side, or one change that is alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """A lock that many can share or one can have alone; first come, first served."""

    def __init__(self) -> None:
        self._entry = asyncio.Lock()
        self._sharing = 0
        self._free = asyncio.Event()
        self._free.set()

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """A turn beside others that share it."""
        async with self._entry:
            self._sharing += 1
            self._free.clear()
        try:
            yield
        finally:
            self._sharing -= 1
            if not self._sharing:
                self._free.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """A turn beside nobody. Who comes later waits, even to share."""
        async with self._entry:
            await self._free.wait()
            yield
