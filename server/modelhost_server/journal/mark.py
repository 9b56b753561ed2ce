"""How many changes have been written to a journal, in a file beside it.

SQLite takes a damaged beginning of its write-ahead log for an empty log, and what had been in there is gone without a
word. The mark tells: a journal that has fewer changes has lost some.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def mark_of(journal: Path) -> Path:
    """The file of a journal's mark."""
    return journal.with_suffix(".mark")


class Mark:
    """The mark of a journal's file."""

    def __init__(self, journal: Path) -> None:
        self._path = mark_of(journal)

    def read(self) -> int:
        """The changes that were written, as far as it is known."""
        try:
            return int(self._path.read_bytes())
        except (OSError, ValueError):
            return 0

    def write(self, count: int) -> None:
        """Notes that so many changes are on the disk."""
        # Always as long, and written over: that needs no room. Without it, damage may pass unnoticed, no more.
        with contextlib.suppress(OSError):
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.pwrite(file, b"%020d\n" % count, 0)
                os.fdatasync(file)
            finally:
                os.close(file)

    def remove(self) -> None:
        """Whatever takes the journal's place is as it is to be."""
        self._path.unlink(missing_ok=True)
