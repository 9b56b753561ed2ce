"""What is in an upload, as announced: which paths a model's files may have, and the name that follows from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import ModelhostError, Reason, brief

MAX_FILES = 10_000
MAX_PATH_BYTES = 1024
MAX_PART_BYTES = 255
MAX_DEPTH = 32
FILES, ARCHIVE = "FILES", "ARCHIVE"
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file, by its path within the model, size, and SHA-256 in hexadecimal digits."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """All files of an upload; `format` is FILES, or ARCHIVE of a single one that has them."""

    format: str
    files: tuple[UploadedFile, ...]

    @property
    def id(self) -> str:
        """The upload's name: the same for the same content, wherever it comes from, in the same order: pieces name
        files by their index.
        """
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def byte_size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def to_json(self) -> str:
        """The manifest as it is kept, in one form only."""
        files = [(file.path, file.size, file.sha256) for file in self.files]
        return json.dumps({"format": self.format, "files": files}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """A manifest that was kept.

        Raises:
            ValueError, KeyError, TypeError: it is none.
        """
        data = json.loads(text)
        return cls(data["format"], tuple(UploadedFile(*file) for file in data["files"]))


def check_manifest(manifest: Manifest, limit: int) -> None:
    """Raises ModelhostError, UPLOAD_INVALID or UPLOAD_LIMIT, unless these files may be uploaded."""
    if not manifest.files:
        raise invalid("expected at least one file; got none")
    if len(manifest.files) > MAX_FILES:
        raise over_limit(f"expected at most {MAX_FILES} files; got {len(manifest.files)}")
    tree = Tree()
    for file in manifest.files:
        tree.add_file(file.path)
        if file.size < 0:
            raise invalid(f"{brief(file.path)}: expected a size of 0 or more; got {file.size}")
        if len(file.sha256) != 2 * _DIGEST_BYTES:
            raise invalid(
                f"{brief(file.path)}: expected a sha256 of {_DIGEST_BYTES} bytes; got {len(file.sha256) // 2}"
            )
    if manifest.byte_size > limit:
        raise over_limit(f"expected at most {limit} bytes (--upload-limit-bytes); got {manifest.byte_size}")
    if manifest.format == ARCHIVE:
        if len(manifest.files) != 1:
            raise invalid(f"expected one file that is an archive; got {len(manifest.files)} files")
        archive_kind(manifest.files[0].path)


def archive_kind(name: str) -> str:
    """Which of ARCHIVES a file is, by its name.

    Raises:
        ModelhostError: UPLOAD_INVALID.
    """
    for kind in ARCHIVES:
        if name.lower().endswith(kind):
            return kind
    raise invalid(f"expected an archive ({', '.join(ARCHIVES)}); got {brief(name)}")


class Tree:
    """Paths of a model's files and directories, each checked by itself and against those before."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def add_file(self, path: str) -> None:
        """Takes a file in; raises ModelhostError, UPLOAD_INVALID or UPLOAD_LIMIT, when it cannot be in the model."""
        parts = _parts(path)
        if path in self._files:
            raise invalid(f"{brief(path)} is there twice")
        if path in self._folders:
            raise invalid(f"{brief(path)} is a file and a directory")
        self._add_folders("/".join(parts[:end]) for end in range(1, len(parts)))
        self._files.add(path)
        self._count()

    def add_folder(self, path: str) -> None:
        """As `add_file`, for a directory, which may be there more than once."""
        parts = _parts(path)
        self._add_folders("/".join(parts[:end]) for end in range(1, len(parts) + 1))
        self._count()

    def _add_folders(self, folders: Iterable[str]) -> None:
        for folder in folders:
            if folder in self._files:
                raise invalid(f"{brief(folder)} is a file and a directory")
            self._folders.add(folder)

    def _count(self) -> None:
        if len(self._files) + len(self._folders) > 2 * MAX_FILES:
            raise over_limit(f"expected at most {MAX_FILES} files and as many directories; got more")


def _parts(path: str) -> list[str]:
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        raise invalid(f"expected a path that is UTF-8; got {brief(path)}") from None
    if len(encoded) > MAX_PATH_BYTES:
        raise invalid(f"expected paths of at most {MAX_PATH_BYTES} bytes; got {brief(path)}")
    if path.startswith("/"):
        raise invalid(f"expected paths within the model; got the absolute path {brief(path)}")
    parts = path.split("/")
    if len(parts) > MAX_DEPTH:
        raise invalid(f"expected paths of at most {MAX_DEPTH} parts; got {brief(path)}")
    for part in parts:
        if part in ("", ".", "..") or not part.isprintable() or "\\" in part:
            raise invalid(f"expected paths within the model, without '..', '.', empty or unprintable parts or "
                          f"backslashes; got {brief(path)}")  # fmt: skip
        if len(part.encode()) > MAX_PART_BYTES:
            raise invalid(f"expected names of at most {MAX_PART_BYTES} bytes; got {brief(path)}")
    return parts


def invalid(message: str) -> ModelhostError:
    """The error of an upload that is not what may be uploaded."""
    return ModelhostError(Reason.UPLOAD_INVALID, f"upload: {message}")


def over_limit(message: str) -> ModelhostError:
    """The error of an upload that is too much."""
    return ModelhostError(Reason.UPLOAD_LIMIT, f"upload: {message}")
