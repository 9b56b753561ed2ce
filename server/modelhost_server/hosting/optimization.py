"""Makes a new, smaller or faster version of a model, and says what it is worth."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelhostError, Reason, brief
from ..samples import Sample, keep_samples
from ..sources.disk import publish
from ..store.operations import LoadRequest
from ..store.phases import SERVED
from ..store.records import LoadOptions, Version
from ..store.resolve import find_version, not_available
from .cleaning import MODELS, SAMPLES, WORK
from .host import Host
from .tuning import own_engine
from .verdicts import TENSORFLOW

PRUNE = "prune"
# Of the original's time; less is a gain that noise does not explain.
_NO_FASTER = 0.9
_MAKE_SECONDS = 1800.0
_COMPARE_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class OptimizeRequest:
    """What to make of which version; named as in `modelhost.v1.OptimizeModelRequest`."""

    scope: str
    model: str
    version: int
    label: str
    method: str
    sparsity: float
    samples: tuple[Sample, ...]
    samples_file: str
    true_classes: tuple[int, ...]
    new_version: int
    new_labels: tuple[str, ...]
    request_id: str

    @property
    def derivation(self) -> str:
        """The method in words."""
        return f"{self.method} {self.sparsity:.0%}" if self.method == PRUNE else self.method


@dataclass(frozen=True, slots=True)
class Stage:
    """Where an optimization stands; named as in `modelhost.v1.OptimizationStage`."""

    name: str
    fraction: float


@dataclass(frozen=True, slots=True)
class Report:
    """The new version and the one it was made from, what the converter found when it compared them, and remarks."""

    version: Version
    original: Version
    comparison: dict[str, Any]
    remarks: Sequence[str]


class Optimizer:
    """Runs optimizations."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def optimize(self, request: OptimizeRequest) -> AsyncIterator[Stage | Report]:
        """Makes and loads the new version; tells the stages, then the report.

        Raises:
            ModelhostError: the version cannot be found, converted by this method, or loaded.
        """
        self._host.draining.check_accepting()
        original = self._find(request)
        if request.samples_file:
            await asyncio.to_thread(self._host.sources.roots.check, request.samples_file)
        await self._host.learn(original)
        threads = self._host.store.scope(original.scope).config.intra_op_threads
        samples = {
            "samples": keep_samples(self._host.cache_dir / SAMPLES, request.samples) or None,
            "samples_file": request.samples_file or None,
            "true_classes": list(request.true_classes) or None,
        }
        yield Stage("WAITING", 0.0)
        folder = self._host.files_dir / MODELS
        folder.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=folder, prefix=WORK))
        try:
            yield Stage("CONVERTING", 0.05)
            remarks = await self._make(request, original, work, threads, samples)
            # The same of the same content is the same; whoever asked first made it.
            target = folder / self._name(request, original, samples)
            await asyncio.to_thread(publish, work, target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        yield Stage("COMPARING", 0.5)
        # With the original as it is served; a pruned model with what it was pruned from, on the same engine.
        served = original.choice if original.choice and request.method != PRUNE else TENSORFLOW
        engine = "tensorflow" if request.method == PRUNE else "litert"
        comparison = await self._host.converting.run(
            "compare",
            {
                "original": _side(original, served.artifact or original.path, served.engine),
                "optimized": _side(original, str(target), engine),
                "intra_op_threads": threads,
                **samples,
            },
            _COMPARE_SECONDS,
            urgent=True,
        )
        comparison["original"]["engine"], comparison["optimized"]["engine"] = served.engine, engine
        yield Stage("LOADING", 0.9)
        load = LoadRequest(
            original.scope, original.model, request.new_version, str(target),
            LoadOptions(
                tags=original.options.tags, tolerance=original.options.tolerance, batching=original.options.batching
            ),
            labels=request.new_labels, keep_older=True, request_id=request.request_id,
            derived_from=original.number, derivation=request.derivation,
        )  # fmt: skip
        version = await self._host.load(load, wait=True)
        yield Report(version, original, comparison, [*remarks, *_remarks(request, comparison)])

    def _find(self, request: OptimizeRequest) -> Version:
        model = self._host.store.model(request.scope, request.model)
        if request.version or request.label:
            found = find_version(model, request.version, request.label)
        elif model.serving is not None:
            found = model.serving
        else:
            found = model.newest_first()[0]
        if found.phase not in SERVED:
            raise not_available(found)
        return found

    async def _make(
        self, request: OptimizeRequest, original: Version, target: Path, threads: int, samples: dict[str, Any]
    ) -> Sequence[str]:
        """Makes the new model in `target`; remarks on it."""
        if request.method == PRUNE:
            if own_engine(original.path):
                raise ModelhostError(
                    Reason.UNSUPPORTED, "method: only a SavedModel can be pruned; this version is a LiteRT file",
                    field="method",
                )  # fmt: skip
            job = {"path": original.path, "tags": original.options.tags, "sparsity": request.sparsity}
        else:
            artifact = await self._host.tuner.litert_artifact(original)
            job = {"artifact": artifact, "method": request.method, "intra_op_threads": threads, **samples}
        stage = PRUNE if request.method == PRUNE else "quantize"
        made = await self._host.converting.run(stage, {**job, "target": str(target)}, _MAKE_SECONDS, urgent=True)
        remarks: list[str] = made.get("remarks", [])
        return remarks

    @staticmethod
    def _name(request: OptimizeRequest, original: Version, samples: dict[str, Any]) -> str:
        """The directory of what is made, named by what it is made from."""
        parts = [original.digest, request.method, str(request.sparsity), *map(str, samples.values())]
        if request.samples_file:
            # Its content may have changed since.
            parts.append(str(_changed(request.samples_file)))
        return f"{request.method}-{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:24]}"


def _changed(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError as error:
        raise ModelhostError(
            Reason.SOURCE_NOT_FOUND, f"samples_file: {brief(path, 200)} cannot be read: {error.strerror}",
            field="samples_file",
        ) from None  # fmt: skip


def _side(version: Version, path: str, engine: str) -> dict[str, Any]:
    return {"path": path, "tags": version.options.tags, "engine": engine}


def _remarks(request: OptimizeRequest, comparison: dict[str, Any]) -> list[str]:
    """What the figures mean, where that is easily overlooked."""
    before, after = comparison["original"], comparison["optimized"]
    remarks = []
    if request.method == PRUNE:
        remarks.append("Pruning gains neither speed nor memory: only what is compressed becomes smaller.")
    elif after["latency_ns"] > _NO_FASTER * before["latency_ns"]:
        remarks.append(f"It is not faster than the original is on {before['engine']} on this machine.")
    if after["private_bytes"] > before["private_bytes"]:
        remarks.append("It takes no less memory than the original.")
    if comparison["examples_made_up"]:
        remarks.append("Compared on made-up inputs, which says little about real ones: give samples.")
    return remarks
