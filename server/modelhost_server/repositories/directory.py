"""Looks at directories: which versions they have, and whether one is there as a whole. Called on threads."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from stat import S_ISREG

_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt", "artifact.json")
_INDEX = "variables/variables.index"
_SHARD_NAME = "variables/variables.data-{:05d}-of-{}"
_SHARD = re.compile(r"variables/variables\.data-\d{5}-of-(\d{5})")
# A shard's name promises the others; a name that promises more than this is no shard's.
_MOST_SHARDS = 10_000

# Each file with what changes when it does: copies that keep a file's modification time do not keep its ctime.
Fingerprint = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Look:
    """A version's directory as it was at one moment.

    Attributes:
        fingerprint: differs when anything in it differs.
        changed: when anything in it changed last, in seconds since 1970.
        missing: what is not there, although other files say that it belongs there; "" for nothing.
    """

    fingerprint: Fingerprint
    changed: float
    missing: str

    def is_whole(self, previous: Look | None, now: float, wait: float) -> bool:
        """Whether all is there and nobody is writing: it is as it was at the look before, or has not changed for long.

        Args:
            previous: the look before this one.
            now: seconds since 1970.
            wait: the time between two looks, in seconds.
        """
        return self.is_quiet(previous, now, wait) and not self.missing

    def is_quiet(self, previous: Look | None, now: float, wait: float) -> bool:
        """Whether nobody is writing, by the same signs."""
        return now - self.changed > wait or (previous is not None and previous.fingerprint == self.fingerprint)


def version_paths(base_path: str) -> dict[int, str]:
    """The directories below a base path whose names are versions' numbers.

    Raises:
        OSError: the base path is not there, or cannot be read.
    """
    with os.scandir(base_path) as entries:
        names = sorted(e.name for e in entries if e.name.isascii() and e.name.isdecimal() and _is_directory(e))
    # 0 is no version here; where two names are one number, the last counts.
    return {int(name): os.path.join(base_path, name) for name in names if 0 < int(name) < 2**63}


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link in a circle, or to where we may not look: no reason to miss the others.
        return False


def look(path: str) -> Look:
    """Looks at a version's directory."""
    fingerprint: list[tuple[str, int, int, int]] = []
    newest = 0
    for directory, _, files in os.walk(path):
        for name in ("", *files):
            full = os.path.join(directory, name)
            try:
                found = os.stat(full)
            except OSError:
                # A link to nothing, or gone since: the next look tells which.
                continue
            newest = max(newest, found.st_ctime_ns)
            # A directory's own size and time say only what the names in it say, too.
            if name and S_ISREG(found.st_mode):
                relative = os.path.relpath(full, path)
                fingerprint.append((relative, found.st_ino, found.st_size, found.st_ctime_ns))
    fingerprint.sort()
    return Look(tuple(fingerprint), newest / 1e9, missing({relative for relative, *_ in fingerprint}))


def look_at_versions(base_path: str, known: Mapping[int, str]) -> dict[int, tuple[str, Look | None]]:
    """The versions below a base path: where each is and how it looks; None for one that is known to be there.

    Raises:
        OSError: the base path is not there, or cannot be read.
    """
    paths = version_paths(base_path)
    return {n: (path, None if known.get(n) == path else look(path)) for n, path in paths.items()}


def missing(files: set[str]) -> str:
    """What a version's directory lacks, given the files it has; "" for nothing."""
    if not any(name in files for name in _MODEL_FILES):
        return "saved_model.pb"
    shards = [match for match in map(_SHARD.fullmatch, files) if match]
    if _INDEX in files and not shards:
        return _SHARD_NAME.format(0, "?????")
    if shards and _INDEX not in files:
        return _INDEX
    for count in sorted({match[1] for match in shards if int(match[1]) <= _MOST_SHARDS}):
        for number in range(int(count)):
            name = _SHARD_NAME.format(number, count)
            if name not in files:
                return name
    return ""
