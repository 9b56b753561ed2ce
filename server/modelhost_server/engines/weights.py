"""Weights on disk, each once by the hash of its bytes, and mapped once a process however many models use it.

A file is written under a name of its own and then renamed, so that none is ever half there for others; several
processes may write the same one at once. It is not flushed to the disk: file systems make a file's new size known only
after its bytes, and a file of the wrong size is written again. Files may be deleted at any time, also while they are
mapped; those that are used are touched, so that a cleaner knows which ones are not.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import mmap
import os
import tempfile
import threading
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# A value's bytes begin at a multiple of this, as engines ask of memory that they use where it is.
ALIGNMENT = 64

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_MAP_FAILED = ctypes.c_void_p(-1).value


class Blob:
    """A file of the store in this process's memory, until nobody refers to it any longer.

    Nobody can write there: models of one process share these bytes, and a crash would be better than a model that
    changes another's weights. `mmap.mmap` would keep a file descriptor for each.
    """

    __slots__ = ("__weakref__", "_address", "name", "size", "users")

    def __init__(self, path: Path, size: int) -> None:
        self.name, self.size = path.name, size
        # How many models use it; guarded by the store's lock.
        self.users = 0
        self._address: int | None = None
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_PRIVATE, file, 0)
        finally:
            os.close(file)
        if address == _MAP_FAILED:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), str(path))
        self._address = address

    def view(self, offset: int, nbytes: int) -> memoryview:
        """Bytes of it, valid as long as the blob."""
        assert self._address is not None
        return memoryview((ctypes.c_char * nbytes).from_address(self._address + offset)).cast("B")

    def __del__(self) -> None:
        if self._address is not None:
            _libc.munmap(self._address, self.size)


class WeightStore:
    """A directory of weights, and of descriptions of what was prepared."""

    def __init__(self, directory: Path) -> None:
        self._files, self._index = directory / "weights", directory / "index"
        self._blobs: weakref.WeakValueDictionary[str, Blob] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    def put(self, data: bytes | bytearray | memoryview) -> Blob:
        """The blob with these bytes, of which there is at least one; written if it is not there yet.

        Raises:
            OSError: it cannot be written or mapped.
        """
        name = hashlib.sha256(data).hexdigest()
        blob = self.get(name, len(data))
        if blob is None:
            _write(self._files / name, data)
            blob = self.get(name, len(data))
        if blob is None:
            raise FileNotFoundError(f"{name} was deleted as soon as it was there")
        return blob

    def get(self, name: str, size: int) -> Blob | None:
        """The blob of this name, or None when there is no such file, or one of another size.

        Raises:
            OSError: it cannot be mapped.
        """
        path = self._files / name
        with self._lock:
            try:
                if path.stat().st_size != size:
                    return None
                _touch(path)
                blob = self._blobs.get(name)
                if blob is None:
                    blob = self._blobs[name] = Blob(path, size)
            except FileNotFoundError:
                return None
            return blob

    def hold(self, blobs: Iterable[Blob]) -> None:
        """Counts a model that uses these."""
        with self._lock:
            for blob in blobs:
                blob.users += 1

    def release(self, blobs: Iterable[Blob]) -> None:
        """Counts a model less."""
        with self._lock:
            for blob in blobs:
                blob.users -= 1

    def read_index(self, name: str) -> Any:
        """What was written under a name; None when nothing was, or it cannot be read."""
        path = self._index / f"{name}.json"
        try:
            data = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return None
        _touch(path)
        return data

    def write_index(self, name: str, data: Any) -> None:
        """Keeps a description under a name.

        Raises:
            OSError: it cannot be written.
        """
        _write(self._index / f"{name}.json", json.dumps(data).encode())


def _write(path: Path, data: bytes | bytearray | memoryview) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=".writing-", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _touch(path: Path) -> None:
    # On a disk that cannot be written there is nothing to clean either.
    with contextlib.suppress(OSError):
        os.utime(path)
