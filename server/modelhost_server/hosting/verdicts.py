"""What was found out about engines for a model's content, kept on disk for the next load of the same."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from ..cached import read_cached_json
from ..store.records import Candidate, EngineChoice, Outcome, Version

# Raised when the converter or the way it judges changes, so that old findings are not believed.
_REVISION = 3
_PACKAGES = ("tensorflow-cpu", "tensorflow", "ai-edge-litert", "openvino")
TENSORFLOW = EngineChoice("tensorflow")
_ENGINES = ("tensorflow", "litert", "openvino")


def needs_tensorflow(choice: EngineChoice | None) -> bool:
    """Whether a worker opens TensorFlow for this."""
    return choice is not None and choice.engine == TENSORFLOW.engine


class Concurrency(NamedTuple):
    """What of a scope decides how fast an engine is: the threads of an operation, the calls side by side, and the
    threads of an operation when a call comes alone.
    """

    threads: int
    lanes: int
    alone_threads: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The engines that were tried."""

    candidates: tuple[Candidate, ...]

    @property
    def chosen(self) -> Candidate | None:
        """The one that serves; None when TensorFlow does."""
        return next((c for c in self.candidates if c.outcome is Outcome.CHOSEN), None)


class Verdicts:
    """Verdicts and artifacts, below a directory for each content."""

    def __init__(self, cache_dir: Path) -> None:
        self._folder = cache_dir / "engines"

    def folder(self, candidate: Version) -> Path:
        """The directory of a version's content."""
        return self._folder / candidate.digest

    def artifact(self, candidate: Version, engine: str) -> Path:
        """Where the artifact of a version for an engine is, or is to be."""
        return self.folder(candidate) / f"{engine}-{_fingerprint(candidate.options.tags)}"

    def choice(self, candidate: Version, verdict: Verdict) -> EngineChoice:
        """What a verdict means for a load."""
        chosen = verdict.chosen
        if chosen is None:
            return TENSORFLOW
        return EngineChoice(chosen.engine, str(self.artifact(candidate, chosen.engine)), chosen.alone_threads)

    def recall(self, candidate: Version, concurrency: Concurrency, only: str = "") -> Verdict | None:
        """What was found out (of `only` one engine), if it was and what it needs is still there."""
        file = self._file(candidate, concurrency, only)
        try:
            verdict = Verdict(tuple(_candidate(item) for item in read_cached_json(file)))
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return None
        if verdict.chosen and not self.artifact(candidate, verdict.chosen.engine).is_dir():
            return None
        os.utime(file)
        return verdict

    def remember(self, candidate: Version, concurrency: Concurrency, verdict: Verdict, only: str = "") -> None:
        """Keeps what was found out (of `only` one engine)."""
        file = self._file(candidate, concurrency, only)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps([_json(c) for c in verdict.candidates]))
        partial.replace(file)

    def _file(self, candidate: Version, concurrency: Concurrency, only: str) -> Path:
        options = candidate.options
        # The file of samples is named by its content.
        samples = Path(candidate.samples_file).name
        parts = (*options.tags, str(options.tolerance), *map(str, concurrency), samples, only, _processor())
        return self.folder(candidate) / f"verdict-{_fingerprint(parts)}.json"


@cache
def _tools() -> str:
    found = [str(_REVISION)]
    for package in _PACKAGES:
        try:
            found.append(f"{package}={version(package)}")
        except PackageNotFoundError:
            continue
    return " ".join(found)


@cache
def _processor() -> str:
    """What of the processor decides which code engines run."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _fingerprint(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join((_tools(), *parts)).encode()).hexdigest()[:16]


def _json(candidate: Candidate) -> dict[str, object]:
    return {
        "engine": candidate.engine,
        "outcome": candidate.outcome.value,
        "reason": candidate.reason,
        "speedup": candidate.speedup,
        "side_by_side_speedup": candidate.side_by_side_speedup,
        "max_relative_difference": candidate.max_relative_difference,
        "timings": candidate.timings,
        "alone_threads": candidate.alone_threads,
    }


def _candidate(item: dict[str, Any]) -> Candidate:
    if item["engine"] not in _ENGINES:
        raise ValueError("expected an engine")
    return Candidate(
        item["engine"],
        Outcome(item["outcome"]),
        str(item["reason"]),
        float(str(item["speedup"])),
        float(str(item["side_by_side_speedup"])),
        float(str(item["max_relative_difference"])),
        tuple((int(batch), int(ours), int(theirs)) for batch, ours, theirs in item["timings"]),
        int(str(item["alone_threads"])),
    )
