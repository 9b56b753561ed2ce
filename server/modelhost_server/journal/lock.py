"""A data directory is one server's; the lock goes with the process that has it, however that ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TextIO

from ..errors import ModelhostError, Reason


def lock_directory(directory: Path) -> TextIO:
    """Locks a directory until the file that is answered is closed.

    Raises:
        ModelhostError: CONFLICT when another server has it.
        OSError: it cannot be written to.
    """
    # Not truncated: until it is locked, what is in it is the other's.
    file = open(directory / "lock", "a+")  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        who = file.read(32).strip()
        file.close()
        raise ModelhostError(
            Reason.CONFLICT,
            f"data_dir: {directory} is in use by another server{f', process {who}' if who else ''}; stop that one, or "
            "give this one a directory of its own",
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file
