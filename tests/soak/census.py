"""What a server and its processes hold."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from modelhost_server.memory import measure
from support.server import ServerProcess

_SETTLE_SECONDS = 120.0
# Longer than what waits for idleness before it gives memory back (`workers.link`, `hosting`).
QUIET_SECONDS = 10.0
_BETWEEN_SECONDS = 1.0
_SHARED = ("/memfd:", "/dev/shm/")

Census = dict[str, float]


def census(server: ServerProcess, folders: dict[str, Path]) -> Census:
    """Counts, and megabytes; `folders` are those whose files count, by what they are called."""
    main = psutil.Process(server.process.pid)
    templates = main.children()
    workers = [worker for template in templates for worker in template.children()]
    found: Counter[str] = Counter()
    segments: set[tuple[int, int]] = set()
    for group, processes in (("server", [main]), ("templates", templates), ("workers", workers)):
        for process in processes:
            memory = measure(process.pid)
            found[f"{group}: private MB"] += memory["private"]
            # Of what is shared with others, how much is whose changes with what those do; together it is all of it.
            found["all: PSS MB"] += memory["pss"]
            found[f"{group}: descriptors"] += process.num_fds()
            found[f"{group}: threads"] += process.num_threads()
            segments.update(_segments(process.pid))
        found[f"{group}: processes"] = len(processes)
    found["shared-memory segments"] = len(segments)
    for name, folder in folders.items():
        found[f"files: {name}"] = sum(1 for _ in _files(folder))
    return {name: value / 1e6 if name.endswith(" MB") else value for name, value in found.items()}


def _segments(pid: int) -> Iterator[tuple[int, int]]:
    """Memory that a process shares: by descriptor or mapped, wherever it has a name."""
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(entry.path).startswith(_SHARED):
                found = os.stat(entry.path)
                yield found.st_dev, found.st_ino
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        fields = line.split(None, 5)
        if len(fields) == 6 and fields[5].startswith(_SHARED):
            major, minor = fields[3].split(":")
            yield os.makedev(int(major, 16), int(minor, 16)), int(fields[4])


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        # Others' temporary files may go at any time.
        with contextlib.suppress(OSError):
            if not path.is_dir():
                yield path


def settled(count: Callable[[], Census], quiet_seconds: float = QUIET_SECONDS) -> Census:
    """A census of a server that has been left alone for a while, and does not change any more."""
    time.sleep(quiet_seconds)
    end = time.monotonic() + _SETTLE_SECONDS
    before = count()
    while time.monotonic() < end:
        time.sleep(_BETWEEN_SECONDS)
        now = count()
        if all(abs(now[name] - before[name]) <= 0.001 * before[name] for name in now):
            return now
        before = now
    return before
