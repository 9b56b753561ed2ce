"""Models on this machine, as they are sent to a server."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from modelhost.v1 import model_service_pb2

from ._errors import InvalidRequestError

_SINGLE = (".tflite", ".keras")
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
# Large enough to be read and sent fast, small enough to be held.
PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file, and its path within the model."""

    path: str
    place: Path
    size: int


@dataclass(frozen=True, slots=True)
class LocalModel:
    """What is to be sent."""

    files: Sequence[LocalFile]
    format: model_service_pb2.UploadFormat.ValueType

    @property
    def byte_size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def announcement(self, scope: str, digests: Sequence[bytes]) -> model_service_pb2.PrepareUploadRequest:
        """What is said of it before it is sent."""
        return model_service_pb2.PrepareUploadRequest(
            scope=scope,
            format=self.format,
            files=[
                model_service_pb2.UploadFile(path=file.path, size=file.size, sha256=digest)
                for file, digest in zip(self.files, digests, strict=True)
            ],
        )


def local_model(path: str | os.PathLike[str], version: int | None) -> LocalModel:
    """The model at a path: of a directory of versions one of them, the newest when `version` is None.

    Links are followed: what they lead to is sent.

    Raises:
        InvalidRequestError: there is no model.
    """
    place = Path(path).expanduser()
    try:
        if place.is_file():
            return _file(place)
        if not place.is_dir():
            raise _no_model(f"there is nothing at {str(place)!r} on this machine")
        if _holds_saved_model(place):
            return LocalModel(_files(place, place), model_service_pb2.UPLOAD_FORMAT_FILES)
        numbers = {int(name): name for name in os.listdir(place) if name.isascii() and name.isdecimal()}
        number = max(numbers, default=0) if version is None else version
        if number in numbers and _holds_saved_model(place / numbers[number]):
            return LocalModel(_files(place / numbers[number], place), model_service_pb2.UPLOAD_FORMAT_FILES)
    except OSError as error:
        raise _no_model(f"{error.filename or place} cannot be read: {error.strerror}") from error
    wanted = "" if version is None else f"version {version} of "
    raise _no_model(
        f"{wanted}{str(place)!r} is not a model: expected saved_model.pb in it, or in a sub-directory named by the "
        f"version's number{f'; it has the versions {sorted(numbers)[:20]}' if numbers else ''}"
    )


def read_and_hash(opened: IO[bytes], total: Any) -> int:
    """Hashes the next part of a file; its size, 0 at the end."""
    data = opened.read(PIECE_BYTES)
    total.update(data)
    return len(data)


def new_hash() -> Any:
    """What a file is hashed with."""
    return hashlib.sha256()


class PieceReader:
    """Reads files piece by piece, one after the other. It may be closed while another thread reads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_closed = False
        self._place: Path | None = None
        self._opened: IO[bytes] | None = None

    def read(self, file: LocalFile, offset: int) -> bytes:
        """The piece of a file that begins at an offset, which is before its end.

        Raises:
            InvalidRequestError: the file has become shorter.
            OSError: it cannot be read.
            ValueError: the reader is closed.
        """
        with self._lock:
            if self._is_closed:
                raise ValueError("what is to be read is not wanted any more")
            if self._opened is None or self._place != file.place:
                self._close_file()
                self._place, self._opened = file.place, file.place.open("rb")
                self._opened.seek(offset)
            data = self._opened.read(min(PIECE_BYTES, file.size - offset))
        if not data:
            raise _no_model(f"{str(file.place)!r} has changed while it was being sent")
        return data

    def close(self) -> None:
        """Closes the last file, and opens no other."""
        with self._lock:
            self._is_closed = True
            self._close_file()

    def _close_file(self) -> None:
        if self._opened is not None:
            self._opened.close()
        self._opened = None


def _file(place: Path) -> LocalModel:
    name = place.name.lower()
    file = LocalFile(place.name, place, place.stat().st_size)
    if name.endswith(_ARCHIVES):
        return LocalModel([file], model_service_pb2.UPLOAD_FORMAT_ARCHIVE)
    if name.endswith(_SINGLE):
        return LocalModel([file], model_service_pb2.UPLOAD_FORMAT_FILES)
    raise _no_model(
        f"expected a SavedModel directory, a {' or '.join(_SINGLE)} file, or an archive ({', '.join(_ARCHIVES)}); "
        f"got the file {place.name!r}"
    )


def _files(model: Path, root: Path) -> list[LocalFile]:
    """The files below a directory, with paths from `root` on."""
    found: list[LocalFile] = []
    _add_files(found, model, root, ())
    return sorted(found, key=lambda file: file.path)


def _add_files(found: list[LocalFile], folder: Path, root: Path, above: tuple[tuple[int, int], ...]) -> None:
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        raise _no_model(f"{str(folder)!r} is a link to a directory that it is in")
    for entry in folder.iterdir():
        if entry.is_dir():
            _add_files(found, entry, root, (*above, identity))
        elif entry.is_file():
            found.append(LocalFile(entry.relative_to(root).as_posix(), entry, entry.stat().st_size))
        else:
            raise _no_model(f"expected files and directories; {str(entry)!r} is neither, or a link to nothing")


def _holds_saved_model(place: Path) -> bool:
    return (place / "saved_model.pb").is_file() or (place / "saved_model.pbtxt").is_file()


def _no_model(message: str) -> InvalidRequestError:
    return InvalidRequestError(f"upload: {message}", reason="SOURCE_INVALID")
