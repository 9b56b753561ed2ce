"""Keeps one scope served: a worker that runs, and in it the versions the store wants.

Everything that changes what a worker holds (a load, a recovery, a replacement) is done one after the other, under
one lock. Unloading needs no lock: it takes a version out of every worker that holds it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import Enum

from ..errors import ModelhostError, Reason
from ..memory import measure
from ..scheduling.gate import Gate
from ..store.names import version_resource
from ..store.phases import WANTED, Phase
from ..store.records import Scope, ScopeConfig, Version
from ..store.store import Store
from ..workers.template import WorkerTemplate
from ..workers.worker import Worker, WorkerEnd
from .background import Background
from .blame import Blame, death_error, quarantine_error
from .conversion import Converter
from .placement import Placement
from .replacement import worth_replacing

logger = logging.getLogger(__name__)


class WorkerState(Enum):
    """How a scope's worker is; named as in `modelhost.v1.WorkerState`."""

    IDLE = "IDLE"
    STARTING = "STARTING"
    READY = "READY"
    BACKOFF = "BACKOFF"


class ScopeKeeper:
    """The worker of one scope, and what it holds."""

    def __init__(
        self,
        scope: Scope,
        store: Store,
        template: WorkerTemplate,
        converter: Converter,
        on_available: Callable[[Version], None],
    ) -> None:
        self.scope = scope
        self.gate = Gate(scope.name, scope.config.max_in_flight, scope.config.max_queue)
        self.worker: Worker | None = None
        self.worker_state = WorkerState.IDLE
        self.restarts = 0
        self._store = store
        self._template = template
        self._placement = Placement(store, converter)
        self._on_available = on_available
        self._workers: set[Worker] = set()
        self._baseline = 0
        self._blame = Blame()
        self._last_death = float("-inf")
        self._changes = asyncio.Lock()
        self._background = Background(f"scope {scope.name}")
        self._closing = False

    # The worker

    def start(self) -> asyncio.Task[None]:
        """Starts the worker; the task ends when it is ready."""
        return self._background.run(self._recover())

    async def close(self) -> None:
        """Ends all workers of the scope."""
        self._closing = True
        await self._background.cancel()
        await asyncio.gather(*(worker.stop() for worker in list(self._workers)))

    async def memory(self) -> dict[str, int]:
        """`private` and `pss` of the scope's workers together, in bytes."""
        total = {"private": 0, "pss": 0}
        for worker in list(self._workers):
            try:
                measured = await asyncio.to_thread(measure, worker.pid)
            except OSError:
                continue
            for name, value in measured.items():
                total[name] += value
        return total

    async def _new_worker(self) -> Worker:
        config = self.scope.config
        worker = await self._template.start_worker(
            f"scope '{self.scope.name}'",
            {
                "intra_op_threads": config.intra_op_threads,
                "inter_op_threads": config.inter_op_threads,
                "max_in_flight": config.max_in_flight,
            },
        )
        self._workers.add(worker)
        worker.ended.add_done_callback(lambda ended: self._on_end(worker, ended.result()))
        return worker

    async def _ensure_worker(self) -> Worker:
        if self.worker is not None and self.worker.alive:
            return self.worker
        loop = asyncio.get_running_loop()
        wait = self._last_death + self._blame.backoff() - loop.time()
        if wait > 0:
            self.worker_state = WorkerState.BACKOFF
            await asyncio.sleep(wait)
        self.worker_state = WorkerState.STARTING
        self.worker = await self._new_worker()
        self._baseline = (await asyncio.to_thread(measure, self.worker.pid))["private"]
        self.worker_state = WorkerState.READY
        return self.worker

    def _on_end(self, worker: Worker, end: WorkerEnd) -> None:
        self._workers.discard(worker)
        if worker is not self.worker or self._closing:
            return
        loop = asyncio.get_running_loop()
        self.worker, self.worker_state = None, WorkerState.BACKOFF
        self.restarts += 1
        self._last_death = loop.time()
        lived = self._last_death - worker.started
        by_key = {version.key: version for version in self.scope.versions()}
        suspects = [key for key in end.busy_keys if key in by_key]
        guilty = self._blame.note_death(self._last_death, lived, suspects)
        for key, version in by_key.items():
            if key in suspects:
                version.statistics.crash_count += 1
            if version.is_in(Phase.AVAILABLE, Phase.LOADING):
                self._store.transition(version, Phase.RECOVERING, death_error(end))
            if key in guilty and version.is_in(Phase.RECOVERING):
                self._store.transition(version, Phase.FAILED, quarantine_error(end))
        self._background.run(self._recover())

    async def _recover(self) -> None:
        async with self._changes:
            try:
                await self._ensure_worker()
            except ModelhostError as error:
                logger.error("scope '%s': %s", self.scope.name, error.message)
                self._last_death = asyncio.get_running_loop().time()
                self._blame.deaths_in_series += 1
                self._background.run(self._recover())
                return
            waiting = [v for v in self.scope.versions() if v.phase is Phase.RECOVERING]
            # The most blamed come last, so that nothing else is being loaded when they strike again; then the ones that
            # were used last come first.
            for version in sorted(waiting, key=lambda v: (self._blame.of(v.key), -v.statistics.last_used)):
                await self._load_wanted(version)

    # Loading

    async def load(self, version: Version) -> None:
        """Loads a version that waits for it. How it went is in the version's phase."""
        async with self._changes:
            await self._load_wanted(version)

    async def _load_wanted(self, version: Version) -> None:
        if not version.is_in(Phase.WAITING, Phase.RECOVERING):
            return
        try:
            worker = await self._ensure_worker()
            if not version.is_in(Phase.WAITING, Phase.RECOVERING):
                return
            self._store.transition(version, Phase.LOADING)
            loaded = version.loaded if version.key in worker.loaded else await self._placement.place(worker, version)
        except ModelhostError as error:
            # When the worker died, the version is RECOVERING and will be loaded again.
            if version.is_in(Phase.WAITING, Phase.LOADING):
                self._fail(version, error)
            return
        except Exception as error:
            logger.exception("loading %s failed", version_resource(version.scope, version.model, version.number))
            if version.is_in(Phase.WAITING, Phase.LOADING):
                self._fail(version, ModelhostError(Reason.INTERNAL, f"loading failed with {type(error).__name__}"))
            return
        assert loaded is not None
        self._store.set_loaded(version, loaded)
        if version.is_in(Phase.LOADING):
            self._store.transition(version, Phase.AVAILABLE)
            self._on_available(version)

    def _fail(self, version: Version, error: ModelhostError) -> None:
        self._store.transition(version, Phase.FAILED, error)
        resource = version_resource(version.scope, version.model, version.number)
        logger.warning("%s failed to load: %s", resource, error.message)

    # Unloading

    async def unload(self, version: Version) -> None:
        """Takes a version that is DRAINING (or FREEING, when it FAILED) out of the scope."""
        drained = True
        if version.phase is Phase.DRAINING:
            drained = await self._drain(version)
            self._store.transition(version, Phase.FREEING)
        if self._loading(version):
            await self._end_load(version)
        private = 0
        for worker in list(self._workers):
            if version.key not in worker.loaded:
                continue
            worker.loaded.discard(version.key)
            if drained:
                private = await self._placement.free(worker, version)
        self._store.transition(version, Phase.UNLOADED)
        if not drained:
            logger.warning(
                "%s was still running when its drain timeout ended; its worker is being replaced",
                version_resource(version.scope, version.model, version.number),
            )
        if not self._closing:
            await self._give_back(private, must=not drained)

    async def _give_back(self, private: int, must: bool) -> None:
        """Replaces the worker after an unload where that gives back memory (or a call that does not end)."""
        worker = self.worker
        if worker is None or (not must and not private):
            return
        held = [v for v in self.scope.versions() if v.key in worker.loaded]
        if not held and not must and any(v.phase in WANTED for v in self.scope.versions()):
            return
        if must or worth_replacing(private, self._baseline, held):
            replacement = self._background.run(self.replace())
            # Without models it takes no time, and what it gives back is what the caller waits for.
            if not held:
                await asyncio.wait([replacement])

    async def _end_load(self, version: Version) -> None:
        """Waits for a load under way, which a worker cannot stop; kills the worker when it takes too long."""
        try:
            async with asyncio.timeout(self.scope.config.drain_timeout), self._changes:
                return
        except TimeoutError:
            logger.warning("scope '%s': a load that nobody wants does not end; killing its worker", self.scope.name)
        for worker in self._loading(version):
            worker.kill()

    def _loading(self, version: Version) -> list[Worker]:
        """The workers that are loading a version now."""
        return [w for w in self._workers if version.key in w.link.busy_keys() and version.key not in w.loaded]

    async def _drain(self, version: Version) -> bool:
        """Waits until no prediction uses the version; False when the scope's drain timeout came first."""
        if version.handles == 0:
            return True
        idle = asyncio.Event()
        version.on_idle = idle.set
        try:
            await asyncio.wait_for(idle.wait(), self.scope.config.drain_timeout)
        except TimeoutError:
            return False
        return True

    # Replacing

    def end_overrun(self, worker: Worker) -> None:
        """Kills a worker that is still at a prediction whose time is up: an engine cannot be stopped within an
        operation.
        """
        logger.warning("scope '%s': a prediction overran its deadline; replacing the worker", self.scope.name)
        worker.kill()

    async def replace(self) -> None:
        """Puts a new worker in the place of the one that runs, without a failed call: the new one loads all versions
        first, the old one finishes its calls.
        """
        async with self._changes:
            old = self.worker
            if old is None or not old.alive:
                return
            new = await self._new_worker()
            baseline = (await asyncio.to_thread(measure, new.pid))["private"]
            try:
                for version in self.scope.versions():
                    if version.phase is Phase.AVAILABLE:
                        self._store.set_loaded(version, await self._placement.place(new, version))
            except ModelhostError as error:
                logger.error("scope '%s': its worker cannot be replaced: %s", self.scope.name, error.message)
                await new.stop()
                return
            self.worker, self._baseline, self.worker_state = new, baseline, WorkerState.READY
            for version in self.scope.versions():
                if version.key in new.loaded and version.phase not in WANTED:
                    await self._placement.free(new, version)
        retirement = self._background.run(self._retire(old))
        if not old.loaded:
            await asyncio.wait([retirement])

    async def _retire(self, worker: Worker) -> None:
        try:
            await asyncio.wait_for(worker.link.idle(), self.scope.config.drain_timeout)
        except TimeoutError:
            logger.warning("scope '%s': a replaced worker's calls did not end in time; killing it", self.scope.name)
        await worker.stop()

    async def reconfigure(self, config: ScopeConfig) -> None:
        """Takes a new configuration; replaces the worker when it cannot take it running."""
        old = self.scope.config
        self._store.update_scope(self.scope.name, config)
        self.gate.resize(config.max_in_flight, config.max_queue)
        if (old.intra_op_threads, old.inter_op_threads, old.max_in_flight) != (
            config.intra_op_threads, config.inter_op_threads, config.max_in_flight,
        ):  # fmt: skip
            await self.replace()
