"""Keeps one scope served: in its workers, the versions the store wants, each on its engine.

Loads share turns; what must be alone with the workers (a recovery, a replacement) has its turn alone. Unloading needs
no turn: it takes a version out of every worker that holds it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from ..errors import ModelhostError, Reason
from ..scheduling.rate_limit import RateLimit
from ..scheduling.scheduler import Scheduler
from ..store.names import version_resource
from ..store.phases import IN_MEMORY, Phase
from ..store.records import EngineChoice, Loaded, Progress, Scope, ScopeConfig, Version
from ..workers.worker import Worker, WorkerEnd
from .admission import Budget, Footprint, NoMemoryError
from .background import Background
from .blame import Blame, death_error, quarantine_error
from .eviction import protection
from .means import Means
from .placement import Placement
from .reloading import Reloading
from .staffing import Staffing
from .turns import Turns
from .unloading import Unloading
from .verdicts import TENSORFLOW, Concurrency, needs_tensorflow
from .workforce import Workforce

logger = logging.getLogger(__name__)

# Blame for this many deaths takes a version off an engine that TensorFlow stands behind.
_DEMOTE_AT = 1.0 - 1e-6
# A load waits this long for others that are in use, or have just been loaded, to make room.
_PATIENCE_SECONDS = 1.0
_TO_BE_LOADED = (Phase.WAITING, Phase.LOADING, Phase.RELOADING, Phase.RECOVERING)
# What is no fault of a version's that was served before: its next prediction tries again.
_PASSING = frozenset(
    {Reason.MEMORY_LIMIT, Reason.THRASHING, Reason.WORKER_UNAVAILABLE, Reason.SOURCE_UNAVAILABLE, Reason.STORAGE_FAILED}
)
# Other versions that were served before are tried again after so long.
_RETRY_SECONDS = 2.0


class ScopeKeeper:
    """The workers of one scope, and what they hold. Each holds all versions of the scope; a version is AVAILABLE when
    those that live hold it, and as long as one does.
    """

    def __init__(self, scope: Scope, means: Means) -> None:
        self.scope = scope
        self._rate_limit = RateLimit()
        self.scheduler = Scheduler(scope.name, scope.config.max_in_flight, scope.config.max_queue)
        self.workers = Workforce(
            scope, means.templates, means.cache_dir, self._resize, self._on_death, self._on_demoted
        )
        self._means = means
        self._store = means.store
        self._placement = Placement(means.store)
        self._budgets = (
            Budget(
                f"scope '{scope.name}'", lambda: scope.config.memory_limit_bytes, self.memory_in_use, scope.versions
            ),
            means.server_budget,
        )
        self._blame = Blame()
        self._turns = Turns()
        # Ended loads are set, by the version's key; ended evictions, too.
        self._loads: dict[int, asyncio.Event] = {}
        self._evictions: dict[int, asyncio.Event] = {}
        # Versions that are being put on another engine.
        self._switching: set[int] = set()
        self._background = Background(f"scope {scope.name}")
        self._staffing = Staffing(
            scope, self._store, self.workers, self._placement, self._turns, self._blame, means.admission, self._budgets,
            self._background,
        )  # fmt: skip
        self._unloading = Unloading(
            scope, self._store, self.workers, self._placement, self._loads, self._turns, self._begin_renewing
        )
        self.reloading = Reloading(scope, self._store, means.waiting, self._background, self.load)

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
                    self._demote(version, f"its worker {end.cause}")
                    self._background.run(self.switch(version, TENSORFLOW))
            is_lost = key in guilty or not self.workers.serving.has(key)
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
                    await self._load_lost(version)
        await self._staffing.fill()
        # Only now: what may strike again then finds all workers there, and nothing else being loaded.
        async with self._turns.alone():
            for version in self._lost():
                await self._load_lost(version)

    def _lost(self) -> list[Version]:
        """Versions that are to be loaded again: the most blamed come last, those that may be evicted after those that
        may not, the ones that were used last first.
        """
        lost = [version for version in self.scope.versions() if version.phase is Phase.RECOVERING]
        return sorted(
            lost, key=lambda v: (self._blame.of(v.key), v.options.may_be_evicted, -v.statistics.last_used)
        )  # fmt: skip

    async def _load_lost(self, version: Version) -> None:
        with self._failing(version):
            try:
                await self._load_wanted(version)
            except NoMemoryError:
                if version.options.may_be_evicted:
                    raise
                # Making room may take turns at other scopes, so it has no turn here.
                self._background.run(self._load_making_room(version))

    # Loading

    async def load(self, version: Version) -> None:
        """Loads a version that waits for it. How it went is in the version's phase."""
        ended = self._loads[version.key] = asyncio.Event()
        try:
            with self._failing(version):
                if not version.path:
                    # It was hosted before the server was started; what is there now is not known yet.
                    found = await self._means.sources.resolve_again(version.scope, version.source, version.number)
                    version.path = found.path
                version.path = await self._means.sources.fetch(
                    version.source, version.path, version.number, partial(self._tell_fetching, version)
                )
                if eviction := self._evictions.get(version.key):
                    await eviction.wait()
                if self._means.conversion.is_needed(version.path):
                    self._store.set_progress(version, Progress("CONVERTING"))
                    version.path = await self._means.conversion.convert(version.path)
                version.choice = await self._means.tuner.choose(version, self._concurrency)
            await self._load_making_room(version)
        finally:
            del self._loads[version.key]
            ended.set()

    def _tell_fetching(self, version: Version, done: int, total: int) -> bool:
        if not version.is_in(*_TO_BE_LOADED):
            return False
        self._store.set_progress(version, Progress("FETCHING", done, total))
        return True

    async def _load_making_room(self, version: Version) -> None:
        """Loads a version; where there is no memory for it, others are evicted."""
        patience = time.monotonic() + _PATIENCE_SECONDS
        with self._failing(version):
            while True:
                try:
                    async with self._turns.shared():
                        await self._load_wanted(version)
                    return
                except NoMemoryError as lack:
                    await self._means.room.make(lack, version, patience)

    async def _load_wanted(self, version: Version) -> None:
        if not version.is_in(*_TO_BE_LOADED) or version.choice is None:
            return
        workers = await self.workers.ensure(self._blame, needs_tensorflow(version.choice))
        if not version.is_in(*_TO_BE_LOADED):
            return
        if version.is_in(Phase.WAITING, Phase.RECOVERING):
            self._store.transition(version, Phase.LOADING)
        started = time.monotonic()
        loaded = version.loaded
        without = [worker for worker in workers if version.key not in worker.loaded]
        if without or loaded is None:
            loaded = await self._admit_or_demote(without or workers, version, version.choice)
        self._store.set_loaded(version, loaded)
        if version.is_in(Phase.LOADING, Phase.RELOADING):
            version.statistics.note_load()
            now = time.monotonic()
            version.protected_until = now + protection(now - started)
            self._store.transition(version, Phase.AVAILABLE)
            self._means.on_available(version)
            self._means.tuner.tune(version, self._concurrency)
        elif version.phase is Phase.FAILED:
            # Quarantined meanwhile, for what it did to other workers.
            await self._unloading.withdraw(version)

    async def _admit_or_demote(self, workers: Sequence[Worker], version: Version, choice: EngineChoice) -> Loaded:
        """Loads a version; on TensorFlow when an engine that was chosen for it cannot load what was made for it."""
        try:
            return await self._admit(workers, version, choice)
        except ModelhostError as error:
            others = (Reason.WORKER_DIED, Reason.MEMORY_LIMIT)
            if not choice.artifact or version.options.engine or error.reason in others:
                raise
            self._demote(version, f"{choice.engine} cannot load it: {error.message}")
            return await self._admit(workers, version, TENSORFLOW)

    async def _admit(self, workers: Sequence[Worker], version: Version, choice: EngineChoice) -> Loaded:
        """Loads a version into workers, within the limits of memory."""
        admission = self._means.admission
        is_first = not any(worker.loaded for worker in workers)
        async with admission.reserve(version, choice, len(workers), self._budgets):
            loaded = await self._placement.place_in_all(workers, version, choice)
        try:
            if version.check_loaded is not None:
                version.check_loaded(loaded)
            taken = Footprint(loaded.private_bytes, loaded.anonymous_bytes, is_first)
            await admission.confirm(version, choice.engine, taken, len(workers), self._budgets)
        except ModelhostError:
            await self._placement.free_in_all(workers, version)
            raise
        return loaded

    @contextmanager
    def _failing(self, version: Version) -> Iterator[None]:
        """Within, what is raised is why a load failed."""
        try:
            yield
        except ModelhostError as error:
            self._note_failure(version, error)
        except OSError as error:
            logger.warning("loading %s failed", _name(version), exc_info=True)
            self._note_failure(
                version,
                ModelhostError(
                    Reason.STORAGE_FAILED, f"loading failed, as the server's disk did: {error.strerror}",
                    retry_after=_RETRY_SECONDS,
                ),
            )  # fmt: skip
        except Exception as error:
            logger.exception("loading %s failed", _name(version))
            if version.is_in(Phase.WAITING, Phase.LOADING, Phase.RELOADING):
                internal = ModelhostError(Reason.INTERNAL, f"loading failed with {type(error).__name__}")
                self._store.transition(version, Phase.FAILED, internal)

    def _note_failure(self, version: Version, error: ModelhostError) -> None:
        # When the worker died, the version is RECOVERING and will be loaded again.
        if not version.is_in(Phase.WAITING, Phase.LOADING, Phase.RELOADING):
            return
        if error.reason in _PASSING and version.has_been_served and version.options.may_be_evicted:
            self.reloading.note_refusal(version, error)
        elif error.reason in _PASSING and version.has_been_served:
            # Whoever loaded it was told that it is there, and will not load it again.
            logger.warning("%s is not loaded yet: %s", _name(version), error.message)
            self._store.transition(version, Phase.RECOVERING, error)
            self._background.run(self._load_later(version))
        else:
            logger.warning("%s failed to load: %s", _name(version), error.message)
            self._store.transition(version, Phase.FAILED, error)

    async def _load_later(self, version: Version) -> None:
        await asyncio.sleep(_RETRY_SECONDS)
        if version.is_in(Phase.RECOVERING):
            await self.load(version)

    async def measure_shared(self, versions: Sequence[Version]) -> None:
        """Notes what versions share of their memory with others now."""
        picked = [(self.workers.pick(version.key), version) for version in versions]
        await asyncio.gather(*(self._placement.measure_shared(worker, v) for worker, v in picked if worker is not None))

    # Engines

    @property
    def _concurrency(self) -> Concurrency:
        config = self.scope.config
        return Concurrency(config.intra_op_threads, config.max_in_flight, config.alone_threads)

    async def switch(self, version: Version, choice: EngineChoice) -> None:
        """Puts a version that is AVAILABLE on another engine, in all workers; no call fails or waits for it.

        Raises:
            ModelhostError: the engine's, MEMORY_LIMIT, WORKER_DIED.
        """
        async with self._turns.shared():
            workers = self.workers.serving.holding(version.key)
            if not workers or version.phase is not Phase.AVAILABLE:
                return
            self._switching.add(version.key)
            try:
                async with self._means.admission.reserve(version, choice, len(workers), self._budgets):
                    loaded = await self._placement.place_in_all(workers, version, choice, before=version.choice)
            finally:
                self._switching.discard(version.key)
            if version.phase not in IN_MEMORY:
                # It was unloaded meanwhile, and may be in the workers again by that.
                await self._placement.free_in_all(workers, version)
                return
            version.choice = choice
            self._store.set_loaded(version, loaded)

    def _on_demoted(self, key: int, engine: str, why: str) -> None:
        for version in self.scope.versions():
            if version.key == key and version.choice is not None and version.choice.engine == engine:
                self._demote(version, why)
                self._background.run(self.switch(version, TENSORFLOW))

    def _demote(self, version: Version, why: str) -> None:
        version.choice = TENSORFLOW
        self._means.tuner.note_failure(version, self._concurrency, why)

    # Unloading

    async def unload(self, version: Version) -> None:
        """Takes a version that is DRAINING (or FREEING, when it FAILED) out of the scope."""
        await self._unloading.unload(version)

    # Evicting

    def may_evict(self, version: Version) -> bool:
        """Whether a version is in memory, and may be evicted once it is idle."""
        return (
            version.phase is Phase.AVAILABLE and version.options.may_be_evicted and version.key not in self._switching
        )

    async def evict(self, version: Version) -> None:
        """Takes a version out of memory, unless it is in use; answers when what it had is given back."""
        if not self.may_evict(version) or version.handles:
            return
        self._store.transition(version, Phase.EVICTED)
        ended = self._evictions[version.key] = asyncio.Event()
        try:
            give_back = await self._unloading.evict(version)
        finally:
            del self._evictions[version.key]
            ended.set()
        await give_back()

    async def give_back(self) -> bool:
        """Replaces the workers that hold nothing, but more memory than they began with; whether there were any."""
        empty = [worker for worker in self.workers.serving if worker.alive and not worker.loaded]
        used = [worker for worker in empty if await self.workers.has_grown(worker)]
        if used:
            await self._begin_renewing(used)
        return bool(used)

    # Replacing

    def end_overrun(self, worker: Worker) -> None:
        """Kills a worker that is still at a prediction whose time is up: an engine cannot be stopped within an
        operation.
        """
        logger.warning("scope '%s': a prediction overran its deadline; replacing the worker", self.scope.name)
        worker.kill()

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
        await self._staffing.shrink()
        if (old.intra_op_threads, old.alone_threads, old.inter_op_threads, old.max_in_flight) != (
            config.intra_op_threads, config.alone_threads, config.inter_op_threads, config.max_in_flight,
        ):  # fmt: skip
            await self._staffing.renew(self.workers.serving)
        await self._staffing.fill()


def _name(version: Version) -> str:
    return version_resource(version.scope, version.model, version.number)
