"""Makes room in memory for versions that are to be loaded, by evicting others."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator

from ..errors import ModelhostError, Reason
from ..store.phases import Phase
from ..store.records import Version
from .admission import NoMemoryError
from .eviction import Held, Obstacle, Refusal, choose

logger = logging.getLogger(__name__)

# What is measured as nothing takes something nevertheless.
_LEAST_BYTES = 1 << 20
# How often is looked whether what is in use still is.
_POLL_SECONDS = 0.02


class Room:
    """Evicts idle versions.

    Args:
        may_evict: whether a version is in memory, and may be evicted once it is idle.
        evict: evicts one; answers when what it had is given back.
        give_back: has workers of a version's scope that hold nothing any more give back all; whether there were any.
    """

    def __init__(
        self, may_evict: Callable[[Version], bool], evict: Callable[[Version], Awaitable[None]],
        give_back: Callable[[Version], Awaitable[bool]],
    ) -> None:  # fmt: skip
        self._may_evict = may_evict
        self._evict = evict
        self._give_back = give_back
        # Who comes second may find that the first has made room for both.
        self._lock = asyncio.Lock()

    async def make(self, lack: NoMemoryError, version: Version, patience: float) -> None:
        """Evicts others until there is memory for a version, or more at least.

        Args:
            lack: why the version was not let in.
            version: that is to be loaded.
            patience: until when to wait for others, on the monotonic clock.

        Raises:
            ModelhostError: MEMORY_LIMIT; THRASHING for a version that was evicted itself.
        """
        clock = time.monotonic
        while True:
            async with self._lock:
                refusal = await self._try(lack, version)
            if refusal is None:
                return
            # Not within the lock: it may have to wait for loads that make room themselves.
            if refusal.obstacle is Obstacle.TOO_LITTLE and await self._give_back(version):
                continue
            until = max(refusal.until, clock() + _POLL_SECONDS)
            if refusal.obstacle is Obstacle.TOO_LITTLE or until > patience:
                raise _error(lack, version, refusal, until - clock())
            await asyncio.sleep(until - clock())

    async def _try(self, lack: NoMemoryError, wanted: Version) -> Refusal | None:
        budget = lack.budget
        while limit := budget.limit():
            used = await budget.measure()
            missing = used + budget.reserved + lack.needed - limit
            if missing <= 0:
                break
            versions = {v.key: v for v in budget.versions() if v is not wanted}
            chosen = self._choose(missing, used, versions.values())
            if isinstance(chosen, Refusal):
                return chosen
            # One after the other: what each gives back is known only then.
            victim = versions[chosen[0].key]
            logger.info("%s is evicted to make room in %s", victim.resource, budget.name)
            await self._evict(victim)
        return None

    def _choose(self, missing: int, used: int, versions: Collection[Version]) -> list[Held] | Refusal:
        now = time.monotonic()
        held = [*(_held(version) for version in versions if self._may_evict(version)), *_coming(versions, now)]
        chosen = choose(missing, held, now)
        if isinstance(chosen, Refusal) and chosen.obstacle is Obstacle.TOO_LITTLE:
            # What workers have besides their versions, most of it goes with the versions that used it.
            besides = max(0, used - sum(_size(v) for v in versions if v.phase is Phase.AVAILABLE))
            chosen = choose(max(1, missing - besides), held, now)
        return chosen


def _size(version: Version) -> int:
    return version.loaded.private_bytes if version.loaded is not None else 0


def _held(version: Version) -> Held:
    last_used = max(version.statistics.last_used, version.available_since)
    return Held(version.key, max(_size(version), _LEAST_BYTES), last_used, version.handles > 0, version.protected_until)


def _coming(versions: Iterable[Version], now: float) -> Iterator[Held]:
    """Those that are being loaded: a moment later they are protected."""
    for version in versions:
        if version.is_in(Phase.LOADING, Phase.RELOADING) and version.options.may_be_evicted:
            yield _held(version)._replace(protected_until=now + _POLL_SECONDS)


def _error(lack: NoMemoryError, version: Version, refusal: Refusal, seconds: float) -> ModelhostError:
    if version.phase is not Phase.RELOADING or refusal.obstacle is Obstacle.TOO_LITTLE:
        return lack
    if refusal.obstacle is Obstacle.IN_USE:
        lack.retry_after = seconds
        return lack
    return ModelhostError(
        Reason.THRASHING,
        f"{version.resource} cannot be loaded again now: what could be evicted from {lack.budget.name} has just been "
        "loaded itself; try again later, or allow more memory (memory_limit_bytes)",
        retry_after=seconds,
        resource=version.resource,
    )
