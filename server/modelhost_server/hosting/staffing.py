"""How many workers serve a scope: new ones join, old ones are renewed or leave, and no call fails for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from ..errors import ModelhostError, Reason
from ..store.phases import IN_MEMORY, Phase
from ..store.records import EngineChoice, Version
from ..workers.worker import Worker
from .means import ScopeMeans
from .verdicts import needs_tensorflow

logger = logging.getLogger(__name__)

# After this time a worker that could not be had is tried for again.
_AGAIN_SECONDS = 10.0


class Staffing:
    """Hires and retires workers of one scope. A new one serves when it holds what the others hold."""

    def __init__(self, means: ScopeMeans) -> None:
        self._scope = means.scope
        self._store = means.server.store
        self._workers = means.workers
        self._placement = means.placement
        self._turns = means.turns
        self._blame = means.blame
        self._admission = means.server.admission
        self._budgets = means.budgets
        self._background = means.background
        self._again: asyncio.TimerHandle | None = None

    async def fill(self) -> None:
        """Has workers join until as many serve as are wanted; tries again later when one cannot be had now."""
        while self._workers.lacking:
            # Those that serve go on loading and unloading meanwhile.
            await self._workers.pause(self._blame)
            try:
                async with self._turns.alone():
                    if self._workers.lacking:
                        await self._join()
            except ModelhostError as error:
                if error.reason is not Reason.WORKER_DIED:
                    self._fill_later(error.message)
                # Whoever is told of deaths fills again.
                return

    def _fill_later(self, why: str) -> None:
        logger.warning("scope '%s': %d workers too few serve: %s", self._scope.name, self._workers.lacking, why)
        if self._again is not None:
            self._again.cancel()
        loop = asyncio.get_running_loop()
        self._again = loop.call_later(_AGAIN_SECONDS, lambda: self._background.run(self.fill()))

    async def _join(self) -> None:
        held = self._held()
        async with self._admission.reserve_again(held, self._budgets):
            worker = await self._workers.start(any(needs_tensorflow(choice) for _, choice in held))
            self._workers.need(worker)
            for version, choice in held:
                try:
                    await self._place(worker, version, choice)
                except ModelhostError as error:
                    if error.reason is Reason.WORKER_DIED:
                        raise
                    # The others go on serving it, and this one serves the rest.
                    logger.error("scope '%s': a worker joins without a version: %s", self._scope.name, error.message)
        await self._begin(worker)

    def _held(self) -> list[tuple[Version, EngineChoice]]:
        """What a new worker must hold; the most blamed come last."""
        held = [(v, v.choice) for v in self._scope.versions() if v.phase is Phase.AVAILABLE and v.choice is not None]
        return sorted(held, key=lambda item: self._blame.of(item[0].key))

    async def _place(self, worker: Worker, version: Version, choice: EngineChoice) -> None:
        if version.phase is Phase.AVAILABLE:
            self._store.set_loaded(version, await self._placement.place(worker, version, choice, is_told=False))

    async def _begin(self, worker: Worker, successor_of: Worker | None = None) -> None:
        if successor_of is not None:
            self._workers.dismiss(successor_of)
        self._workers.promote(worker)
        for version in self._scope.versions():
            if version.phase not in IN_MEMORY:
                await self._placement.free_in_all([worker], version)

    async def shrink(self) -> None:
        """Has the workers that are more than wanted leave; they finish their calls first."""
        async with self._turns.alone():
            idlest_first = sorted(self._workers.serving, key=lambda worker: worker.link.under_way)
            for worker in idlest_first[: max(0, len(idlest_first) - self._scope.config.replicas)]:
                self._workers.dismiss(worker)
                self._retire(worker)

    async def renew(self, workers: Iterable[Worker]) -> None:
        """Puts new workers into the places of these, one after the other; answers when the old ones without versions
        have ended.
        """
        empty = []
        for old in workers:
            async with self._turns.alone():
                if old not in self._workers.serving or not old.alive:
                    continue
                new = await self._successor()
                if new is None:
                    return
                await self._begin(new, successor_of=old)
            retirement = self._retire(old)
            if not old.loaded:
                empty.append(retirement)
        await asyncio.gather(*empty)

    async def _successor(self) -> Worker | None:
        """A worker that may take another's place; None when it cannot load what that holds."""
        held = self._held()
        new = await self._workers.start(any(needs_tensorflow(choice) for _, choice in held))
        try:
            for version, choice in held:
                await self._place(new, version, choice)
        except ModelhostError as error:
            logger.error("scope '%s': a worker cannot be replaced: %s", self._scope.name, error.message)
            await new.stop()
            return None
        return new

    def _retire(self, worker: Worker) -> asyncio.Task[None]:
        return self._background.run(self._workers.retire(worker, self._scope.config.drain_timeout))
