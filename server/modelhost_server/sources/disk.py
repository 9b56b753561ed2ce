"""Files and directories that are there completely or not at all, and what is said when the disk will not have them."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ModelhostError, Reason

# What is left to everybody else on the disk: this, or a part of a small one.
_RESERVE_BYTES = 1 << 30
_RESERVE_PART = 0.05
_RETRY_SECONDS = 30.0
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def storing(what: str) -> Iterator[None]:
    """Within, an OSError is told as STORAGE_FAILED; `what` could not be written."""
    try:
        yield
    except OSError as error:
        raise storage_failed(what, error.strerror or type(error).__name__) from error


def storage_failed(what: str, why: str) -> ModelhostError:
    """The error of something that could not be written down."""
    return ModelhostError(
        Reason.STORAGE_FAILED, f"{what} could not be stored on the server: {why}; try again later",
        retry_after=_RETRY_SECONDS,
    )  # fmt: skip


def is_full(error: BaseException | None) -> bool:
    """Whether an error says that the disk is full."""
    return isinstance(error, OSError) and error.errno in _FULL


def check_room(folder: Path, what: str, size: int) -> None:
    """Raises ModelhostError, STORAGE_FAILED, unless the disk of `folder` has room for so many bytes and some more."""
    usage = shutil.disk_usage(folder)
    room = usage.free - min(_RESERVE_BYTES, int(usage.total * _RESERVE_PART))
    if size > room:
        raise storage_failed(what, f"it needs {size} bytes, and the disk has {max(0, room)} to spare")


def publish(folder: Path, target: Path) -> None:
    """Gives a directory its name, with all that is in it on the disk before; another of that name stays.

    Raises:
        OSError: the disk has no room; `folder` is as it was.
    """
    for place, _, names in os.walk(folder):
        for name in names:
            _sync(Path(place, name))
        _sync(Path(place))
    made = [parent for parent in target.parents if not parent.is_dir()]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        shutil.rmtree(folder)
    for parent in (target.parent, *(each.parent for each in made)):
        _sync(parent)


def detach(folder: Path, trash: Path) -> Path | None:
    """Takes a directory out of sight, at once; where it is to be removed from, in peace. None when there is none."""
    trash.mkdir(parents=True, exist_ok=True)
    hidden = trash / uuid.uuid4().hex
    try:
        folder.rename(hidden)
    except FileNotFoundError:
        return None
    return hidden


def size_of(folder: Path) -> int:
    """Bytes of the files below a directory."""
    return sum(Path(place, name).stat().st_size for place, _, names in os.walk(folder) for name in names)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
