"""Puts versions into workers, and takes them out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Any

from ..errors import ModelhostError, Reason
from ..ipc.frames import Kind
from ..store.records import EngineChoice, Loaded, Progress, Version
from ..store.store import Store
from ..tensors import SignatureSpec, VariableSpec
from ..workers.worker import Worker

logger = logging.getLogger(__name__)


class Placement:
    """Speaks LOAD and UNLOAD with workers; tells the store how a load gets on."""

    def __init__(self, store: Store) -> None:
        self._store = store

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
            if is_told:
                stage = str(report["stage"]).upper()
                self._store.set_progress(version, Progress(stage, report["done"], report["total"]))

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
            "alone_threads": min(choice.alone_threads, self._store.scope(version.scope).config.alone_threads),
        }
        reply = await worker.link.control(Kind.LOAD, request, progress)
        worker.loaded.add(version.key)
        return _loaded(reply)

    async def free(self, worker: Worker, version: Version) -> int:
        """Frees a version in a worker; the worker's anonymous memory after that, 0 when the worker has gone."""
        worker.loaded.discard(version.key)
        try:
            reply = await worker.link.control(Kind.UNLOAD, {"key": version.key})
        except ModelhostError as error:
            if error.reason is not Reason.WORKER_DIED:
                logger.error("%s cannot unload: %s", worker.name, error.message)
                worker.kill()
            return 0
        return int(reply["anonymous"])

    async def free_in_all(self, workers: Sequence[Worker], version: Version) -> dict[Worker, int]:
        """Frees a version in those of the workers that hold it; the answers of `free` by worker."""
        holding = [worker for worker in workers if version.key in worker.loaded]
        freed = await asyncio.gather(*(self.free(worker, version) for worker in holding))
        return dict(zip(holding, freed, strict=True))

    async def measure_shared(self, worker: Worker, version: Version) -> None:
        """Notes what a version shares with others now, which changes as they come and go."""
        with contextlib.suppress(ModelhostError):
            reply = await worker.link.control(Kind.SHARED, {"key": version.key})
            version.shared_bytes = int(reply["shared_bytes"])


def _loaded(reply: dict[str, Any]) -> Loaded:
    warmup = reply["warmup"]
    return Loaded(
        engine=reply["engine"],
        loader=reply["loader"],
        signatures=tuple(SignatureSpec.from_json(signature) for signature in reply["signatures"]),
        variables=tuple(VariableSpec(name, dtype, tuple(shape)) for name, dtype, shape in reply["variables"]),
        private_bytes=reply["private_bytes"],
        anonymous_bytes=reply["anonymous_bytes"],
        variable_bytes=reply["variable_bytes"],
        load_ns=reply["load_ns"],
        warmup=(warmup["success_count"], warmup["failure_count"], warmup["first_error"]),
        is_pure=reply["is_pure"],
    )
