"""Memory that callers on this machine share with the server: files in /dev/shm that they made.

A caller may do with its file what it likes at any time, so it is read and written, never mapped (see `FileRange`), and
it is opened with care: a plain name in one directory, no link, a regular file. A caller that has gone is known by the
lock that it held on its file.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import re
import stat
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from ..errors import ModelhostError, Reason, brief
from ..store.names import check_name
from ..store.pages import page
from ..tensors import FileRange

DIRECTORY = Path("/dev/shm")
# Files of our own clients.
PREFIX = "modelhost-"
_FILE_NAME = re.compile(rf"{PREFIX}[A-Za-z0-9._-]{{1,200}}", re.ASCII)
LIMIT = 256
_LOOK_SECONDS = 10.0


class Region:
    """A part of a caller's file. The file is closed when neither a registry nor a range has the region any more.

    Args:
        name: that callers gave it.
        path: of the file.
        byte_size: of the region.
        start: where in the file it begins.

    Raises:
        OSError: there is no such file, it is a link or no regular file, or it may not be written.
    """

    def __init__(self, name: str, path: Path, byte_size: int, start: int = 0) -> None:
        self.name = name
        self.byte_size = byte_size
        self.start = start
        # Not to wait, should it be a pipe.
        self.fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        weakref.finalize(self, os.close, self.fd)
        status = os.fstat(self.fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        self.file_size = status.st_size

    def is_held(self) -> bool:
        """Whether its caller still has the lock on it."""
        return _is_locked(self.fd)

    def range(self, offset: int, byte_size: int) -> FileRange:
        """A range that is within the region."""
        return _OpenRange(self, offset, byte_size)


class _OpenRange(FileRange):
    """A range of a region, which keeps its file open."""

    __slots__ = ("_region",)

    def __init__(self, region: Region, offset: int, size: int) -> None:
        super().__init__(region.fd, region.start + offset, size)
        self._region = region


class Regions:
    """The regions that a caller has registered."""

    def __init__(self, enabled: bool, directory: Path = DIRECTORY, limit: int = LIMIT) -> None:
        self._enabled = enabled
        self._directory = directory
        self._limit = limit
        self._regions: dict[str, Region] = {}

    def register(self, region: str, file_name: str, byte_size: int) -> None:
        """Opens a caller's file as `region`. Doing so a second time changes nothing.

        Raises:
            ModelhostError: UNSUPPORTED, INVALID_NAME, REGION_ALREADY_EXISTS, REGION_INVALID, REGION_LIMIT.
        """
        self.check_enabled()
        check_name("region", region)
        known = self._regions.get(region)
        if known is not None:
            if known.byte_size != byte_size:
                raise ModelhostError(
                    Reason.REGION_ALREADY_EXISTS,
                    f"region: {region!r} is registered with {known.byte_size} bytes; got {byte_size}",
                    field="region",
                )
            return
        self.forget_abandoned()
        if len(self._regions) >= self._limit:
            raise ModelhostError(
                Reason.REGION_LIMIT, f"there are {self._limit} regions, as many as this server takes", limit=self._limit
            )
        self._regions[region] = self._open(region, file_name, byte_size)

    def unregister(self, region: str, allow_missing: bool) -> None:
        """Forgets a region; ranges of it that are in use can be used to their end.

        Raises:
            ModelhostError: UNSUPPORTED, REGION_NOT_FOUND.
        """
        self.check_enabled()
        if self._regions.pop(region, None) is None and not allow_missing:
            raise _not_found(region)

    def list(self, page_size: int = 0, page_token: str = "") -> tuple[list[Region], str]:
        """A page of the regions by name, and the next page's token.

        Raises:
            ModelhostError: UNSUPPORTED, INVALID_REQUEST, INVALID_PAGE_TOKEN.
        """
        self.check_enabled()
        keys, token = page([(name,) for name in sorted(self._regions)], page_size, page_token, "regions")
        return [self._regions[name] for (name,) in keys], token

    def range(self, region: str, offset: int, byte_size: int) -> FileRange:
        """A range of a region.

        Raises:
            ModelhostError: UNSUPPORTED, REGION_NOT_FOUND, REGION_INVALID.
        """
        self.check_enabled()
        found = self._regions.get(region)
        if found is None:
            raise _not_found(region)
        if offset + byte_size > found.byte_size:
            raise ModelhostError(
                Reason.REGION_INVALID,
                f"region {region!r} has {found.byte_size} bytes; got the range from {offset} of {byte_size} bytes",
                region=region,
            )
        return found.range(offset, byte_size)

    def forget_abandoned(self) -> None:
        """Forgets the regions whose callers have gone."""
        for name in [name for name, region in self._regions.items() if not region.is_held()]:
            del self._regions[name]

    def check_enabled(self) -> None:
        """Raises ModelhostError, UNSUPPORTED, where callers share no memory with this server."""
        if not self._enabled:
            raise ModelhostError(
                Reason.UNSUPPORTED,
                "shared memory is off on this server: `modelhost serve --shared-memory on` turns it on; by default it "
                "is on when all addresses that the server listens on are of its own machine",
            )

    def _open(self, region: str, file_name: str, byte_size: int) -> Region:
        if not _FILE_NAME.fullmatch(file_name):
            raise _invalid(
                "file_name", f"expected a name in {self._directory}, like 'modelhost-1a2b'; got {{}}", file_name
            )
        try:
            opened = Region(region, self._directory / file_name, byte_size)
        except OSError as error:
            raise _invalid("file_name", f"cannot open {{}}: {error.strerror}", file_name) from error
        size = opened.file_size
        if not 0 < byte_size <= size:
            raise _invalid("byte_size", f"expected 1 to {size}, the size of {{}}; got {byte_size}", file_name)
        if not opened.is_held():
            raise _invalid("file_name", "expected its caller to hold an exclusive flock on {}", file_name)
        return opened


_Registry = TypeVar("_Registry")


class ByOwner(Generic[_Registry]):
    """A registry for each caller: none sees, uses or forgets what another one has registered.

    Args:
        make: makes one.
    """

    def __init__(self, make: Callable[[], _Registry]) -> None:
        self._make = make
        self._registries: dict[str, _Registry] = {}

    def of(self, owner: str) -> _Registry:
        """The registry of one caller, see `Call.owner`."""
        found = self._registries.get(owner)
        if found is None:
            found = self._registries[owner] = self._make()
        return found

    def all(self) -> list[_Registry]:
        """Those that there are."""
        return list(self._registries.values())


async def keep_forgetting(regions: ByOwner[Regions]) -> None:
    """Forgets regions as their callers go, without end."""
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        for registry in regions.all():
            registry.forget_abandoned()


def _is_locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def _not_found(region: str) -> ModelhostError:
    return ModelhostError(
        Reason.REGION_NOT_FOUND, f"there is no region {brief(region)}; register it first", region=brief(region)
    )


def _invalid(field: str, text: str, file_name: str) -> ModelhostError:
    return ModelhostError(Reason.REGION_INVALID, f"{field}: {text.format(brief(file_name))}", field=field)
