"""Memory of mapped files: what is not read again need not stay."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_MADV_DONTNEED = 4

_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def drop_pages(path: Path) -> None:
    """Lets go of the mapped pages of a file, or of the files in a directory; the kernel reads again what is needed."""
    real = os.path.realpath(path)
    for line in Path("/proc/self/maps").read_text(errors="replace").splitlines():
        fields = line.split(maxsplit=5)
        # Only what cannot be written to: a private page that was written to would be lost.
        if len(fields) == 6 and fields[1].startswith("r--") and real in (fields[5], os.path.dirname(fields[5])):
            start, end = (int(address, 16) for address in fields[0].split("-"))
            _libc.madvise(start, end - start, _MADV_DONTNEED)
