"""Finds the engine for each version: what is remembered of its content decides at once; otherwise it is served by
TensorFlow while a converter process, in idle time and one at a time, tries the others.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from ..errors import ModelhostError, Reason
from ..store.phases import IN_MEMORY, WANTED, Phase
from ..store.records import Candidate, EngineChoice, Outcome, Tuning, Version
from ..store.store import Store
from .background import Background
from .converting import ConverterFault, Converting
from .digests import Digests
from .findings import explanation, failed, judged, speed, with_winner
from .verdicts import TENSORFLOW, Concurrency, Verdict, Verdicts

logger = logging.getLogger(__name__)

CANDIDATES = ("litert", "openvino")
_FREEZE_SECONDS = 600.0
_CONVERT_SECONDS = 900.0
_JUDGE_SECONDS = 600.0
_TIMING_SECONDS = 10.0
# Where somebody waits and speed decides nothing.
_URGENT_TIMING_SECONDS = 2.0

Switch = Callable[[Version, EngineChoice], Awaitable[None]]


class Tuner:
    """Chooses engines.

    Args:
        cache_dir: for artifacts and verdicts.
        engines: which others than tensorflow may be chosen unasked.
        switch: puts a version that is AVAILABLE on another engine.
    """

    def __init__(
        self, store: Store, cache_dir: Path, converting: Converting, digests: Digests, engines: Sequence[str],
        switch: Switch,
    ) -> None:  # fmt: skip
        self._store = store
        self._converting = converting
        self._digests = digests
        self._engines = engines
        self._switch = switch
        self._verdicts = Verdicts(cache_dir)
        self._turn = asyncio.Lock()
        self._background = Background("tuner")

    async def close(self) -> None:
        """Ends what is under way."""
        await self._background.cancel()

    # At load

    async def choose(self, version: Version, concurrency: Concurrency) -> EngineChoice:
        """What a version is to be loaded on, now.

        Args:
            version: what is being loaded.
            concurrency: of the version's scope.

        Raises:
            ModelhostError: SOURCE_NOT_FOUND; SOURCE_UNSUPPORTED when the engine asked for cannot serve the version.
        """
        version.digest = version.digest or await self._digests.of(version.path)
        asked = version.options.engine
        own = await asyncio.to_thread(own_engine, version.path)
        if own:
            if asked not in ("", own):
                raise ModelhostError(
                    Reason.SOURCE_UNSUPPORTED, f"options.engine: the source can be run by {own} only; got {asked}",
                    field="options.engine",
                )  # fmt: skip
            return EngineChoice(own)
        if asked == "tensorflow" or not (asked or self._engines):
            return TENSORFLOW
        if asked:
            return await self._insist(version, asked, concurrency)
        verdict = self._verdicts.recall(version, concurrency)
        if verdict is None:
            version.tuning = Tuning.WAITING
            return TENSORFLOW
        version.tuning, version.candidates = Tuning.DONE, verdict.candidates
        return self._verdicts.choice(version, verdict)

    async def _insist(self, version: Version, engine: str, concurrency: Concurrency) -> EngineChoice:
        verdict = self._verdicts.recall(version, concurrency, engine)
        if verdict is None:
            (candidate,) = await self._try([engine], version, concurrency, urgent=True)
            if candidate.outcome is Outcome.SLOWER:
                # Right; how fast it is was not asked.
                candidate = replace(candidate, outcome=Outcome.CHOSEN, reason=speed(candidate))
            verdict = Verdict((candidate,))
            self._verdicts.remember(version, concurrency, verdict, engine)
        if verdict.chosen is None:
            raise ModelhostError(
                Reason.SOURCE_UNSUPPORTED,
                f"options.engine: {engine} cannot serve this model: {verdict.candidates[0].reason}; "
                "leave the engine to the server",
                field="options.engine",
            )
        version.candidates = verdict.candidates
        return self._verdicts.choice(version, verdict)

    async def litert_artifact(self, version: Version) -> str:
        """What LiteRT runs of a version in full precision: the source itself, or what is made of it now.

        Raises:
            ModelhostError: SOURCE_UNSUPPORTED, when it cannot be converted.
        """
        if own_engine(version.path):
            return version.path
        artifact = self._verdicts.artifact(version, "litert")
        if not artifact.is_dir():
            async with self._workshop(version) as work:
                await self._freeze(version, work, urgent=True)
                await self._convert("litert", version, work, urgent=True)
        return str(artifact)

    # In the background

    def tune(self, version: Version, concurrency: Concurrency) -> None:
        """Looks for a faster engine for a version that is AVAILABLE, when its turn comes."""
        if version.tuning is Tuning.WAITING:
            self._background.run(self._tune(version, concurrency))

    async def _tune(self, version: Version, concurrency: Concurrency) -> None:
        async with self._turn:
            # One that is EVICTED is looked at when it is loaded again.
            if version.phase not in IN_MEMORY or version.tuning is not Tuning.WAITING:
                return
            # Another version of the same content may have been before us.
            verdict = self._verdicts.recall(version, concurrency)
            if verdict is None:
                self._store.set_tuning(version, Tuning.RUNNING, ())
                started = time.monotonic()
                try:
                    tried = await self._try(self._engines, version, concurrency, urgent=False)
                except ConverterFault as fault:
                    logger.error("%s stays on tensorflow: %s", version.resource, fault.message)
                    self._store.set_tuning(version, Tuning.OFF, ())
                    return
                if version.phase not in WANTED:
                    # Its files may have gone with it, which says nothing about engines.
                    return
                verdict = Verdict(with_winner(tried))
                self._verdicts.remember(version, concurrency, verdict)
                logger.info(
                    "%s: %s (found in %.0f s)",
                    version.resource,
                    explanation(verdict.candidates),
                    time.monotonic() - started,
                )
            if verdict.chosen and version.phase is Phase.AVAILABLE:
                try:
                    await self._switch(version, self._verdicts.choice(version, verdict))
                except ModelhostError as error:
                    logger.warning("%s stays on tensorflow: %s", version.resource, error.message)
                    verdict = failed(verdict, f"it could not be loaded: {error.message}")
                    self._verdicts.remember(version, concurrency, verdict)
            self._store.set_tuning(version, Tuning.DONE, verdict.candidates)

    async def _try(
        self, engines: Sequence[str], version: Version, concurrency: Concurrency, urgent: bool
    ) -> list[Candidate]:
        """What comes of each engine; outcome SLOWER for all that are right, whatever their speed."""
        async with self._workshop(version) as work:
            try:
                if not all(self._verdicts.artifact(version, engine).is_dir() for engine in engines):
                    await self._freeze(version, work, urgent)
            except ConverterFault:
                raise
            except ModelhostError as error:
                # What cannot be frozen can be converted for no engine.
                return [Candidate(engine, Outcome.REFUSED, error.message) for engine in engines]
            return [await self._try_one(engine, version, concurrency, work, urgent) for engine in engines]

    async def _try_one(
        self, engine: str, version: Version, concurrency: Concurrency, work: Path, urgent: bool
    ) -> Candidate:
        artifact = self._verdicts.artifact(version, engine)
        judging = {
            "path": version.path, "tags": version.options.tags, "digest": version.digest,
            "artifact": str(artifact), "intra_op_threads": concurrency.threads,
            # Where somebody waits, speed decides nothing.
            "lanes": 1 if urgent else concurrency.lanes, "alone_threads": concurrency.alone_threads,
            "tolerance": version.options.tolerance,
            "samples": version.samples_file or None,
            "time_seconds": _URGENT_TIMING_SECONDS if urgent else _TIMING_SECONDS,
        }  # fmt: skip
        try:
            if not artifact.is_dir():
                await self._convert(engine, version, work, urgent)
            return judged(
                engine, await self._converting.run("judge", judging, _JUDGE_SECONDS, urgent), concurrency.alone_threads
            )
        except ConverterFault:
            raise
        except ModelhostError as error:
            return Candidate(engine, Outcome.REFUSED, error.message)

    @asynccontextmanager
    async def _workshop(self, version: Version) -> AsyncIterator[Path]:
        """A directory for what is made on the way, beside where the result is to be."""
        folder = self._verdicts.folder(version)
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        work = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=folder, prefix="work-"))
        try:
            yield work
        finally:
            await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)

    async def _freeze(self, version: Version, work: Path, urgent: bool) -> None:
        target = work / "frozen"
        target.mkdir()
        job = {"path": version.path, "tags": version.options.tags, "target": str(target)}
        await self._converting.run("freeze", job, _FREEZE_SECONDS, urgent)

    async def _convert(self, engine: str, version: Version, work: Path, urgent: bool) -> None:
        made, artifact = work / engine, self._verdicts.artifact(version, engine)
        made.mkdir()
        job = {"frozen": str(work / "frozen"), "target": str(made)}
        await self._converting.run(engine, job, _CONVERT_SECONDS, urgent)
        # Complete or not at all; somebody who was faster made the same.
        if not artifact.is_dir():
            os.replace(made, artifact)

    # When it went wrong

    def note_failure(self, version: Version, concurrency: Concurrency, why: str) -> None:
        """Remembers that the engine of a version failed while it served; TensorFlow has taken over."""
        logger.warning("%s is served by tensorflow again: %s", version.resource, why)
        verdict = failed(Verdict(version.candidates), why)
        self._verdicts.remember(version, concurrency, verdict, version.options.engine)
        self._store.set_tuning(version, version.tuning, verdict.candidates)


def own_engine(path: str) -> str:
    """The engine that a source can be run by only; "" for SavedModels, which are tensorflow's and can be converted."""
    if path.endswith(".tflite"):
        return "litert"
    # What an artifact says of itself is the worker's to read: the one kind there is without a SavedModel is quantized.
    return "litert" if os.path.isfile(os.path.join(path, "artifact.json")) else ""
