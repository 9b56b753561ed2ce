"""Waits for versions to reach a phase."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection

from ..store.events import Event
from ..store.phases import Phase
from ..store.records import Version
from ..store.store import Store


class Waiting:
    """Wakes whoever waits for a version when it changes."""

    def __init__(self, store: Store) -> None:
        self._waiters: dict[int, list[asyncio.Future[None]]] = {}
        store.events.listen(self._on_event)

    def _on_event(self, event: Event) -> None:
        for waiter in self._waiters.pop(event.version.key, ()):
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, version: Version, phases: Collection[Phase]) -> None:
        """Returns when the version is in one of these phases."""
        while version.phase not in phases:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.setdefault(version.key, []).append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                with contextlib.suppress(ValueError):
                    self._waiters.get(version.key, []).remove(waiter)
                raise
