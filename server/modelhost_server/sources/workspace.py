"""A directory for as long as this process lives: whoever comes later removes what a process that has died left."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "process-"


class Workspace:
    """The directory. It is this process's for as long as a file in it is locked, which ends with the process.

    Args:
        parent: where other processes have theirs, too.
    """

    def __init__(self, parent: Path) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        # One at a time, or one would take another's for left behind before it is locked.
        with _locked(parent / "lock"):
            for other in parent.glob(f"{_PREFIX}*"):
                if _is_left(other):
                    shutil.rmtree(other, ignore_errors=True)
            self.folder = Path(tempfile.mkdtemp(dir=parent, prefix=_PREFIX))
            self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Removes it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


def _is_left(folder: Path) -> bool:
    try:
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
