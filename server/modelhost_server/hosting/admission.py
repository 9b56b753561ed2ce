"""Whether there is memory for a version. `check` is a pure function of what was measured."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..cached import read_cached_json
from ..errors import ModelhostError, Reason
from ..store.phases import Phase
from ..store.records import EngineChoice, Version

_MB = 1 << 20
# Private memory of a loaded version over its size on disk, where nothing was measured yet; and what the smallest takes.
_RATIO = {"tensorflow": 1.3, "litert": 1.7, "openvino": 1.6}
_LEAST_BYTES = 4 * _MB
_MAX_NAMED = 5


@dataclass(slots=True)
class Budget:
    """A limit and who is under it: a scope's workers, or all workers of the server. A limit of 0 is none."""

    name: str
    limit: Callable[[], int]
    measure: Callable[[], Awaitable[int]]
    versions: Callable[[], Collection[Version]]
    # For loads under way, of which not all is in what is measured.
    reserved: int = 0


def tightest(budgets: Collection[Budget]) -> int:
    """The smallest of their limits, in bytes; 0 where none has one."""
    return min((limit for budget in budgets if (limit := budget.limit())), default=0)


class NoMemoryError(ModelhostError):
    """MEMORY_LIMIT: more memory is needed than there is.

    Attributes:
        needed: how many bytes, in all.
        budget: that has not as many left.
    """

    needed: int
    budget: Budget


def check(name: str, limit: int, used: int, needed: int, versions: Collection[Version], scope: str, now: float) -> None:
    """Refuses what does not fit.

    Args:
        name: of what is limited.
        limit: in bytes.
        used: bytes in use and reserved.
        needed: bytes that the version will take.
        versions: those that are loaded.
        scope: of who is told; what is in others has no name for it.
        now: time in seconds.

    Raises:
        NoMemoryError: saying how much is needed, how much there is, and what could be unloaded.
    """
    free = max(0, limit - used)
    if needed <= free:
        return
    idle = [v for v in versions if v.loaded is not None and v.phase is Phase.AVAILABLE and not v.handles]
    idle.sort(key=lambda v: v.statistics.last_used)
    could = "; ".join(_described(v, now) for v in [v for v in idle if v.scope == scope][:_MAX_NAMED])
    if elsewhere := sum(v.loaded.private_bytes for v in idle if v.loaded is not None and v.scope != scope):
        could = "; ".join([*([could] if could else []), f"{_mb(elsewhere)} in other scopes"])
    what = f"idle, and could be unloaded: {could}" if could else "nothing there is idle"
    error = NoMemoryError(
        Reason.MEMORY_LIMIT,
        f"{name}: about {_mb(needed)} needed, {_mb(free)} free of {_mb(limit)} (memory_limit_bytes); {what}",
        needed_bytes=needed,
        free_bytes=free,
        limit_bytes=limit,
    )
    error.needed = needed
    raise error


def _check(budget: Budget, used: int, needed: int, versions: Collection[Version], scope: str) -> None:
    try:
        check(budget.name, budget.limit(), used, needed, versions, scope, time.time())
    except NoMemoryError as error:
        error.budget = budget
        raise


def _described(version: Version, now: float) -> str:
    assert version.loaded is not None
    used = version.statistics.last_used or version.available_since
    resource = version.resource
    return f"{resource} ({_mb(version.loaded.private_bytes)}, unused for {max(0.0, now - used):.0f} s)"


def _mb(count: int) -> str:
    return f"{count / _MB:.0f} MB"


class Footprint(NamedTuple):
    """What a version takes in one worker, in bytes; of that, the anonymous bytes are no file's, and so are taken again
    by each further worker, while the rest is mapped and there once. For one that was the first in its worker it is with
    what the engine itself takes.
    """

    private: int
    anonymous: int
    with_engine: bool = False

    def in_workers(self, count: int) -> int:
        """What it takes in this many workers."""
        return self.private + (count - 1) * self.anonymous


