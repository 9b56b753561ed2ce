"""Keeps one scope served: in its worker, the versions the store wants, each on its engine.

Loads share turns; what must be alone with the worker (a recovery, a replacement) has its turn alone. Unloading needs no
turn: it takes a version out of every worker that holds it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelhostError, Reason
from ..scheduling.scheduler import Scheduler
from ..store.names import version_resource
from ..store.phases import WANTED, Phase
from ..store.records import EngineChoice, Loaded, Progress, Scope, ScopeConfig, Version
from ..store.store import Store
from ..workers.template import Templates
from ..workers.worker import Worker, WorkerEnd
from .admission import Admission, Budget
from .background import Background
from .blame import Blame, death_error, quarantine_error
from .conversion import Conversion
from .placement import Placement
from .tuning import Tuner
from .turns import Turns
from .unloading import Unloading
from .verdicts import TENSORFLOW
from .workforce import Workforce

logger = logging.getLogger(__name__)

# Blame for this many deaths takes a version off an engine that TensorFlow stands behind.
_DEMOTE_AT = 1.0 - 1e-6


@dataclass(frozen=True, slots=True)
class Means:
    """What all keepers share."""

    store: Store
    templates: Templates
    conversion: Conversion
    tuner: Tuner
    admission: Admission
    server_budget: Budget
    cache_dir: Path
    on_available: Callable[[Version], None]


class ScopeKeeper:
    """The worker of one scope, and what it holds."""

    def __init__(self, scope: Scope, means: Means) -> None:
        self.scope = scope
        self.scheduler = Scheduler(scope.name, scope.config.max_in_flight, scope.config.max_queue)
        self.workers = Workforce(scope, means.templates, means.cache_dir, self._on_death, self._on_demoted)
        self._means = means
        self._store = means.store
        self._placement = Placement(means.store)
        self._budgets = (
            Budget(f"scope '{scope.name}'", lambda: scope.config.memory_limit_bytes, self._private, scope.versions),
            means.server_budget,
        )
        self._blame = Blame()
        self._turns = Turns()
        # Ended loads are set, by the version's key.
        self._loads: dict[int, asyncio.Event] = {}
        self._background = Background(f"scope {scope.name}")
        self._unloading = Unloading(
            scope, self._store, self.workers, self._placement, self._loads, self._turns, self.begin_replacing
        )

    # The worker

    @property
    def worker(self) -> Worker | None:
        """The worker that serves now."""
        return self.workers.current

    def start(self) -> asyncio.Task[None]:
        """Starts the worker; the task ends when it is ready."""
        return self._background.run(self._recover())

    async def close(self) -> None:
        """Ends all workers of the scope."""
        self.workers.closing = True
        await self._background.cancel()
        await self.workers.close()

    async def _private(self) -> int:
        return (await self.workers.memory())["private"]

    def _on_death(self, worker: Worker, end: WorkerEnd) -> None:
        now = asyncio.get_running_loop().time()
        by_key = {version.key: version for version in self.scope.versions()}
        suspects = [key for key in end.busy_keys if key in by_key]
        guilty = self._blame.note_death(now, now - worker.started, suspects)
        for key, version in by_key.items():
            if key in suspects:
                version.statistics.crash_count += 1
                if version.choice is not None and version.choice.artifact and self._blame.of(key) >= _DEMOTE_AT:
                    self._demote(version, f"its worker {end.cause}")
            if version.is_in(Phase.AVAILABLE, Phase.LOADING):
                self._store.transition(version, Phase.RECOVERING, death_error(end))
            if key in guilty and version.is_in(Phase.RECOVERING):
                self._store.transition(version, Phase.FAILED, quarantine_error(end))
        self._background.run(self._recover())

    async def _recover(self) -> None:
        async with self._turns.alone():
            waiting = [v for v in self.scope.versions() if v.phase is Phase.RECOVERING]
            try:
                await self.workers.ensure(self._blame, any(_needs_tensorflow(v.choice) for v in waiting))
            except ModelhostError as error:
                logger.error("scope '%s': %s", self.scope.name, error.message)
                self.workers.note_failed_start()
                self._blame.deaths_in_series += 1
                self._background.run(self._recover())
                return
            # The most blamed come last, so that nothing else is being loaded when they strike again; then the ones that
            # were used last come first.
            for version in sorted(waiting, key=lambda v: (self._blame.of(v.key), -v.statistics.last_used)):
                await self._load_wanted(version)

    # Loading

    async def load(self, version: Version) -> None:
        """Loads a version that waits for it. How it went is in the version's phase."""
        ended = self._loads[version.key] = asyncio.Event()
        try:
            with self._failing(version):
                if self._means.conversion.is_needed(version.path):
                    self._store.set_progress(version, Progress("CONVERTING"))
                    version.path = await self._means.conversion.convert(version.path)
                version.choice = await self._means.tuner.choose(version, self.scope.config.intra_op_threads)
                async with self._turns.shared():
                    await self._load_wanted(version)
        finally:
            del self._loads[version.key]
            ended.set()

    async def _load_wanted(self, version: Version) -> None:
        if not version.is_in(Phase.WAITING, Phase.RECOVERING) or version.choice is None:
            return
        with self._failing(version):
            worker = await self.workers.ensure(self._blame, _needs_tensorflow(version.choice))
            if not version.is_in(Phase.WAITING, Phase.RECOVERING):
                return
            self._store.transition(version, Phase.LOADING)
            loaded = version.loaded
            if version.key not in worker.loaded or loaded is None:
                loaded = await self._admit_or_demote(worker, version, version.choice)
            self._store.set_loaded(version, loaded)
            if version.is_in(Phase.LOADING):
                self._store.transition(version, Phase.AVAILABLE)
                self._means.on_available(version)
                self._means.tuner.tune(version, self.scope.config.intra_op_threads)

    async def _admit_or_demote(self, worker: Worker, version: Version, choice: EngineChoice) -> Loaded:
        """Loads a version; on TensorFlow when an engine that was chosen for it cannot load what was made for it."""
        try:
            return await self._admit(worker, version, choice)
        except ModelhostError as error:
            others = (Reason.WORKER_DIED, Reason.MEMORY_LIMIT)
            if not choice.artifact or version.options.engine or error.reason in others:
                raise
            self._demote(version, f"{choice.engine} cannot load it: {error.message}")
            return await self._admit(worker, version, TENSORFLOW)

    async def _admit(self, worker: Worker, version: Version, choice: EngineChoice) -> Loaded:
        """Loads a version into a worker, within the limits of memory."""
        admission = self._means.admission
        async with admission.reserve(version, choice, self._budgets):
            loaded = await self._placement.place(worker, version, choice)
        try:
            await admission.confirm(version, choice.engine, loaded.private_bytes, self._budgets)
        except ModelhostError:
            await self._placement.free(worker, version)
            raise
        return loaded

    @contextmanager
    def _failing(self, version: Version) -> Iterator[None]:
        """Within, what is raised is why a load failed."""
        try:
            yield
        except ModelhostError as error:
            # When the worker died, the version is RECOVERING and will be loaded again.
            if version.is_in(Phase.WAITING, Phase.LOADING):
                self._store.transition(version, Phase.FAILED, error)
                logger.warning("%s failed to load: %s", _name(version), error.message)
        except Exception as error:
            logger.exception("loading %s failed", _name(version))
            if version.is_in(Phase.WAITING, Phase.LOADING):
                internal = ModelhostError(Reason.INTERNAL, f"loading failed with {type(error).__name__}")
                self._store.transition(version, Phase.FAILED, internal)

    async def measure_shared(self, versions: Sequence[Version]) -> None:
        """Notes what versions share of their memory with others now."""
        worker = self.worker
        there = [v for v in versions if worker is not None and v.key in worker.loaded]
        await asyncio.gather(*(self._placement.measure_shared(worker, version) for version in there if worker))

    # Engines

    async def switch(self, version: Version, choice: EngineChoice) -> None:
        """Puts a version that is AVAILABLE on another engine; no call fails or waits for it.

        Raises:
            ModelhostError: the engine's, MEMORY_LIMIT, WORKER_DIED.
        """
        async with self._turns.shared():
            worker = self.worker
            if worker is None or version.key not in worker.loaded or version.phase is not Phase.AVAILABLE:
                return
            async with self._means.admission.reserve(version, choice, self._budgets):
                loaded = await self._placement.place(worker, version, choice)
            if version.phase not in WANTED:
                # It was unloaded meanwhile, and may be in the worker again by that.
                await self._placement.free(worker, version)
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
        self._means.tuner.note_failure(version, self.scope.config.intra_op_threads, why)

    # Unloading

    async def unload(self, version: Version) -> None:
        """Takes a version that is DRAINING (or FREEING, when it FAILED) out of the scope."""
        await self._unloading.unload(version)

    # Replacing

    def end_overrun(self, worker: Worker) -> None:
        """Kills a worker that is still at a prediction whose time is up: an engine cannot be stopped within an
        operation.
        """
        logger.warning("scope '%s': a prediction overran its deadline; replacing the worker", self.scope.name)
        worker.kill()

    def begin_replacing(self) -> asyncio.Task[None]:
        """Replaces the worker, by itself."""
        return self._background.run(self.replace())

    async def replace(self) -> None:
        """Puts a new worker in the place of the one that runs, without a failed call: the new one loads all versions
        first, the old one finishes its calls.
        """
        async with self._turns.alone():
            old = self.worker
            if old is None or not old.alive:
                return
            held = [v for v in self.scope.versions() if v.phase is Phase.AVAILABLE and v.choice is not None]
            new, baseline = await self.workers.start(any(_needs_tensorflow(v.choice) for v in held))
            try:
                for version in held:
                    if version.phase is Phase.AVAILABLE and version.choice is not None:
                        self._store.set_loaded(version, await self._placement.place(new, version, version.choice))
            except ModelhostError as error:
                logger.error("scope '%s': its worker cannot be replaced: %s", self.scope.name, error.message)
                await new.stop()
                return
            self.workers.promote(new, baseline)
            for version in self.scope.versions():
                if version.key in new.loaded and version.phase not in WANTED:
                    await self._placement.free(new, version)
        retirement = self._background.run(self.workers.retire(old, self.scope.config.drain_timeout))
        if not old.loaded:
            await asyncio.wait([retirement])

    async def reconfigure(self, config: ScopeConfig) -> None:
        """Takes a new configuration; replaces the worker when it cannot take it running."""
        old = self.scope.config
        self._store.update_scope(self.scope.name, config)
        self.scheduler.resize(config.max_in_flight, config.max_queue)
        if (old.intra_op_threads, old.inter_op_threads, old.max_in_flight) != (
            config.intra_op_threads, config.inter_op_threads, config.max_in_flight,
        ):  # fmt: skip
            await self.replace()


def _needs_tensorflow(choice: EngineChoice | None) -> bool:
    return choice is not None and choice.engine == TENSORFLOW.engine


def _name(version: Version) -> str:
    return version_resource(version.scope, version.model, version.number)
