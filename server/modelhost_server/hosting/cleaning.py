"""Keeps the cache within its bounds: what was not used for the longest time goes first."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from ..sources.sources import FETCHED, RUNNING

logger = logging.getLogger(__name__)

# Models that were made on request, which are not to be had again by reading their source; those that came in requests;
# and the warm-up requests that came with loads.
FILES = MODELS, OVERRIDES, SAMPLES = "models", "overrides", "samples"
# How the names of directories begin in which models are being made.
WORK = "work-"
# Entries of these directories belong together and go as one; elsewhere every file is by itself.
_WHOLE = ("converted", "engines", OVERRIDES, FETCHED)
# What somebody may be making at this moment is left alone.
_YOUNG_SECONDS = 600.0
_EVERY_SECONDS = 60.0
_APART = (MODELS, RUNNING)


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    size: int
    used: float


class Cleaner:
    """Removes what is too much from the cache directory.

    Args:
        cache_dir: all of it is ours.
        limit: in bytes.
        in_use: paths below which nothing may be removed.
        data_dir: where samples are kept besides, if they are.
    """

    def __init__(
        self, cache_dir: Path, limit: int, in_use: Callable[[], Collection[str]], data_dir: Path | None = None
    ) -> None:
        self._cache_dir = cache_dir
        self._limit = limit
        self._in_use = in_use
        self._data_dir = data_dir
        self._last = float("-inf")

    async def clean(self) -> None:
        """Cleans, unless that was done a moment ago."""
        now = time.monotonic()
        if now - self._last >= _EVERY_SECONDS:
            self._last = now
            before = time.time() - _YOUNG_SECONDS
            await asyncio.to_thread(clean, self._cache_dir, self._limit, self._in_use(), before)
            if self._data_dir is not None:
                await asyncio.to_thread(remove_unused, self._data_dir / SAMPLES, self._in_use(), before)


def clean(cache_dir: Path, limit: int, in_use: Collection[str], before: float) -> int:
    """Removes entries last used before a time until the rest is within the limit; the bytes removed."""
    folders = [folder for folder in sorted(cache_dir.glob("*")) if folder.name not in _APART]
    entries = [entry for folder in folders for entry in _entries(folder)]
    excess = sum(entry.size for entry in entries) - limit
    removed = 0
    for entry in sorted(entries, key=lambda entry: entry.used):
        if removed >= excess or entry.used >= before:
            break
        if any(Path(used).is_relative_to(entry.path) for used in in_use):
            continue
        _remove(entry.path)
        removed += entry.size
    if removed:
        logger.info("the cache was over its limit: removed %d MB", removed >> 20)
    return removed


def remove_unused(folder: Path, in_use: Collection[str], before: float) -> None:
    """Removes what is directly in a folder of the data directory, older than a time, and used by no version."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.stat().st_mtime < before and not any(Path(used).is_relative_to(entry) for used in in_use):
            _remove(entry)


def _remove(path: Path) -> None:
    # A file that is mapped stays in memory for those who have it.
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _entries(folder: Path) -> list[_Entry]:
    if folder.name in _WHOLE and folder.is_dir():
        return [_measured(path, [file for file in path.rglob("*") if file.is_file()]) for path in folder.iterdir()]
    return [_measured(file, [file]) for file in folder.rglob("*") if file.is_file()]


def _measured(path: Path, files: Collection[Path]) -> _Entry:
    size, used = 0, 0.0
    for file in files:
        try:
            status = file.stat()
        except OSError:
            continue
        size += status.st_size
        used = max(used, status.st_mtime)
    return _Entry(path, size, used)