@dataclass(slots=True)
class Estimates:
    """What versions will take: what the same content took before on the same engine, else what its size says."""

    cache_dir: Path
    _known: dict[tuple[str, str], Footprint] = field(default_factory=dict)

    async def of(self, version: Version, choice: EngineChoice) -> Footprint:
        """What a version will take on an engine."""
        known = await self._known_of(version.digest, choice.engine)
        if known is None or known.with_engine:
            size = int(await asyncio.to_thread(_weights_bytes, choice.artifact or version.path))
            likely = int(size * _RATIO.get(choice.engine, 1.5))
            known = min(known or Footprint(likely, likely), Footprint(likely, likely))
        return Footprint(max(known.private, _LEAST_BYTES), max(known.anonymous, _LEAST_BYTES))

    async def learn(self, version: Version, engine: str, taken: Footprint) -> None:
        """Remembers what a version took, unless better is known; beyond this server's life what is worth a file."""
        known = await self._known_of(version.digest, engine)
        if taken == known or (taken.with_engine and known is not None):
            return
        self._known[version.digest, engine] = taken
        if known is not None or taken.private > _LEAST_BYTES:
            await asyncio.to_thread(self._write, version.digest, engine, taken)

    async def _known_of(self, digest: str, engine: str) -> Footprint | None:
        known = self._known.get((digest, engine))
        return known if known is not None else await asyncio.to_thread(self._read, digest, engine)

    def _file(self, digest: str, engine: str) -> Path:
        return self.cache_dir / "engines" / digest / f"memory-{engine}.json"

    def _read(self, digest: str, engine: str) -> Footprint | None:
        try:
            private, anonymous, *rest = read_cached_json(self._file(digest, engine))
            return Footprint(int(private), int(anonymous), bool(rest and rest[0]))
        except (OSError, ValueError, TypeError, OverflowError):
            return None

    def _write(self, digest: str, engine: str, taken: Footprint) -> None:
        file = self._file(digest, engine)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(taken))
        except OSError:
            # It will be measured again.
            return


def _weights_bytes(path: str) -> int:
    """Size of what holds the weights: the variables of a SavedModel, else all there is."""
    root = Path(path)
    if root.is_file():
        return root.stat().st_size
    folder = root / "variables"
    files = (file for file in (folder if folder.is_dir() else root).rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files)


class Admission:
    """Lets loads in while there is memory for them."""

    def __init__(self, cache_dir: Path) -> None:
        self._estimates = Estimates(cache_dir)
        # Two loads must not both count on the same free memory.
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def reserve(
        self, version: Version, choice: EngineChoice, workers: int, budgets: Sequence[Budget]
    ) -> AsyncIterator[None]:
        """Reserves memory for a load into this many workers, which goes on inside.

        Raises:
            NoMemoryError: MEMORY_LIMIT.
        """
        limited = [budget for budget in budgets if budget.limit()]
        needed = (await self._estimates.of(version, choice)).in_workers(workers) if limited else 0
        async with self._reserved(needed, limited, version.scope):
            yield

    @asynccontextmanager
    async def reserve_again(
        self, held: Sequence[tuple[Version, EngineChoice]], budgets: Sequence[Budget]
    ) -> AsyncIterator[None]:
        """Reserves memory for one worker more that is to hold what others hold; it loads inside.

        Raises:
            NoMemoryError: MEMORY_LIMIT.
        """
        limited = [budget for budget in budgets if budget.limit()]
        needed = sum([(await self._estimates.of(*one)).anonymous for one in held]) if limited else 0
        async with self._reserved(needed, limited, held[0][0].scope if held else ""):
            yield

    @asynccontextmanager
    async def _reserved(self, needed: int, limited: Sequence[Budget], scope: str) -> AsyncIterator[None]:
        async with self._lock:
            for budget in limited:
                used = await budget.measure() + budget.reserved
                _check(budget, used, needed, budget.versions(), scope)
            for budget in limited:
                budget.reserved += needed
        try:
            yield
        finally:
            for budget in limited:
                budget.reserved -= needed

    async def confirm(
        self, version: Version, engine: str, taken: Footprint, workers: int, budgets: Sequence[Budget],
        is_exact: bool = True,
    ) -> None:  # fmt: skip
        """Checks that the limits were kept, and remembers what a version took in each of its workers, where that is
        exact: what others took at the same time might never be found free again.

        Raises:
            NoMemoryError: MEMORY_LIMIT.
        """
        if is_exact:
            await self._estimates.learn(version, engine, taken)
        needed = taken.in_workers(workers)
        for budget in budgets:
            if budget.limit():
                others = [v for v in budget.versions() if v is not version]
                used = await budget.measure()
                # A library that others use, too, is in what was taken, and not in what is measured.
                own = min(needed, used)
                _check(budget, used - own + budget.reserved, own, others, version.scope)
