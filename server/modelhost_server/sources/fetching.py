"""Looks at remote sources, and copies them into a directory. Blocking: for threads."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from posixpath import basename
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import ModelhostError, Reason
from .filesystems import Store, told
from .manifest import ARCHIVES, MAX_FILES, Tree
from .remotes import WEB, shown
from .unpacking import unpack_apart

_SINGLE = (".tflite", ".keras")
_SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt")
# What tells one content of a file from another, as the different libraries call it.
_TAGS = ("ETag", "etag", "generation", "md5Hash", "Content-MD5", "Last-Modified", "LastModified", "updated", "mtime")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file: its name there, its path within the model, its size (-1 when that is not known), and what changes when
    its content does ("" when that is not known).
    """

    name: str
    path: str
    size: int
    tag: str


@dataclass(frozen=True, slots=True)
class Look:
    """What a remote source was found to be; `number` is the sub-directory's that was chosen, if one was."""

    uri: str
    files: tuple[RemoteFile, ...]
    number: int
    moment: int = field(default_factory=time.time_ns, compare=False)

    @property
    def key(self) -> str:
        """The same for as long as the source has the same content."""
        known = [(file.path, file.size, file.tag) for file in self.files]
        # What cannot be told apart from what was there before is another every time.
        moment = 0 if all(file.tag for file in self.files) else self.moment
        return hashlib.sha256(json.dumps([self.uri, known, moment]).encode()).hexdigest()

    @property
    def byte_size(self) -> int:
        """Bytes to fetch, as far as they are known."""
        return sum(max(0, file.size) for file in self.files)


def look_at(store: Store, uri: str, version: int, limit: int) -> Look:
    """Looks at a source.

    Args:
        store: that it is in.
        uri: of a model, an archive, or a directory of a model's versions.
        version: the version asked for; 0 for the newest.
        limit: bytes it may have.

    Raises:
        ModelhostError: SOURCE_NOT_FOUND, SOURCE_INVALID, SOURCE_UNSUPPORTED, SOURCE_UNAVAILABLE.
    """
    with told(uri):
        if urlsplit(uri).scheme in WEB:
            name = basename(unquote(urlsplit(uri).path))
            _check_file(name)
            found = Look(uri, (_remote_file(uri, name, store.info(uri)),), 0)
        else:
            found = _look_at_store(store, uri, version)
    tree = Tree()
    try:
        for file in found.files:
            tree.add_file(file.path)
    except ModelhostError as error:
        raise _invalid(f"{shown(uri)}: {error.message}") from None
    if found.byte_size > limit:
        raise _invalid(f"{shown(uri)} has {found.byte_size} bytes, more than {limit} (--upload-limit-bytes)")
    return found


def _look_at_store(store: Store, uri: str, version: int) -> Look:
    root = store.path(uri)
    info = store.info(root)
    if info["type"] == "file":
        name = basename(root)
        _check_file(name)
        return Look(uri, (_remote_file(root, name, info),), 0)
    entries = {basename(entry["name"].rstrip("/")): entry for entry in store.list(root)}
    if any(name in entries for name in _SAVED_MODEL):
        return Look(uri, _files_below(store, root), 0)
    numbers = {int(name): name for name in entries if name.isascii() and name.isdecimal()}
    number = version or max(numbers, default=0)
    if number in numbers:
        files = _files_below(store, f"{root}/{numbers[number]}")
        if any(file.path in _SAVED_MODEL for file in files):
            return Look(uri, files, number)
    have = f"; it has the versions {sorted(numbers)[:20]}" if numbers else ""
    wanted = f"version {version} of " if version else ""
    raise _invalid(
        f"{wanted}{shown(uri)} is not a model: expected saved_model.pb in it, or in a sub-directory named by the "
        f"version's number{have}"
    )


def _files_below(store: Store, folder: str) -> tuple[RemoteFile, ...]:
    found = store.find(folder)
    if len(found) > MAX_FILES:
        raise _invalid(f"expected at most {MAX_FILES} files; got {len(found)}")
    # Object stores have empty objects called as directories.
    return tuple(
        _remote_file(name, name.removeprefix(f"{folder}/"), info)
        for name, info in sorted(found.items())
        if info["type"] == "file" and not name.endswith("/")
    )


def _remote_file(name: str, path: str, info: Any) -> RemoteFile:
    size = info.get("size")
    tags = [str(info[tag]) for tag in _TAGS if info.get(tag)]
    return RemoteFile(name, path, -1 if size is None else int(size), " ".join(tags))


def _check_file(name: str) -> None:
    if not name.lower().endswith((*_SINGLE, *ARCHIVES)):
        raise ModelhostError(
            Reason.SOURCE_UNSUPPORTED,
            f"source: expected a {' or '.join(_SINGLE)} file, or an archive ({', '.join(ARCHIVES)}), or from s3: and "
            f"gs: a SavedModel directory; got the file {name[:64]!r}",
            field="source",
        )


def fetch(store: Store, look: Look, folder: Path, limit: int, note: Callable[[int], None]) -> None:
    """Copies a source into an empty directory; an archive is unpacked.

    Args:
        store: that it is in.
        look: what the source is.
        folder: where to.
        limit: bytes that all may have.
        note: told of every few bytes more; raises when they are no longer wanted.

    Raises:
        ModelhostError: SOURCE_NOT_FOUND, SOURCE_INVALID, SOURCE_UNAVAILABLE, STORAGE_FAILED, and what `note` raises.
    """
    for file in look.files:
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with told(look.uri):
            store.get(file.name, target, note)
            size = target.stat().st_size
        if file.size not in (-1, size):
            raise ModelhostError(
                Reason.SOURCE_UNAVAILABLE,
                f"source: {shown(look.uri)}: expected {file.size} bytes of {file.path!r}; got {size}",
                field="source",
                retry_after=1.0,
            )
    only = folder / look.files[0].path
    if len(look.files) == 1 and only.name.lower().endswith(ARCHIVES):
        packed = only.rename(folder.with_name(f"{folder.name}-{only.name}"))
        try:
            unpack_apart(packed, folder, limit, lambda: note(0))
        except ModelhostError as error:
            if error.reason in (Reason.UPLOAD_INVALID, Reason.UPLOAD_LIMIT):
                raise _invalid(f"{shown(look.uri)}: {error.message}") from None
            raise
        finally:
            packed.unlink()


def _invalid(message: str) -> ModelhostError:
    return ModelhostError(Reason.SOURCE_INVALID, f"source: {message}", field="source")
