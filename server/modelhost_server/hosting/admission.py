"""Whether there is memory for a version. `check` is a pure function of what was measured."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ModelhostError, Reason
from ..store.names import version_resource
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


def check(name: str, limit: int, used: int, needed: int, versions: Collection[Version], now: float) -> None:
    """Refuses what does not fit.

    Args:
        name: of what is limited.
        limit: in bytes.
        used: bytes in use and reserved.
        needed: bytes that the version will take.
        versions: those that are loaded.
        now: time in seconds.

    Raises:
        ModelhostError: MEMORY_LIMIT, saying how much is needed, how much there is, and what could be unloaded.
    """
    free = max(0, limit - used)
    if needed <= free:
        return
    idle = [v for v in versions if v.loaded is not None and v.phase is Phase.AVAILABLE and not v.handles]
    idle.sort(key=lambda v: v.statistics.last_used)
    could = "; ".join(_described(v, now) for v in idle[:_MAX_NAMED])
    what = f"idle, and could be unloaded: {could}" if could else "nothing there is idle"
    raise ModelhostError(
        Reason.MEMORY_LIMIT,
        f"{name}: about {_mb(needed)} needed, {_mb(free)} free of {_mb(limit)} (memory_limit_bytes); {what}",
        needed_bytes=needed,
        free_bytes=free,
        limit_bytes=limit,
    )


def _described(version: Version, now: float) -> str:
    assert version.loaded is not None
    used = version.statistics.last_used or version.available_since
    resource = version_resource(version.scope, version.model, version.number)
    return f"{resource} ({_mb(version.loaded.private_bytes)}, unused for {max(0.0, now - used):.0f} s)"


def _mb(count: int) -> str:
    return f"{count / _MB:.0f} MB"


@dataclass(slots=True)
class Estimates:
    """What versions will take: what the same content took before on the same engine, else what its size says."""

    cache_dir: Path
    _known: dict[tuple[str, str], int] = field(default_factory=dict)

    async def of(self, version: Version, choice: EngineChoice) -> int:
        """Private bytes that a version will take on an engine."""
        known = self._known.get((version.digest, choice.engine))
        if known is None:
            known = await asyncio.to_thread(self._read, version.digest, choice.engine)
        if known is None:
            size = await asyncio.to_thread(_weights_bytes, choice.artifact or version.path)
            known = int(size * _RATIO.get(choice.engine, 1.5))
        return max(known, _LEAST_BYTES)

    async def learn(self, version: Version, engine: str, private_bytes: int) -> None:
        """Remembers what a version took, unless that is no more than is reckoned with anyway."""
        if private_bytes <= _LEAST_BYTES:
            return
        if self._known.get((version.digest, engine), 0) < private_bytes:
            self._known[version.digest, engine] = private_bytes
            await asyncio.to_thread(self._write, version.digest, engine, private_bytes)

    def _file(self, digest: str, engine: str) -> Path:
        return self.cache_dir / "engines" / digest / f"memory-{engine}.json"

    def _read(self, digest: str, engine: str) -> int | None:
        try:
            return int(json.loads(self._file(digest, engine).read_text()))
        except (OSError, ValueError):
            return None

    def _write(self, digest: str, engine: str, private_bytes: int) -> None:
        file = self._file(digest, engine)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(private_bytes))
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
    async def reserve(self, version: Version, choice: EngineChoice, budgets: Sequence[Budget]) -> AsyncIterator[None]:
        """Reserves memory for a load, which goes on inside.

        Raises:
            ModelhostError: MEMORY_LIMIT.
        """
        limited = [budget for budget in budgets if budget.limit()]
        needed = await self._estimates.of(version, choice) if limited else 0
        async with self._lock:
            for budget in limited:
                used = await budget.measure() + budget.reserved
                check(budget.name, budget.limit(), used, needed, budget.versions(), time.time())
            for budget in limited:
                budget.reserved += needed
        try:
            yield
        finally:
            for budget in limited:
                budget.reserved -= needed

    async def confirm(self, version: Version, engine: str, private_bytes: int, budgets: Sequence[Budget]) -> None:
        """Remembers what a version took, and checks that the limits were kept.

        Raises:
            ModelhostError: MEMORY_LIMIT.
        """
        await self._estimates.learn(version, engine, private_bytes)
        for budget in budgets:
            if limit := budget.limit():
                others = [v for v in budget.versions() if v is not version]
                used = await budget.measure() + budget.reserved - private_bytes
                check(budget.name, limit, used, private_bytes, others, time.time())
