"""Models in modelhost, for comparing engines: each in a scope of its own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

import modelhost

SEARCH_SECONDS = 1800.0
_POLL_SECONDS = 0.5


class Setting(NamedTuple):
    """How scopes are configured; what is not said is the server's default."""

    name: str
    options: dict[str, Any]
    callers: int
    threads: int


# Latency of one caller, with two threads for each operation; throughput as the server comes.
LATENCY = Setting("latency", {"intra_op_threads": 2, "max_in_flight": 1}, callers=1, threads=2)
THROUGHPUT = Setting("throughput", {}, callers=8, threads=0)


class Hosted(NamedTuple):
    """A version that was loaded, and how long that took.

    Attributes:
        first: the version when its load was answered.
        version: the version when its engine was the one that stays.
        seconds: until the first.
        found_seconds: until the second.
    """

    ref: str
    first: modelhost.VersionInfo
    version: modelhost.VersionInfo
    seconds: float
    found_seconds: float

    @property
    def engine(self) -> str:
        """What serves it."""
        return _engine(self.version).engine.lower()

    @property
    def first_engine(self) -> str:
        """What served it at first."""
        return _engine(self.first).engine.lower()

    @property
    def was_known(self) -> bool:
        """Whether it was on that engine from the first, with nothing to be found out."""
        return _engine(self.first).is_settled and self.first_engine == self.engine

    @property
    def reasons(self) -> list[str]:
        """What became of the engines that were tried."""
        return [
            f"{candidate.engine.lower()} {candidate.outcome.lower()}: {candidate.reason}"
            for candidate in _engine(self.version).candidates
        ]


def host(
    client: modelhost.Client, scope: str, setting: Setting, path: Path, engine: Literal["tensorflow"] | None
) -> Hosted:
    """Loads a model into a new scope, on an engine or on the one that the server chooses; waits until that is found."""
    client.create_scope(scope, **setting.options)
    ref = f"{scope}/model"
    started = time.monotonic()
    first = client.load(ref, path, engine=engine)
    seconds = time.monotonic() - started
    while not _engine(version := _served(client, ref)).is_settled:
        if time.monotonic() - started > SEARCH_SECONDS:
            raise RuntimeError(f"{ref}: no engine was found in {SEARCH_SECONDS:.0f} s")
        time.sleep(_POLL_SECONDS)
    return Hosted(ref, first, version, seconds, time.monotonic() - started)


def _served(client: modelhost.Client, ref: str) -> modelhost.VersionInfo:
    version = client.model(ref).served
    if version is None:
        raise RuntimeError(f"{ref} is not served")
    return version


def _engine(version: modelhost.VersionInfo) -> modelhost.EngineInfo:
    assert version.engine is not None
    return version.engine
