"""Reads the small files that the server keeps in its cache. Models can write there, so nothing in it is believed:
neither that it is a file, nor that it is small, nor that it says what the server wrote.
"""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

_MAX_BYTES = 16 << 20
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)


def read_cached(path: Path, most: int = _MAX_BYTES) -> bytes:
    """A file's content, if it has no more bytes than these.

    Raises:
        OSError: there is none.
        ValueError: it is none that the server has written.
    """
    # A link would lead elsewhere, a pipe would have us wait.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is no file")
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most} bytes")
    return content


def read_cached_json(path: Path) -> Any:
    """What a file says in JSON.

    Raises:
        OSError, ValueError: see `read_cached`.
    """
    try:
        return json.loads(read_cached(path))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def checked_hash(text: Any) -> str:
    """A SHA-256 as it names files: anything else could lead elsewhere.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(text, str) or not _HASH.fullmatch(text):
        raise ValueError("expected a SHA-256")
    return text
