"""Loads versions into the workers of a scope: from their sources, within the limits of memory."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from ..errors import ModelhostError, Reason
from ..store.phases import Phase
from ..store.records import EngineChoice, Loaded, Progress, Version
from ..store.resolve import not_available
from ..workers.worker import Worker
from .admission import Footprint, NoMemoryError
from .eviction import protection
from .means import ScopeMeans
from .reloading import Reloading
from .switching import Switching
from .unloading import Unloading
from .verdicts import TENSORFLOW, needs_tensorflow

logger = logging.getLogger(__name__)

# A load waits this long for others that are in use, or have just been loaded, to make room.
_PATIENCE_SECONDS = 1.0
_TO_BE_LOADED = (Phase.WAITING, Phase.LOADING, Phase.RELOADING, Phase.RECOVERING)
# What is no fault of a version's that was served before: its next prediction tries again.
_PASSING = frozenset(
    {Reason.MEMORY_LIMIT, Reason.THRASHING, Reason.WORKER_UNAVAILABLE, Reason.SOURCE_UNAVAILABLE, Reason.STORAGE_FAILED}
)
# Other versions that were served before are tried again after so long.
_RETRY_SECONDS = 2.0


class Loading:
    """Loads versions of one scope. How a load went is in the version's phase.

    Args:
        loads: those under way, by the keys of their versions; set when they have ended.
    """

    def __init__(
        self, means: ScopeMeans, loads: dict[int, asyncio.Event], switching: Switching, unloading: Unloading,
        reloading: Reloading,
    ) -> None:  # fmt: skip
        self._store = means.server.store
        self._sources = means.server.sources
        self._conversion = means.server.conversion
        self._tuner = means.server.tuner
        self._admission = means.server.admission
        self._room = means.server.room
        self._on_available = means.server.on_available
        self._workers = means.workers
        self._placement = means.placement
        # Loads in workers, so far and now.
        self._placed = self._placing = 0
        self._turns = means.turns
        self._blame = means.blame
        self._budgets = means.budgets
        self._background = means.background
        self._switching = switching
        self._unloading = unloading
        self._reloading = reloading
        self._loads = loads
        # By the keys of their versions, those that no worker has a part in yet.
        self._preparing: set[int] = set()

    async def load(self, version: Version) -> None:
        """Loads a version that waits for it. How it went is in the version's phase."""
        ended = self._loads[version.key] = asyncio.Event()
        try:
            with self._failing(version):
                await self._prepare(version)
                await self._load_making_room(version)
        finally:
            self._loads.pop(version.key, None)
            ended.set()

    def is_preparing(self, version: Version) -> bool:
        """Whether a load of a version is under way that does not depend on workers yet."""
        return version.key in self._preparing

    async def _prepare(self, version: Version) -> None:
        """Has what is to be loaded on this machine, and finds out on which engine."""
        self._preparing.add(version.key)
        try:
            if not version.path:
                # It was hosted before the server was started; what is there now is not known yet.
                found = await self._sources.resolve_again(version.scope, version.source, version.number)
                version.path = found.path
            version.path = await self._sources.fetch(
                version.source, version.path, version.number, partial(self._tell_fetching, version)
            )
            await self._unloading.evicted(version)
            if self._conversion.is_needed(version.path):
                self._store.set_progress(version, Progress("CONVERTING"))
                version.path = await self._conversion.convert(version.path)
            version.choice = await self._tuner.choose(version, self._switching.concurrency)
        finally:
            self._preparing.discard(version.key)

    async def load_lost(self, version: Version) -> None:
        """Loads again a version that is RECOVERING; the caller has a turn."""
        with self._failing(version):
            try:
                await self._load_wanted(version)
            except NoMemoryError:
                if version.options.may_be_evicted:
                    raise
                # Making room may take turns at other scopes, so it has no turn here.
                self._background.run(self._load_making_room(version))

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
                    await self._room.make(lack, version, patience)

    async def _load_wanted(self, version: Version) -> None:
        if not version.is_in(*_TO_BE_LOADED) or version.choice is None:
            return
        workers = await self._workers.ensure(self._blame, needs_tensorflow(version.choice))
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
            self._on_available(version)
            self._tuner.tune(version, self._switching.concurrency)
        elif version.phase is Phase.FAILED:
            # Quarantined meanwhile, for what it did to other workers.
            await self._unloading.withdraw(version)
        elif version.is_in(Phase.FREEING, Phase.UNLOADED):
            # Whoever unloaded it may have been here before all workers had it.
            await self._placement.free_in_all(workers, version)

    async def _admit_or_demote(self, workers: Sequence[Worker], version: Version, choice: EngineChoice) -> Loaded:
        """Loads a version; on TensorFlow when an engine that was chosen for it cannot load what was made for it."""
        try:
            return await self._admit(workers, version, choice)
        except ModelhostError as error:
            others = (Reason.WORKER_DIED, Reason.MEMORY_LIMIT)
            is_over = error.reason in others or not version.is_in(*_TO_BE_LOADED)
            if not choice.artifact or version.options.engine or is_over:
                raise
            self._switching.demote(version, f"{choice.engine} cannot load it: {error.message}")
            return await self._admit(workers, version, TENSORFLOW)

    async def _admit(self, workers: Sequence[Worker], version: Version, choice: EngineChoice) -> Loaded:
        """Loads a version into workers, within the limits of memory."""
        is_first = not any(worker.loaded for worker in workers)
        async with self._admission.reserve(version, choice, len(workers), self._budgets):
            if not version.is_in(*_TO_BE_LOADED):
                # It was unloaded while memory was measured.
                raise not_available(version)
            loaded, is_alone = await self._place(workers, version, choice)
        try:
            if version.check_loaded is not None:
                version.check_loaded(loaded)
            taken = Footprint(loaded.private_bytes, loaded.anonymous_bytes, is_first)
            await self._admission.confirm(version, choice.engine, taken, len(workers), self._budgets, is_alone)
        except ModelhostError:
            await self._placement.free_in_all(workers, version)
            raise
        return loaded

    async def _place(self, workers: Sequence[Worker], version: Version, choice: EngineChoice) -> tuple[Loaded, bool]:
        """Loads a version into workers; and whether no other load, which would be in its figures, went on meanwhile."""
        self._placed += 1
        self._placing += 1
        begun, is_alone = self._placed, self._placing == 1
        try:
            loaded = await self._placement.place_in_all(workers, version, choice)
        finally:
            self._placing -= 1
        return loaded, is_alone and self._placed == begun

    @contextmanager
    def _failing(self, version: Version) -> Iterator[None]:
        """Within, what is raised is why a load failed."""
        try:
            yield
        except ModelhostError as error:
            self._note_failure(version, error)
        except OSError as error:
            logger.warning("loading %s failed", version.resource, exc_info=True)
            self._note_failure(
                version,
                ModelhostError(
                    Reason.STORAGE_FAILED, f"loading failed, as the server's disk did: {error.strerror}",
                    retry_after=_RETRY_SECONDS,
                ),
            )  # fmt: skip
        except Exception as error:
            logger.exception("loading %s failed", version.resource)
            if version.is_in(Phase.WAITING, Phase.LOADING, Phase.RELOADING):
                internal = ModelhostError(Reason.INTERNAL, f"loading failed with {type(error).__name__}")
                self._store.transition(version, Phase.FAILED, internal)

    def _note_failure(self, version: Version, error: ModelhostError) -> None:
        # When the worker died, the version is RECOVERING and will be loaded again.
        if not version.is_in(Phase.WAITING, Phase.LOADING, Phase.RELOADING):
            return
        if error.reason in _PASSING and version.has_been_served and version.options.may_be_evicted:
            self._reloading.note_refusal(version, error)
        elif error.reason in _PASSING and version.has_been_served:
            # Whoever loaded it was told that it is there, and will not load it again.
            logger.warning("%s is not loaded yet: %s", version.resource, error.message)
            self._store.transition(version, Phase.RECOVERING, error)
            self._background.run(self._load_later(version))
        else:
            logger.warning("%s failed to load: %s", version.resource, error.message)
            self._store.transition(version, Phase.FAILED, error)

    async def _load_later(self, version: Version) -> None:
        await asyncio.sleep(_RETRY_SECONDS)
        if version.is_in(Phase.RECOVERING):
            self._store.transition(version, Phase.LOADING)
            await self.load(version)
