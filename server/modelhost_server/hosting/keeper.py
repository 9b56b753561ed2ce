"""Keeps one scope served: in its workers, the versions the store wants, each on its engine.

Loads share turns; what must be alone with the workers (a recovery, a replacement) has its turn alone. Unloading needs
no turn: it takes a version out of every worker that holds it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from functools import partial

from ..errors import ModelhostError
from ..scheduling.rate_limit import RateLimit
from ..scheduling.scheduler import Scheduler
from ..store.phases import Phase
from ..store.records import EngineChoice, Scope, ScopeConfig, Version
from ..workers.worker import Worker, WorkerEnd
from .admission import Budget, tightest
from .background import Background
from .blame import Blame, death_error, quarantine_error
from .bounds import Bounds
from .loading import Loading
from .means import Means, ScopeMeans
from .placement import Placement
from .reloading import Reloading
from .staffing import Staffing
from .switching import Switching
from .turns import Turns
from .unloading import Unloading
from .verdicts import needs_tensorflow
from .workforce import Workforce

logger = logging.getLogger(__name__)

# Blame for this many deaths takes a version off an engine that TensorFlow stands behind.
_DEMOTE_AT = 1.0 - 1e-6


class ScopeKeeper:
    """The workers of one scope, and what they hold. Each holds all versions of the scope; a version is AVAILABLE when
    those that live hold it, and as long as one does.
    """

    def __init__(self, scope: Scope, means: Means) -> None:
        self.scope = scope
        self._rate_limit = RateLimit()
        self.scheduler = Scheduler(scope.name, scope.config.max_in_flight, scope.config.max_queue)
        limit = Budget(
            f"scope '{scope.name}'", lambda: scope.config.memory_limit_bytes, self.memory_in_use, scope.versions
        )
        budgets = (limit, means.server_budget)
        self._bounds = Bounds(scope, partial(tightest, budgets))
        self.workers = Workforce(
            scope, means.templates, means.cache_dir, self._resize, self._on_death, self._on_demoted
        )
        self._store = means.store
        self._placement = Placement(means.store, self._bounds)
        self._blame = Blame()
        self._turns = Turns()
        self._background = Background(f"scope {scope.name}")
        ours = ScopeMeans(
            scope, self.workers, self._placement, self._turns, self._blame, budgets, self._background, means
        )
        loads: dict[int, asyncio.Event] = {}
        self._staffing = Staffing(ours)
        self._switching = Switching(ours)
        self._unloading = Unloading(ours, loads, self._begin_renewing)
        self.reloading = Reloading(ours, self.load)
        self._loading = Loading(ours, loads, self._switching, self._unloading, self.reloading)

    # The workers

    def start(self) -> asyncio.Task[None]:
        """Starts the workers; the task ends when they are ready."""
        return self._background.run(self._recover())

    async def close(self) -> None:
        """Ends all workers of the scope."""
        self.workers.closing = True
        await self._background.cancel()
        await self.workers.close()

    async def memory_in_use(self) -> int:
        """What the workers have to themselves: what is private to one, and the files that several have mapped."""
        private = (await self.workers.memory())["private"]
        if len(self.workers.all) <= 1:
            return private
        held = set().union(*(worker.loaded for worker in self.workers.all))
        loaded = [v.loaded for v in self.scope.versions() if v.loaded is not None and v.key in held]
        return private + sum(max(0, each.private_bytes - each.anonymous_bytes) for each in loaded)

    def _resize(self) -> None:
        config = self.scope.config
        # Without any worker callers come in all the same, and are told.
        self.scheduler.resize(config.max_in_flight * max(1, len(self.workers.serving)), config.max_queue)

    def _on_death(self, worker: Worker, end: WorkerEnd) -> None:
        now = asyncio.get_running_loop().time()
        by_key = {version.key: version for version in self.scope.versions()}
        suspects = [key for key in end.busy_keys if key in by_key]
        guilty = self._blame.note_death(now, now - worker.started, suspects)
        for key, version in by_key.items():
            if key in suspects:
                version.statistics.crash_count += 1
                on_engine = version.choice is not None and version.choice.artifact
                # What others do to a worker says nothing of the engine.
                if on_engine and self._blame.of(key) >= _DEMOTE_AT and not end.is_by_others:
                    self._switching.fall_back(version, f"its worker {end.cause}")
            is_lost = key in guilty or not (self._loading.is_preparing(version) or self.workers.serving.has(key))
            if is_lost and version.is_in(Phase.AVAILABLE, Phase.LOADING, Phase.RELOADING):
                self._store.transition(version, Phase.RECOVERING, death_error(end))
            if key in guilty and version.is_in(Phase.RECOVERING):
                self._store.transition(version, Phase.FAILED, quarantine_error(end))
                self._background.run(self._unloading.withdraw(version))
        self._background.run(self._recover())

    async def _recover(self) -> None:
        """Loads what no worker holds any more, and starts workers until as many serve as are wanted."""
        async with self._turns.alone():
            lost = self._lost()
            try:
                await self.workers.ensure(self._blame, any(needs_tensorflow(v.choice) for v in lost))
            except ModelhostError as error:
                logger.error("scope '%s': %s", self.scope.name, error.message)
                self.workers.note_failed_start()
                self._blame.deaths_in_series += 1
                self._background.run(self._recover())
                return
            for version in lost:
                if not self._blame.of(version.key):
                    await self._loading.load_lost(version)
        await self._staffing.fill()
        # Only now: what may strike again then finds all workers there, and nothing else being loaded.
        async with self._turns.alone():
            for version in self._lost():
                await self._loading.load_lost(version)

    def _lost(self) -> list[Version]:
        """Versions that are to be loaded again: the most blamed come last, those that may be evicted after those that
        may not, the ones that were used last first.
        """
        lost = [version for version in self.scope.versions() if version.phase is Phase.RECOVERING]
        return sorted(
            lost, key=lambda v: (self._blame.of(v.key), v.options.may_be_evicted, -v.statistics.last_used)
        )  # fmt: skip

    def _on_demoted(self, key: int, engine: str, why: str) -> None:
        self._switching.on_demoted(key, engine, why)

    # Versions

    async def load(self, version: Version) -> None:
        """Loads a version that waits for it. How it went is in the version's phase."""
        await self._loading.load(version)

    async def switch(self, version: Version, choice: EngineChoice) -> None:
        """Puts a version that is AVAILABLE on another engine, in all workers; no call fails or waits for it.

        Raises:
            ModelhostError: the engine's, MEMORY_LIMIT, WORKER_DIED.
        """
        await self._switching.switch(version, choice)

    async def unload(self, version: Version) -> None:
        """Takes a version that is DRAINING (or FREEING, when it FAILED) out of the scope."""
        await self._unloading.unload(version)

    def may_evict(self, version: Version) -> bool:
        """Whether a version is in memory, and may be evicted once it is idle."""
        is_evictable = version.phase is Phase.AVAILABLE and version.options.may_be_evicted
        return is_evictable and not self._switching.is_under_way(version)

    async def evict(self, version: Version) -> None:
        """Takes a version out of memory, unless it is in use; answers when what it had is given back."""
        if self.may_evict(version) and not version.handles:
            await self._unloading.evict(version)

    async def measure_shared(self, versions: Sequence[Version]) -> None:
        """Notes what versions share of their memory with others now."""
        picked = [(self.workers.pick(version.key), version) for version in versions]
        await asyncio.gather(*(self._placement.measure_shared(worker, v) for worker, v in picked if worker is not None))

    # Replacing

    async def give_back(self) -> bool:
        """Replaces the workers that hold nothing, but more memory than they began with; whether there were any."""
        empty = [worker for worker in self.workers.serving if worker.alive and not worker.loaded]
        used = [worker for worker in empty if await self.workers.has_grown(worker)]
        if used:
            await self._begin_renewing(used)
        return bool(used)

    def end_overrun(self, worker: Worker) -> None:
        """Kills a worker that is still at a prediction whose time is up: an engine cannot be stopped within an
        operation.
        """
        logger.warning("scope '%s': a prediction overran its deadline; replacing the worker", self.scope.name)
        worker.kill()

    def keep_bounds(self) -> None:
        """Has the bounds of the workers follow what they do. One that keeps what others need is replaced."""
        for worker in self._bounds.look_after(tuple(self.workers.all)):
            logger.warning("scope '%s': worker %d keeps too much memory; replacing it", self.scope.name, worker.pid)
            self._begin_renewing([worker])

    def _begin_renewing(self, workers: Collection[Worker]) -> asyncio.Task[None]:
        return self._background.run(self._staffing.renew(workers))

    def take_turn(self, caller: str) -> None:
        """Counts a prediction of a caller's.

        Raises:
            ModelhostError: RATE_LIMIT.
        """
        rate = self.scope.config.caller_rate_limit
        if rate:
            self._rate_limit.take(caller, rate, asyncio.get_running_loop().time())

    async def reconfigure(self, old: ScopeConfig) -> None:
        """Takes the scope's new configuration; replaces the workers when they cannot take it running. Answers when all
        of them serve, unless one cannot be had.
        """
        config = self.scope.config
        self._resize()
        for worker in self.workers.all:
            self._bounds.put_on(worker)
        await self._staffing.shrink()
        if (old.intra_op_threads, old.alone_threads, old.inter_op_threads, old.max_in_flight) != (
            config.intra_op_threads, config.alone_threads, config.inter_op_threads, config.max_in_flight,
        ):  # fmt: skip
            await self._staffing.renew(self.workers.serving)
        await self._staffing.fill()
