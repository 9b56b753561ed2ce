"""Shared memory for large tensors, one arena for each direction between the server and a worker.

An arena is one memfd, mapped by both sides once; its sender allocates ranges and tells the receiver their offsets.
The file is sparse, so its size costs nothing. What has been touched stays warm for the next call, for taking new pages
from the system costs as much as copying into them; beyond some megabytes it is given back to the system as soon as the
arena is empty, and all of it when the arena has been idle (`trim`).
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from bisect import insort

# Virtual; only touched pages exist.
ARENA_BYTES = 16 << 30
# From here on a tensor is worth a range of its own rather than a place in the frame.
LARGE_BYTES = 64 << 10
_WARM_BYTES = 64 << 20
_PAGE = mmap.PAGESIZE


def create_arena_fd() -> int:
    """A new, empty arena's file descriptor."""
    fd = os.memfd_create("modelhost-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, ARENA_BYTES)
    # The other side cannot cut it short: whoever has memory mapped that is no longer there dies of looking at it.
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


class Arena:
    """A mapped arena. The sender uses `allocate` and `free`, the receiver only `view`."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, ARENA_BYTES)
        self._view = memoryview(self._map)
        self._lock = threading.Lock()
        self._free: list[tuple[int, int]] = [(0, ARENA_BYTES)]
        self._used: dict[int, int] = {}
        self._touched = 0

    @property
    def used_bytes(self) -> int:
        """Bytes in ranges not freed."""
        with self._lock:
            return sum(self._used.values())

    def view(self, offset: int, size: int) -> memoryview:
        """The bytes of a range.

        Raises:
            ValueError: the range is not within the arena.
        """
        if not (0 <= offset <= ARENA_BYTES and 0 <= size <= ARENA_BYTES - offset):
            raise ValueError(f"range {offset}+{size} is outside the arena")
        return self._view[offset : offset + size]

    def allocate(self, size: int) -> int | None:
        """The offset of a new page-aligned range, the lowest that fits; None when the arena is full."""
        size = max(1, -(-size // _PAGE)) * _PAGE
        with self._lock:
            for i, (offset, room) in enumerate(self._free):
                if room >= size:
                    if room == size:
                        del self._free[i]
                    else:
                        self._free[i] = (offset + size, room - size)
                    self._used[offset] = size
                    self._touched = max(self._touched, offset + size)
                    return offset
        return None

    def free(self, offset: int) -> None:
        """Frees a range.

        Raises:
            KeyError: no range begins there.
        """
        with self._lock:
            size = self._used.pop(offset)
            if self._used:
                insort(self._free, (offset, size))
                self._merge(self._free.index((offset, size)))
                return
            self._free = [(0, ARENA_BYTES)]
            self._give_back(_WARM_BYTES)

    def trim(self) -> None:
        """Gives back to the system all that was touched, if nothing is in use."""
        with self._lock:
            if not self._used:
                self._give_back(0)

    def _give_back(self, keep: int) -> None:
        if self._touched > keep:
            self._map.madvise(mmap.MADV_REMOVE, keep, self._touched - keep)
            self._touched = keep

    def _merge(self, i: int) -> None:
        for left in (i, i - 1):
            if 0 <= left < len(self._free) - 1:
                (offset, size), (next_offset, next_size) = self._free[left : left + 2]
                if offset + size == next_offset:
                    self._free[left : left + 2] = [(offset, size + next_size)]

    def close(self) -> None:
        """Unmaps the arena, unless something still looks at it."""
        try:
            self._view.release()
            self._map.close()
        except BufferError:
            pass
