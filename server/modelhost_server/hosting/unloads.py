"""Unloads under way: each version's is begun once, whoever asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from ..store.phases import Phase
from ..store.records import Version
from ..store.store import Store
from .background import Background
from .keepers import Keepers


class Unloads:
    """Unloads versions that callers, or newer versions, have go."""

    def __init__(self, store: Store, keepers: Keepers, background: Background) -> None:
        self._store = store
        self._keepers = keepers
        self._background = background
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def start(self, versions: Sequence[Version]) -> list[asyncio.Task[None]]:
        """The tasks that unload versions which were retired; started here, unless they are under way."""
        tasks = []
        for version in versions:
            if version.phase is Phase.UNLOADED:
                continue
            task = self._tasks.get(version.key)
            if task is None:
                task = self._tasks[version.key] = self._background.run(self._keepers.unload(version))
                task.add_done_callback(partial(self._forget, version.key))
            tasks.append(task)
        return tasks

    async def carry_out(self, versions: Sequence[Version]) -> None:
        """Unloads versions which were retired; when the caller leaves, that goes on."""
        await asyncio.gather(*(asyncio.shield(task) for task in self.start(versions)))

    def discard(self, version: Version) -> None:
        """Begins to unload a version, whether or not callers see it."""
        self._store.retire(version)
        self.start([version])

    def retire_superseded(self, version: Version) -> Sequence[Version]:
        """Retires the versions that a version takes the place of."""
        superseded = self._store.superseded(version)
        for old in superseded:
            self._store.retire(old)
        return superseded

    def _forget(self, key: int, task: asyncio.Task[None]) -> None:
        self._tasks.pop(key, None)
