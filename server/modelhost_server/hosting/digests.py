"""What a model's content is known by: a hash over its files, remembered for as long as they look unchanged."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
from pathlib import Path

from ..cached import checked_hash, read_cached_json
from ..errors import ModelhostError, Reason

# Hashing is bound by memory; more at once would only slow down everything else.
_AT_ONCE = 2


class Digests:
    """Hashes models, and remembers the hashes on disk."""

    def __init__(self, cache_dir: Path) -> None:
        self._folder = cache_dir / "digests"
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def of(self, path: str) -> str:
        """The hash of a file, or of all files of a directory and their names.

        Raises:
            ModelhostError: SOURCE_NOT_FOUND when they cannot be read.
        """
        async with self._room:
            try:
                return await asyncio.to_thread(self._of, Path(path))
            except OSError as error:
                raise ModelhostError(Reason.SOURCE_NOT_FOUND, f"source: cannot be read: {error.strerror}") from None

    def _of(self, path: Path) -> str:
        files = _files(path)
        looks = json.dumps([[name, *_look(file)] for name, file in files])
        memo = self._folder / hashlib.sha256(str(path).encode()).hexdigest()
        try:
            known = read_cached_json(memo)
            if known["looks"] == looks:
                return checked_hash(known["digest"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        total = hashlib.sha256()
        for name, file in files:
            with file.open("rb") as content:
                total.update(f"{name}\0{hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
        digest = total.hexdigest()
        self._remember(memo, {"looks": looks, "digest": digest})
        return digest

    def _remember(self, memo: Path, known: dict[str, str]) -> None:
        partial = memo.with_suffix(f".{os.getpid()}")
        # When it cannot be written only time is lost.
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(known))
            partial.replace(memo)


def _files(path: Path) -> list[tuple[str, Path]]:
    if not path.is_dir():
        path.stat()
        return [(path.suffix, path)]
    found = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    return sorted((str(file.relative_to(path)), file) for file in found if file.is_file())


def _look(file: Path) -> tuple[int, int, int]:
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
