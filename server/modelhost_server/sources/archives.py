"""Unpacks archives that anybody may have made: nothing lands outside of the target, nothing grows without bounds."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..errors import brief
from .manifest import MAX_FILES, Tree, archive_kind, invalid, over_limit

_PIECE_BYTES = 1 << 20
# An archive that unpacks to more than this may be a bomb: then by at most this factor.
_UNSUSPICIOUS_BYTES = 100_000_000
_MAX_RATIO = 200
# A header (long names, attributes) may be no larger: tarfile has it in memory as a whole.
_MAX_HEADER_BYTES = 1 << 20
# zipfile has the table of contents in memory.
_MAX_TABLE_BYTES = 4 << 20
_ENCRYPTED = 0x1


def unpack(archive: Path, target: Path, limit: int) -> None:
    """Unpacks a `.tar`, `.tar.gz`, `.tgz` or `.zip` into an empty directory.

    Args:
        archive: what it is follows from its name.
        target: where nobody else writes.
        limit: bytes that the files may have together.

    Raises:
        ModelhostError: UPLOAD_INVALID, UPLOAD_LIMIT.
        OSError: the files cannot be written.
    """
    kind = archive_kind(archive.name)
    budget = _Budget(limit, archive.stat().st_size)
    if kind == ".zip":
        _unpack_zip(archive, target, budget)
    else:
        _unpack_tar(archive, target, budget, compressed=kind != ".tar")


class _Budget:
    """What may still come out of an archive."""

    def __init__(self, limit: int, packed: int) -> None:
        self._limit = limit
        self._most = max(_UNSUSPICIOUS_BYTES, _MAX_RATIO * packed)
        self._taken = 0
        self._entries = 0

    def take(self, size: int) -> None:
        self._taken += size
        if self._taken > self._limit:
            raise over_limit(f"the archive unpacks to more than {self._limit} bytes (--upload-limit-bytes)")
        if self._taken > self._most:
            raise invalid(f"the archive unpacks to more than {_MAX_RATIO} times its size: {self._taken} bytes and more")

    def entry(self) -> None:
        self._entries += 1
        if self._entries > 2 * MAX_FILES:
            raise over_limit(f"expected at most {MAX_FILES} files and as many directories in the archive; got more")


class _TarStream:
    """The unpacked bytes of a tar archive, of which tarfile may only read as much as is due."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._due = 0

    def allow(self, size: int) -> None:
        self._due = size + _MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._due -= len(data)
        if self._due < 0:
            raise invalid(f"the archive has a header of more than {_MAX_HEADER_BYTES} bytes")
        return data


def _unpack_tar(archive: Path, target: Path, budget: _Budget, compressed: bool) -> None:
    tree = Tree()
    with _told("tar archive"), archive.open("rb") as packed:
        stream = _TarStream(gzip.GzipFile(fileobj=packed) if compressed else packed)  # type: ignore[arg-type]
        stream.allow(0)
        with tarfile.open(fileobj=stream, mode="r|") as tar:  # type: ignore[call-overload]
            while (member := tar.next()) is not None:
                # Each header is asked for once, and forgotten: with all of them tarfile would grow.
                tar.members.clear()
                budget.entry()
                stream.allow(member.size)
                name = member.name.removeprefix("./").rstrip("/")
                if member.isdir():
                    if name not in ("", "."):
                        _make_folder(tree, target, name)
                elif member.isreg() and not member.issparse():
                    content = tar.extractfile(member)
                    assert content is not None
                    _copy(tree, target, name, content, member.size, budget)
                else:
                    raise invalid(f"expected files and directories in the archive; got {brief(name)}, {_kind(member)}")
                stream.allow(0)
            # What is behind the last file is padding, and gzip's checksum of everything.
            while stream.read(_PIECE_BYTES):
                pass


def _kind(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return "a link"
    return "a device or pipe" if member.isdev() else "of another kind"


class _BoundedFile(io.FileIO):
    """A file of which zipfile reads its table of contents, in one piece, only when that is not too large, and that it
    does not look for before the beginning.
    """

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET and offset < 0:
            raise zipfile.BadZipFile("a file's content is before the beginning")
        return super().seek(offset, whence)

    def read(self, size: int | None = -1) -> bytes:
        wanted = size if size is not None and size >= 0 else os.fstat(self.fileno()).st_size - self.tell()
        if wanted > _MAX_TABLE_BYTES:
            raise over_limit(f"the archive's table of contents has more than {_MAX_TABLE_BYTES} bytes")
        return super().read(size)


def _unpack_zip(archive: Path, target: Path, budget: _Budget) -> None:
    tree = Tree()
    with _told("zip archive"), _BoundedFile(archive) as packed, zipfile.ZipFile(packed) as unpacked:
        for info in unpacked.infolist():
            budget.entry()
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise invalid(
                    f"expected files and directories in the archive; got {brief(info.filename)}, a link or device"
                )
            if info.flag_bits & _ENCRYPTED:
                raise invalid(f"expected an archive without encryption; {brief(info.filename)} is encrypted")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise invalid(
                    f"expected files that are stored or deflated; {brief(info.filename)} is packed another way"
                )
            # Where it was cut off at a NUL, the archive says another name than is seen.
            name = info.orig_filename.removeprefix("./")
            if info.is_dir():
                _make_folder(tree, target, name.rstrip("/"))
            else:
                with unpacked.open(info) as content:
                    _copy(tree, target, name, content, info.file_size, budget)


def _make_folder(tree: Tree, target: Path, name: str) -> None:
    tree.add_folder(name)
    (target / name).mkdir(parents=True, exist_ok=True)


def _copy(tree: Tree, target: Path, name: str, content: IO[bytes], size: int, budget: _Budget) -> None:
    tree.add_file(name)
    path = target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with path.open("xb") as file:
        while piece := content.read(_PIECE_BYTES):
            budget.take(len(piece))
            file.write(piece)
            written += len(piece)
    if written != size:
        raise invalid(f"the archive is cut off: {brief(name)} has {written} bytes of {size}")


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Within, what the libraries raise over an archive that is none is told as UPLOAD_INVALID."""
    broken: tuple[Any, ...] = (
        tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, NotImplementedError,
        RuntimeError, ValueError, OverflowError, IndexError, struct.error,
    )  # fmt: skip
    try:
        yield
    except broken as error:
        raise invalid(f"expected a whole {what}; {brief(str(error), 200)}") from None
