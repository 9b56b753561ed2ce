"""Has versions loaded again that are EVICTED, when predictions want them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from ..errors import ModelhostError, Reason
from ..store.phases import Phase
from ..store.records import Version
from ..store.resolve import not_available
from .means import ScopeMeans

# What ends a wait; RECOVERING does not: its worker died, and the next one loads it.
_SETTLED = frozenset(
    {Phase.AVAILABLE, Phase.EVICTED, Phase.FAILED, Phase.DRAINING, Phase.FREEING, Phase.UNLOADED}
)  # fmt: skip
_RETRY_SECONDS = 0.1
# For this long at most, a refusal is repeated to others without looking at the memory again.
_MOST_REFUSED = 1.0


class Reloading:
    """Shares one load between all who wait for a version of one scope.

    Args:
        load: loads a version that is RELOADING; how it went is in its phase.
    """

    def __init__(self, means: ScopeMeans, load: Callable[[Version], Coroutine[Any, Any, None]]) -> None:
        self._scope = means.scope
        self._store = means.server.store
        self._waiting = means.server.waiting
        self._background = means.background
        self._load = load
        self._waiting_count = 0

    async def wait(self, version: Version, deadline: float | None = None) -> None:
        """Answers when a version that was EVICTED is in memory. The load goes on when the caller leaves.

        Raises:
            ModelhostError: QUEUE_FULL, DEADLINE_EXCEEDED, MEMORY_LIMIT, THRASHING, VERSION_FAILED; WORKER_UNAVAILABLE
                when it is unloaded meanwhile.
        """
        self.begin(version)
        if self._waiting_count >= max(1, self._scope.config.max_queue):
            raise ModelhostError(
                Reason.QUEUE_FULL,
                f"scope '{self._scope.name}': {self._waiting_count} predictions wait for loads already (max_queue); "
                "try again later",
                retry_after=_RETRY_SECONDS,
            )
        self._waiting_count += 1
        # Not evicted before its load has been noticed here.
        version.handles += 1
        try:
            async with asyncio.timeout_at(deadline):
                await self._waiting.until(version, _SETTLED)
        except TimeoutError:
            raise ModelhostError(
                Reason.DEADLINE_EXCEEDED, f"{version.resource} was still being loaded again when the time was up"
            ) from None
        finally:
            self._waiting_count -= 1
            version.release()
        if version.phase is Phase.EVICTED:
            self._refuse(version)
        elif version.phase is Phase.FAILED:
            raise not_available(version)
        elif version.phase is not Phase.AVAILABLE:
            # It was there when the prediction came, and whoever asked for a label may get another version now.
            raise ModelhostError(
                Reason.WORKER_UNAVAILABLE,
                f"{version.resource} was unloaded while a prediction waited for it; ask again",
                retry_after=_RETRY_SECONDS,
            )

    def begin(self, version: Version) -> None:
        """Begins to load a version, if it is EVICTED.

        Raises:
            ModelhostError: MEMORY_LIMIT or THRASHING, when that was found out a moment ago.
        """
        if version.phase is not Phase.EVICTED:
            return
        if time.monotonic() < version.refused_until:
            self._refuse(version)
        self._store.transition(version, Phase.RELOADING)
        self._background.run(self._load(version))

    def _refuse(self, version: Version) -> None:
        error = version.error
        assert error is not None, "a load that was refused says why"
        if error.reason is Reason.THRASHING:
            self._scope.thrashing_count += 1
        raise error

    def note_refusal(self, version: Version, error: ModelhostError) -> None:
        """Notes that a version cannot be loaded again now; its next prediction tries once more."""
        seconds = min(_MOST_REFUSED, error.retry_after or _RETRY_SECONDS)
        version.refused_until = time.monotonic() + seconds
        self._store.transition(version, Phase.EVICTED, error)
