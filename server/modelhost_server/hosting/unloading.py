"""Takes versions out of a scope, and gives back what they held."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping

from ..store.phases import IN_MEMORY, Phase
from ..store.records import Version
from ..workers.worker import Worker
from .means import ScopeMeans
from .replacement import worth_replacing

logger = logging.getLogger(__name__)


class Unloading:
    """Unloads and evicts versions of one scope.

    Args:
        loads: under way, by the keys of their versions; set when they have ended.
        renew: begins to replace workers.
    """

    def __init__(
        self, means: ScopeMeans, loads: Mapping[int, asyncio.Event],
        renew: Callable[[Collection[Worker]], asyncio.Task[None]],
    ) -> None:  # fmt: skip
        self._scope = means.scope
        self._store = means.server.store
        self._workers = means.workers
        self._placement = means.placement
        self._turns = means.turns
        self._loads = loads
        self._renew = renew
        # Set when they have ended, too.
        self._evictions: dict[int, asyncio.Event] = {}

    async def unload(self, version: Version) -> None:
        """Takes a version that is DRAINING (or FREEING, when it FAILED) out of the scope."""
        drained = True
        if version.phase is Phase.DRAINING:
            drained = await self._drain(version)
            self._store.transition(version, Phase.FREEING)
        if self._loading(version):
            await self._end_load(version)
        stuck = [] if drained else [w for w in self._workers.all if version.key in w.link.busy_keys()]
        for worker in stuck:
            logger.warning(
                "%s was still running when its drain timeout ended; its worker is being replaced", version.resource
            )
            worker.loaded.discard(version.key)
        wasteful = await self._free(version)
        self._store.transition(version, Phase.UNLOADED)
        await self._give_back([*stuck, *wasteful])

    async def evict(self, version: Version) -> None:
        """Takes a version out of the workers, which stays in the scope; answers when what it had is given back."""
        self._store.transition(version, Phase.EVICTED)
        ended = self._evictions[version.key] = asyncio.Event()
        try:
            wasteful = await self._free(version)
        finally:
            del self._evictions[version.key]
            ended.set()
        await self._give_back(wasteful)

    async def evicted(self, version: Version) -> None:
        """Returns when no worker holds a version any more that is being evicted, if it is."""
        if eviction := self._evictions.get(version.key):
            await eviction.wait()

    async def _free(self, version: Version) -> list[Worker]:
        """Frees a version in all workers; those that are worth replacing after that."""
        freed = await self._placement.free_in_all(list(self._workers.all), version)
        return [worker for worker, anonymous in freed.items() if self._is_worth(worker, anonymous)]

    async def withdraw(self, version: Version) -> None:
        """Takes a version that FAILED while others served it out of their workers."""
        await self._drain(version)
        await self._placement.free_in_all(list(self._workers.all), version)

    def _is_worth(self, worker: Worker, anonymous: int) -> bool:
        """Whether replacing a worker after an unload gives back memory."""
        held = [v for v in self._scope.versions() if v.key in worker.loaded]
        if not anonymous or (not held and any(v.phase in IN_MEMORY for v in self._scope.versions())):
            return False
        return worth_replacing(anonymous, worker.baseline, held)

    async def _give_back(self, workers: Collection[Worker]) -> None:
        """Replaces workers that hold memory which nobody needs (or a call that does not end)."""
        if not workers or self._workers.closing:
            return
        renewal = self._renew(workers)
        # Without models it takes no time, and what it gives back is what the caller waits for.
        if not any(worker.loaded for worker in workers):
            await asyncio.wait([renewal])

    async def _end_load(self, version: Version) -> None:
        """Waits for a load under way, which a worker cannot stop; kills the worker when it takes too long."""
        load = self._loads.get(version.key)
        try:
            async with asyncio.timeout(self._scope.config.drain_timeout):
                if load is not None:
                    await load.wait()
                else:
                    async with self._turns.alone():
                        return
        except TimeoutError:
            logger.warning("scope '%s': a load that nobody wants does not end; killing its worker", self._scope.name)
        for worker in self._loading(version):
            worker.kill()

    def _loading(self, version: Version) -> list[Worker]:
        """The workers that are loading a version now."""
        return [w for w in self._workers.all if version.key in w.link.busy_keys() and version.key not in w.loaded]

    async def _drain(self, version: Version) -> bool:
        """Waits until no prediction uses the version; False when the scope's drain timeout came first."""
        if version.handles == 0:
            return True
        idle = asyncio.Event()
        version.on_idle = idle.set
        try:
            await asyncio.wait_for(idle.wait(), self._scope.config.drain_timeout)
        except TimeoutError:
            return False
        return True
