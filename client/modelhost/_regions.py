"""Memory shared with a server on this machine: a file in /dev/shm, mapped here, read and written there."""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import threading
import weakref
from bisect import insort
from collections import deque
from pathlib import Path

_DIRECTORY = Path("/dev/shm")
# Only pages that have been written to exist, so the size costs nothing.
_REGION_BYTES = 4 << 30
# What stays in memory, to be used again, while no range is in use.
_KEPT_BYTES = 64 << 20
# A region with more than this in ranges that cannot be used again is given up.
_RETIRED_BYTES = 256 << 20


class Range:
    """A range of a region."""

    __slots__ = ("_region", "offset", "size", "view")

    def __init__(self, region: Region, offset: int, size: int, view: memoryview) -> None:
        self._region = region
        self.offset = offset
        self.size = size
        self.view = view

    def free(self) -> None:
        """Lets it be used again. May be called wherever Python ends the life of an array."""
        self._region.take_back(self.offset)

    def retire(self) -> None:
        """Keeps it from being used again: the server may still read or write it."""
        self._region.retire(self.size)


class Region:
    """A file for the server to register. All methods may be called by any thread.

    Raises:
        OSError: this machine has no such files.
    """

    def __init__(self, byte_size: int = _REGION_BYTES) -> None:
        self.name = f"modelhost-{secrets.token_hex(16)}"
        self.byte_size = byte_size
        self._path = _DIRECTORY / self.name
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Tells the server that there is still somebody who uses the region.
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            os.ftruncate(self._fd, byte_size)
            self._map = mmap.mmap(self._fd, byte_size)
        except BaseException:
            self.unlink()
            os.close(self._fd)
            raise
        self._close_file = weakref.finalize(self, os.close, self._fd)
        self._view = memoryview(self._map)
        self._lock = threading.Lock()
        self._free: list[tuple[int, int]] = [(0, byte_size)]
        self._used: dict[int, int] = {}
        # Arrays end their lives anywhere, even while this thread has the lock.
        self._returned: deque[int] = deque()
        self._reserved = 0
        self._retired = 0
        self._users = 0
        self._closing = False

    @property
    def is_worn(self) -> bool:
        """Whether another region should take its place."""
        return self._retired > _RETIRED_BYTES

    def unlink(self) -> None:
        """Removes the file's name, once the server has opened it: then nothing is left behind, whatever happens."""
        self._path.unlink(missing_ok=True)

    def allocate(self, size: int) -> Range | None:
        """A range of at least `size` bytes, the lowest that fits; None when there is no room."""
        size = max(1, -(-size // mmap.PAGESIZE)) * mmap.PAGESIZE
        with self._lock:
            self._collect()
            for i, (offset, room) in enumerate(self._free):
                if room < size:
                    continue
                if not self._reserve(offset + size):
                    return None
                if room == size:
                    del self._free[i]
                else:
                    self._free[i] = (offset + size, room - size)
                self._used[offset] = size
                return Range(self, offset, size, self._view[offset : offset + size])
        return None

    def take_back(self, offset: int) -> None:
        """The range that begins at `offset` may be used again."""
        self._returned.append(offset)

    def retire(self, size: int) -> None:
        """A range of this size will not be used again."""
        with self._lock:
            self._retired += size

    def enter(self) -> bool:
        """One more prediction uses the region; False when it has been given up."""
        with self._lock:
            self._users += not self._closing
            return not self._closing

    def leave(self) -> None:
        """One prediction less uses the region."""
        with self._lock:
            self._users -= 1
            if self._closing and not self._users:
                self._close()

    def close(self) -> None:
        """Has the server forget the region, once no prediction uses it. Arrays that are in it stay valid."""
        with self._lock:
            if not self._closing:
                self._closing = True
                if not self._users:
                    self._close()

    def _reserve(self, end: int) -> bool:
        """Has the pages up to `end` exist. Without, the first write to a page that there is no memory for would kill
        the process.
        """
        if end > self._reserved:
            try:
                os.posix_fallocate(self._fd, self._reserved, end - self._reserved)
            except OSError:
                return False
            self._reserved = end
        return True

    def _collect(self) -> None:
        if not self._returned:
            return
        while self._returned:
            offset = self._returned.popleft()
            insort(self._free, (offset, self._used.pop(offset)))
        if not self._used:
            self._free = [(0, self.byte_size)]
            if self._reserved > _KEPT_BYTES:
                self._map.madvise(mmap.MADV_REMOVE, _KEPT_BYTES, self._reserved - _KEPT_BYTES)
                self._reserved = _KEPT_BYTES
        else:
            self._merge()

    def _merge(self) -> None:
        merged: list[tuple[int, int]] = []
        for offset, size in self._free:
            if merged and sum(merged[-1]) == offset:
                merged[-1] = (merged[-1][0], merged[-1][1] + size)
            else:
                merged.append((offset, size))
        self._free = merged

    def _close(self) -> None:
        self.unlink()
        self._collect()
        if not self._used:
            # The memory is free from now on, not when the server finds out.
            os.ftruncate(self._fd, 0)
        # The mapping has the lock, too.
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        self._close_file()
