"""Puts versions into workers, and takes them out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ..errors import ModelhostError, Reason
from ..ipc.frames import Kind
from ..store.phases import Phase
from ..store.records import EngineChoice, Loaded, Version
from ..store.store import Store
from ..workers.worker import Worker
from .bounds import Bounds
from .reports import read_anonymous, read_loaded, read_progress, read_shared

logger = logging.getLogger(__name__)

_Told = TypeVar("_Told")


class Placement:
    """Speaks LOAD and UNLOAD with workers; tells the store how a load gets on."""

    def __init__(self, store: Store, bounds: Bounds) -> None:
        self._store = store
        self._bounds = bounds

    async def place_in_all(
        self, workers: Sequence[Worker], version: Version, choice: EngineChoice, before: EngineChoice | None = None
    ) -> Loaded:
        """Loads a version into all of these workers or, when one fails, into none: into the first alone, so that what
        kills a worker that loads it kills one only, and the others find prepared what they share; then into those side
        by side. Of these, one that dies is no reason to fail: whoever takes its place loads the version, too.

        Args:
            workers: at least one.
            version: to load.
            choice: of the engine.
            before: what they have of the version, which this takes the place of; None for nothing.

        Raises:
            ModelhostError: the engine's, or the first worker's WORKER_DIED.
        """
        first, *others = workers
        loaded = await self.place(first, version, choice)
        failures = await asyncio.gather(*(self._try_to_place(worker, version, choice) for worker in others))
        for failure in failures:
            if failure is not None and failure.reason is not Reason.WORKER_DIED:
                if before is None:
                    await self.free_in_all(workers, version)
                else:
                    await asyncio.gather(*(self._try_to_place(worker, version, before) for worker in workers))
                raise failure
        return loaded

    async def _try_to_place(self, worker: Worker, version: Version, choice: EngineChoice) -> ModelhostError | None:
        """Why it failed, if it did."""
        try:
            await self.place(worker, version, choice, is_told=False)
        except ModelhostError as error:
            return error
        return None

    async def place(self, worker: Worker, version: Version, choice: EngineChoice, is_told: bool = True) -> Loaded:
        """Loads a version into a worker, in the place of what the worker has of it.

        Args:
            worker: to load it.
            version: to load.
            choice: of the engine.
            is_told: whether the store is told how the load gets on.

        Raises:
            ModelhostError: the engine's, or WORKER_DIED.
        """

        def progress(report: dict[str, Any]) -> None:
            with contextlib.suppress(ModelhostError):
                told = _believed(worker, read_progress, report)
                if is_told:
                    self._store.set_progress(version, told)

        request = {
            "key": version.key,
            "engine": choice.engine,
            "path": version.path,
            "artifact": choice.artifact,
            "tags": version.options.tags,
            "digest": version.digest,
            "samples_file": version.samples_file,
            "require_warmup": version.options.require_warmup,
            # The scope may have fewer now than when the engine was judged.
            "is_awaited": version.phase is Phase.RELOADING,
            "alone_threads": min(choice.alone_threads, self._store.scope(version.scope).config.alone_threads),
        }
        self._bounds.put_on(worker)
        reply = await worker.link.control(Kind.LOAD, request, progress)
        worker.loaded.add(version.key)
        return _believed(worker, read_loaded, reply)

    async def free(self, worker: Worker, version: Version) -> int:
        """Frees a version in a worker; the worker's anonymous memory after that, 0 when the worker has gone."""
        worker.loaded.discard(version.key)
        try:
            request = {"key": version.key, "is_awaited": version.phase is Phase.EVICTED}
            reply = await worker.link.control(Kind.UNLOAD, request)
            return _believed(worker, read_anonymous, reply)
        except ModelhostError as error:
            if error.reason is not Reason.WORKER_DIED:
                logger.error("%s cannot unload: %s", worker.name, error.message)
                worker.kill()
            return 0

    async def free_in_all(self, workers: Sequence[Worker], version: Version) -> dict[Worker, int]:
        """Frees a version in those of the workers that hold it; the answers of `free` by worker."""
        holding = [worker for worker in workers if version.key in worker.loaded]
        freed = await asyncio.gather(*(self.free(worker, version) for worker in holding))
        return dict(zip(holding, freed, strict=True))

    async def measure_shared(self, worker: Worker, version: Version) -> None:
        """Notes what a version shares with others now, which changes as they come and go."""
        with contextlib.suppress(ModelhostError):
            reply = await worker.link.control(Kind.SHARED, {"key": version.key})
            version.shared_bytes = _believed(worker, read_shared, reply)


def _believed(worker: Worker, read: Callable[[dict[str, Any]], _Told], reply: dict[str, Any]) -> _Told:
    """What a worker says, read. A worker that says what cannot be is ended.

    Raises:
        ModelhostError: WORKER_DIED.
    """
    try:
        return read(reply)
    except ValueError as error:
        worker.link.give_up(f"what it says cannot be: {str(error)[:200]!a}")
        raise ModelhostError(
            Reason.WORKER_DIED, "the worker told of the version what cannot be, and was ended", retry_after=0.5
        ) from None
