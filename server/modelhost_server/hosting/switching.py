"""Puts versions of a scope on other engines: on faster ones, and back on TensorFlow when those fail."""

from __future__ import annotations

from ..store.phases import IN_MEMORY, Phase
from ..store.records import EngineChoice, Version
from .means import ScopeMeans
from .verdicts import TENSORFLOW, Concurrency


class Switching:
    """Switches versions of one scope."""

    def __init__(self, means: ScopeMeans) -> None:
        self._scope = means.scope
        self._store = means.server.store
        self._admission = means.server.admission
        self._tuner = means.server.tuner
        self._workers = means.workers
        self._placement = means.placement
        self._turns = means.turns
        self._budgets = means.budgets
        self._background = means.background
        self._under_way: set[int] = set()

    def is_under_way(self, version: Version) -> bool:
        """Whether a version is being put on another engine."""
        return version.key in self._under_way

    @property
    def concurrency(self) -> Concurrency:
        """What of the scope's configuration decides which engine is the fastest."""
        config = self._scope.config
        return Concurrency(config.intra_op_threads, config.max_in_flight, config.alone_threads)

    async def switch(self, version: Version, choice: EngineChoice) -> None:
        """Puts a version that is AVAILABLE on another engine, in all workers; no call fails or waits for it.

        Raises:
            ModelhostError: the engine's, MEMORY_LIMIT, WORKER_DIED.
        """
        async with self._turns.shared():
            workers = self._workers.serving.holding(version.key)
            if not workers or version.phase is not Phase.AVAILABLE:
                return
            self._under_way.add(version.key)
            try:
                async with self._admission.reserve(version, choice, len(workers), self._budgets):
                    loaded = await self._placement.place_in_all(workers, version, choice, before=version.choice)
            finally:
                self._under_way.discard(version.key)
            if version.phase not in IN_MEMORY:
                # It was unloaded meanwhile, and may be in the workers again by that.
                await self._placement.free_in_all(workers, version)
                return
            version.choice = choice
            self._store.set_loaded(version, loaded)

    def on_demoted(self, key: int, engine: str, why: str) -> None:
        """Puts a version that an engine has failed on TensorFlow."""
        for version in self._scope.versions():
            if version.key == key and version.choice is not None and version.choice.engine == engine:
                self.fall_back(version, why)

    def fall_back(self, version: Version, why: str) -> None:
        """Puts a version on TensorFlow that an engine has failed, also where it is loaded."""
        self.demote(version, why)
        self._background.run(self.switch(version, TENSORFLOW))

    def demote(self, version: Version, why: str) -> None:
        """Has a version loaded on TensorFlow from now on: an engine has failed it."""
        version.choice = TENSORFLOW
        self._tuner.note_failure(version, self.concurrency, why)
