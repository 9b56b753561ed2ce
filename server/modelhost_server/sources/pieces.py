"""Takes the pieces of an upload's files, and makes a model of them once all are there. Blocking: for threads."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from ..errors import ModelhostError, Reason, brief
from .disk import publish, size_of
from .manifest import ARCHIVE, Manifest, archive_kind, invalid
from .unpacking import unpack_apart

_PIECE_BYTES = 1 << 20


class Pieces:
    """Writes one upload's files.

    Args:
        folder: of the upload; what has arrived before is there.
        manifest: what was announced.
        check: raises when the work is no longer wanted.
    """

    def __init__(self, folder: Path, manifest: Manifest, check: Callable[[], None]) -> None:
        self._folder = folder
        self._manifest = manifest
        self._check = check
        self._index = -1
        self._file: IO[bytes] | None = None
        self._arrived = 0
        # None for a file whose beginning came in an earlier call: it is hashed when all is there.
        self._hash: Any = None
        self._right: set[int] = set()

    def write(self, index: int, offset: int, data: bytes) -> None:
        """Takes a piece.

        Raises:
            ModelhostError: UPLOAD_INVALID.
            OSError: it cannot be written.
        """
        if not data:
            return
        if not 0 <= index < len(self._manifest.files):
            raise invalid(f"file: expected the index of one of {len(self._manifest.files)} files; got {index}")
        if index != self._index:
            self._open(index)
        announced = self._manifest.files[index]
        if offset != self._arrived:
            raise invalid(
                f"{brief(announced.path)}: expected the piece at offset {self._arrived}; got the one at {offset}"
            )
        if offset + len(data) > announced.size:
            raise invalid(
                f"{brief(announced.path)}: expected {announced.size} bytes as announced; "
                f"got {offset + len(data)} and maybe more"
            )
        assert self._file is not None
        self._file.write(data)
        self._arrived += len(data)
        if self._hash is not None:
            self._hash.update(data)
            if self._arrived == announced.size:
                self._compare(index, self._hash.hexdigest())

    def _open(self, index: int) -> None:
        self.close()
        path = part_path(self._folder, self._manifest, index)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: what is written counts as arrived, also when this process is killed.
        self._file = path.open("ab", buffering=0)
        self._index, self._arrived = index, self._file.tell()
        self._hash = None if self._arrived else hashlib.sha256()

    def close(self) -> None:
        """Closes what is open; the receiver may go on afterwards."""
        if self._file is not None:
            self._file.close()
        self._file, self._index, self._hash = None, -1, None

    def finish(self, target: Path, limit: int) -> int:
        """Checks that all is there and right, and gives it its place; its size in bytes.

        Raises:
            ModelhostError: UPLOAD_INVALID, UPLOAD_LIMIT.
            OSError: it cannot be written.
        """
        self.close()
        lacking = missing(self._folder, self._manifest)
        if lacking:
            index, offset = lacking[0]
            raise invalid(
                f"it is not complete: {len(lacking)} files are missing or were cut off, the first is "
                f"{brief(self._manifest.files[index].path)} at {offset} bytes; PrepareUpload tells what to send"
            )
        for index in range(len(self._manifest.files)):
            if index not in self._right:
                self._compare(index, self._hashed(part_path(self._folder, self._manifest, index)))
        content = _content(self._folder)
        if self._manifest.format == ARCHIVE:
            self._unpack(part_path(self._folder, self._manifest, 0), content, limit)
        size = size_of(content)
        publish(content, target)
        return size

    def _unpack(self, archive: Path, content: Path, limit: int) -> None:
        # Of an attempt that was cut off.
        shutil.rmtree(content, ignore_errors=True)
        content.mkdir()
        try:
            unpack_apart(archive, content, limit, self._check)
        except ModelhostError as error:
            shutil.rmtree(content)
            if error.reason in (Reason.UPLOAD_INVALID, Reason.UPLOAD_LIMIT):
                # It is what was announced, and will never be what may be uploaded.
                shutil.rmtree(self._folder)
            raise

    def _hashed(self, path: Path) -> str:
        total = hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                self._check()
                total.update(piece)
        return total.hexdigest()

    def _compare(self, index: int, digest: str) -> None:
        announced = self._manifest.files[index]
        if digest != announced.sha256:
            self.close()
            # So that it is sent again from its beginning.
            part_path(self._folder, self._manifest, index).unlink()
            raise invalid(
                f"{brief(announced.path)}: expected content with the SHA-256 {announced.sha256}; got {digest}; "
                "it may have changed while it was read: announce it anew"
            )
        self._right.add(index)


def missing(folder: Path, manifest: Manifest) -> list[tuple[int, int]]:
    """The files that have not arrived, by their index, and how many bytes of each have; empty files have arrived.

    Raises:
        OSError: an empty file cannot be written.
    """
    lacking = []
    for index, announced in enumerate(manifest.files):
        path = part_path(folder, manifest, index)
        try:
            arrived = path.stat().st_size
        except OSError:
            arrived = 0
            if announced.size == 0:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        if arrived < announced.size:
            lacking.append((index, arrived))
    return lacking


def part_path(folder: Path, manifest: Manifest, index: int) -> Path:
    """Where a file of an upload that is on its way is: an archive beside what is unpacked from it."""
    path = manifest.files[index].path
    if manifest.format == ARCHIVE:
        return folder / f"archive{archive_kind(path)}"
    return _content(folder) / path


def _content(folder: Path) -> Path:
    return folder / "content"
