"""The uploads on the disk, and the threads that work on them.

Below the folder, `SCOPE/complete/ID` is a model, and `SCOPE/partial/ID` what has arrived of one, beside its manifest.
What is removed goes through `.trash`, which no scope can be called.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

from ..cached import read_cached
from ..errors import ModelhostError, Reason, brief
from .disk import check_room, detach, size_of, storing
from .manifest import Manifest, check_manifest, over_limit
from .pieces import Pieces, missing

_THREADS = 4
_MAX_PARTIAL = 64
_MAX_MANIFEST_BYTES = 256 << 20

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
# An upload: its scope, and its id.
Key = tuple[str, str]


class UploadFolder:
    """Where uploads are.

    Args:
        place: nobody else writes there.
        limit: bytes that an upload may have, unpacked.
        coming: bytes that calls under way are sending.

    Attributes:
        sizes: of complete uploads, where they are known.
    """

    def __init__(self, place: Path, limit: int, coming: Callable[[], int]) -> None:
        self._place = place
        self._limit = limit
        self._coming = coming
        self.sizes: dict[Key, int] = {}
        # Not those of the event loop, which others wait for.
        self._threads = ThreadPoolExecutor(_THREADS, "uploads")
        self._closing = threading.Event()

    async def run(
        self, work: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Result:
        """Does work in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(*args, **kwargs))

    def close(self) -> None:
        """Ends the work in threads."""
        self._closing.set()
        self._threads.shutdown(wait=True, cancel_futures=True)

    @property
    def _trash(self) -> Path:
        return self._place / ".trash"

    def partial_path(self, key: Key) -> Path:
        """Of what has arrived of an upload."""
        return self._place / key[0] / "partial" / key[1]

    def complete_path(self, key: Key) -> Path:
        """Of a model that is complete."""
        return self._place / key[0] / "complete" / key[1]

    # Fast enough for the event loop

    def make(self) -> None:
        """Makes the folder."""
        self._place.mkdir(parents=True, exist_ok=True)

    def touch(self, key: Key) -> bool:
        """Notes that a complete upload is wanted; False when there is none."""
        try:
            os.utime(self.complete_path(key))
        except OSError:
            return False
        return True

    async def remove(self, doomed: Iterable[Path]) -> None:
        """Removes directories: they are gone at once, and freed by and by."""
        for path in doomed:
            detach(path, self._trash)
        await self._empty_trash()

    async def remove_scope(self, scope: str) -> None:
        """Removes all of a scope's."""
        detach(self._place / scope, self._trash)
        # As a whole: threads add to it.
        for key in [key for key in list(self.sizes) if key[0] == scope]:
            del self.sizes[key]
        await self._empty_trash()

    async def _empty_trash(self) -> None:
        await self.run(shutil.rmtree, self._trash, ignore_errors=True)

    # Blocking

    def prepare(self, key: Key, manifest: Manifest) -> tuple[tuple[int, int], ...]:
        """Makes place for an upload; what is missing of it.

        Raises:
            ModelhostError: UPLOAD_LIMIT, STORAGE_FAILED.
        """
        partial = self.partial_path(key)
        with storing("the upload"):
            if not (partial / "manifest").exists():
                others = len(list(partial.parent.glob("*")))
                if others >= _MAX_PARTIAL:
                    raise over_limit(
                        f"{others} uploads of this scope are not complete, and that is the limit; complete one, or "
                        "wait until it is forgotten, an hour after its last byte"
                    )
                partial.mkdir(parents=True, exist_ok=True)
                _write_manifest(partial, manifest)
            os.utime(partial / "manifest")
            lacking = missing(partial, manifest)
        self._check_room(manifest, lacking)
        return tuple(lacking)

    def open(self, key: Key) -> tuple[Pieces, int]:
        """What takes the pieces of an upload, and how many bytes are missing of it.

        Raises:
            ModelhostError: UPLOAD_NOT_FOUND, STORAGE_FAILED.
        """
        partial = self.partial_path(key)
        try:
            manifest = Manifest.from_json(read_cached(partial / "manifest", _MAX_MANIFEST_BYTES).decode())
            # Models may write where it is kept. Its files are to be written: they must be what was announced.
            check_manifest(manifest, self._limit)
            if manifest.id != key[1]:
                raise unknown_upload(key)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise unknown_upload(key) from None
        with storing("the upload"):
            lacking = missing(partial, manifest)
        size = self._check_room(manifest, lacking)
        return Pieces(partial, manifest, self._check_open), size

    def complete(self, key: Key, pieces: Pieces) -> int:
        """Makes a complete upload of one that has all; its size.

        Raises:
            ModelhostError: UPLOAD_INVALID, UPLOAD_LIMIT, STORAGE_FAILED.
        """
        size = self.sizes[key] = pieces.finish(self.complete_path(key), self._limit)
        shutil.rmtree(self.partial_path(key), ignore_errors=True)
        return size

    def end(self, key: Key, is_full: bool) -> None:
        """What has arrived of an upload stays, unless the disk is full of it."""
        if is_full:
            shutil.rmtree(self.partial_path(key), ignore_errors=True)
        else:
            with suppress(OSError):
                os.utime(self.partial_path(key) / "manifest")

    def look(self) -> tuple[dict[Key, float], dict[Key, float]]:
        """When partial and complete uploads were last touched."""
        partial = {_key(path): _last_change(path) for path in self._place.glob("*/partial/*")}
        complete = {}
        for path in self._place.glob("*/complete/*"):
            key = _key(path)
            complete[key] = path.stat().st_mtime
            if key not in self.sizes:
                self.sizes[key] = size_of(path)
        return partial, complete

    def _check_room(self, manifest: Manifest, lacking: Iterable[tuple[int, int]]) -> int:
        """How many bytes are missing, for which there is room."""
        size = sum(manifest.files[index].size - arrived for index, arrived in lacking)
        check_room(self._place, "the upload", size + self._coming())
        return size

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise ModelhostError(Reason.SERVER_DRAINING, "the server is shutting down; go on later")


def unknown_upload(key: Key) -> ModelhostError:
    """What is told of an upload that was not announced."""
    return ModelhostError(
        Reason.UPLOAD_NOT_FOUND,
        f"upload: the scope {brief(key[0])} has none called {brief(key[1])}; announce it with PrepareUpload first",
        field="upload",
    )


def _key(path: Path) -> Key:
    return path.parent.parent.name, path.name


def _last_change(folder: Path) -> float:
    """When something was last written below a directory."""
    last = folder.stat().st_mtime
    for place, _, names in os.walk(folder):
        for name in names:
            last = max(last, Path(place, name).stat().st_mtime)
    return last


def _write_manifest(partial: Path, manifest: Manifest) -> None:
    """There as a whole, or not at all."""
    # Several may announce the same at once.
    written = partial / f"manifest.{uuid.uuid4().hex}"
    written.write_text(manifest.to_json())
    written.replace(partial / "manifest")
