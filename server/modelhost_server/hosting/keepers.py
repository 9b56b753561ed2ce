"""The keepers of all scopes."""

from __future__ import annotations

import asyncio
import logging

from ..store.records import EngineChoice, Scope, Version
from .keeper import ScopeKeeper
from .means import Means

logger = logging.getLogger(__name__)


class Keepers:
    """Finds the keeper of a scope, or of a version's."""

    def __init__(self) -> None:
        self._keepers: dict[str, ScopeKeeper] = {}

    def __contains__(self, scope: str) -> bool:
        return scope in self._keepers

    def of(self, scope: str) -> ScopeKeeper:
        """The keeper of a scope that exists."""
        return self._keepers[scope]

    def start(self, scope: Scope, means: Means) -> asyncio.Task[None]:
        """Has a scope kept from now on; the task ends when its workers are ready."""
        keeper = self._keepers[scope.name] = ScopeKeeper(scope, means)
        return keeper.start()

    async def end(self, scope: Scope) -> None:
        """Ends the workers of a scope; its keeper is found until it is forgotten."""
        await self._keepers[scope.name].close()

    def forget(self, scope: Scope) -> None:
        """Forgets the keeper of a scope that was deleted."""
        del self._keepers[scope.name]

    async def close(self) -> None:
        """Ends all workers."""
        await asyncio.gather(*(keeper.close() for keeper in self._keepers.values()))

    async def memory_in_use(self) -> int:
        """What the workers of all scopes have to themselves."""
        return sum(await asyncio.gather(*(keeper.memory_in_use() for keeper in self._keepers.values())))

    def keep_bounds(self) -> None:
        """See ScopeKeeper."""
        for keeper in self._keepers.values():
            try:
                keeper.keep_bounds()
            except Exception:
                logger.exception("scope '%s': the bounds of its workers cannot be kept", keeper.scope.name)

    # Of versions

    async def load(self, version: Version) -> None:
        """See ScopeKeeper."""
        await self._keepers[version.scope].load(version)

    async def switch(self, version: Version, choice: EngineChoice) -> None:
        """See ScopeKeeper."""
        await self._keepers[version.scope].switch(version, choice)

    async def unload(self, version: Version) -> None:
        """See ScopeKeeper."""
        await self._keepers[version.scope].unload(version)

    def may_evict(self, version: Version) -> bool:
        """See ScopeKeeper."""
        return self._keepers[version.scope].may_evict(version)

    async def evict(self, version: Version) -> None:
        """See ScopeKeeper."""
        await self._keepers[version.scope].evict(version)

    async def give_back(self, version: Version) -> bool:
        """Has workers of a version's scope that hold nothing any more give back all; whether there were any."""
        return await self._keepers[version.scope].give_back()
