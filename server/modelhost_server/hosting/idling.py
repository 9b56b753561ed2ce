"""Evicts versions that have been idle for as long as their `idle_timeout` says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ..store.events import Event
from ..store.phases import Phase
from ..store.records import Version
from ..store.store import Store

# However short a timeout is, and while what it is over for is in use: nobody looks more often.
_LEAST_SECONDS = 0.05


class Idling:
    """Keeps one timer for all versions: it is due when the first of them may be.

    Args:
        evict: begins to evict a version, unless it is in use.
    """

    def __init__(self, store: Store, evict: Callable[[Version], object]) -> None:
        self._store = store
        self._evict = evict
        self._timer: asyncio.TimerHandle | None = None
        store.events.listen(self._on_event)

    def _on_event(self, event: Event) -> None:
        timeout = event.version.options.idle_timeout
        if timeout and event.version.phase is Phase.AVAILABLE:
            self._wake_in(timeout)

    def _wake_in(self, seconds: float) -> None:
        seconds = max(seconds, _LEAST_SECONDS)
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + seconds:
                return
            self._timer.cancel()
        self._timer = loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        now = time.time()
        for scope in self._store.all_scopes():
            for version in scope.versions():
                if version.options.idle_timeout and version.phase is Phase.AVAILABLE:
                    left = idle_left(version, now)
                    if left > 0:
                        self._wake_in(left)
                    else:
                        self._evict(version)
                        # It may be in use after all.
                        self._wake_in(version.options.idle_timeout)


def idle_left(version: Version, now: float) -> float:
    """After how many seconds a version that is in memory may have been idle for too long."""
    if version.handles:
        return version.options.idle_timeout
    since = max(version.statistics.last_used, version.available_since)
    return since + version.options.idle_timeout - now
