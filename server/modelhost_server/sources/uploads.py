"""Models that callers sent, by their content: a scope sees its own only.

Below the folder, `SCOPE/complete/ID` is a model, and `SCOPE/partial/ID` what has arrived of one, beside its manifest.
What is removed goes through `.trash`, which no scope can be called.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from ..cached import read_cached
from ..errors import ModelhostError, Reason, brief
from .disk import check_room, detach, size_of, storing
from .manifest import Manifest, check_manifest, over_limit
from .receiving import Receiver, missing

SCHEME = "upload:"
_THREADS = 4
_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MAX_PARTIAL = 64
_MAX_MANIFEST_BYTES = 256 << 20
# After its last byte.
_PARTIAL_SECONDS = 3600.0
# Without a version that uses it.
_UNUSED_SECONDS = 3600.0
# Whoever has just sent it is about to load it, however full it is.
_YOUNG_SECONDS = 600.0

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Prepared:
    """An upload, and what is missing of it: files by index, and the bytes that have arrived of each."""

    id: str
    is_complete: bool
    missing: tuple[tuple[int, int], ...] = ()


class Uploads:
    """All uploads. Methods are called on the event loop; what takes time is done in threads.

    Args:
        folder: nobody else writes there, but models do where it is in the cache.
        limit: bytes that an upload may have, unpacked, and that those together may have that no version uses.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self.limit = limit
        # Not those of the event loop, which others wait for.
        self._threads = ThreadPoolExecutor(_THREADS, "uploads")
        self._receiving: dict[Key, Receiving] = {}
        # Complete ones: last used, and their sizes where they are known.
        self._used: dict[Key, float] = {}
        self._sizes: dict[Key, int] = {}
        self._started = time.time()
        self._closing = threading.Event()

    async def start(self) -> None:
        """Removes what an earlier server has left half done."""
        self._folder.mkdir(parents=True, exist_ok=True)
        await self.collect(lambda: None)

    def close(self) -> None:
        """Ends the work in threads."""
        self._closing.set()
        self._threads.shutdown(wait=True, cancel_futures=True)

    # Sending

    async def prepare(self, scope: str, manifest: Manifest) -> Prepared:
        """Announces an upload, and tells what is missing.

        Raises:
            ModelhostError: UPLOAD_INVALID, UPLOAD_LIMIT, STORAGE_FAILED.
        """
        check_manifest(manifest, self.limit)
        key = (scope, manifest.id)
        if self._touch(key):
            return Prepared(manifest.id, is_complete=True)
        lacking = await self.run(self._prepare, key, manifest)
        return Prepared(manifest.id, is_complete=False, missing=lacking)

    def _prepare(self, key: Key, manifest: Manifest) -> tuple[tuple[int, int], ...]:
        partial = self._partial(key)
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

    def _check_room(self, manifest: Manifest, lacking: Iterable[tuple[int, int]]) -> None:
        size = sum(manifest.files[index].size - arrived for index, arrived in lacking)
        check_room(self._folder, "the upload", size + sum(one.size for one in self._receiving.values()))

    async def receive(self, scope: str, upload: str) -> Receiving | None:
        """Begins to take what is missing of an upload; None when it is complete. Must be closed.

        Raises:
            ModelhostError: UPLOAD_NOT_FOUND, CONFLICT, STORAGE_FAILED.
        """
        key = (scope, upload)
        if not _ID.fullmatch(upload):
            raise _unknown(key)
        if self._touch(key):
            return None
        if key in self._receiving:
            raise ModelhostError(
                Reason.CONFLICT,
                "upload: another call is sending it; ask PrepareUpload again when that has ended",
                retry_after=1.0,
            )
        receiving = self._receiving[key] = Receiving(self, key)
        try:
            await receiving.begin()
        except BaseException:
            await receiving.close()
            raise
        return receiving

    def open(self, key: Key) -> tuple[Receiver, int]:
        """What takes the pieces of an upload, and how many bytes are missing of it. Blocking.

        Raises:
            ModelhostError: UPLOAD_NOT_FOUND, STORAGE_FAILED.
        """
        partial = self._partial(key)
        try:
            manifest = Manifest.from_json(read_cached(partial / "manifest", _MAX_MANIFEST_BYTES).decode())
            # Models may write where it is kept. Its files are to be written: they must be what was announced.
            check_manifest(manifest, self.limit)
            if manifest.id != key[1]:
                raise _unknown(key)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise _unknown(key) from None
        with storing("the upload"):
            lacking = missing(partial, manifest)
        self._check_room(manifest, lacking)
        size = sum(manifest.files[index].size - arrived for index, arrived in lacking)
        return Receiver(partial, manifest, self._check_open), size

    def complete(self, key: Key, receiver: Receiver) -> int:
        """Makes a complete upload of one that has all; its size. Blocking.

        Raises:
            ModelhostError: UPLOAD_INVALID, UPLOAD_LIMIT, STORAGE_FAILED.
        """
        size = self._sizes[key] = receiver.finish(self._complete(key), self.limit)
        shutil.rmtree(self._partial(key), ignore_errors=True)
        return size

    def end(self, key: Key, is_full: bool) -> None:
        """What has arrived of an upload stays, unless the disk is full of it. Blocking."""
        if is_full:
            shutil.rmtree(self._partial(key), ignore_errors=True)
        else:
            with suppress(OSError):
                os.utime(self._partial(key) / "manifest")

    def forget(self, key: Key) -> None:
        """A call that sent an upload has ended."""
        del self._receiving[key]

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise ModelhostError(Reason.SERVER_DRAINING, "the server is shutting down; go on later")

    # Loading

    def size(self, scope: str, upload: str) -> int:
        """Bytes of a complete upload, once it has been measured."""
        return self._sizes[scope, upload]

    def path(self, scope: str, source: str) -> Path:
        """Where the model of an `upload:` source is.

        Raises:
            ModelhostError: SOURCE_NOT_FOUND.
        """
        key = (scope, source.removeprefix(SCHEME))
        if not _ID.fullmatch(key[1]) or not self._touch(key):
            raise ModelhostError(
                Reason.SOURCE_NOT_FOUND,
                f"source: the scope {brief(scope)} has no complete upload {brief(source, 80)}; send it first "
                "(client.upload, or modelhost upload), or again if no version has used it for an hour",
                field="source",
            )
        return self._complete(key)

    # Removing

    async def collect(self, in_use: Callable[[], set[Key] | None]) -> None:
        """Removes what nobody completes, and what no version uses.

        Args:
            in_use: the uploads that versions use now; None when that is not known yet, and none is removed.
        """
        partial, complete = await self.run(self._look)
        now = time.time()
        doomed = [
            self._partial(key) for key, used in partial.items()
            if key not in self._receiving and used < now - _PARTIAL_SECONDS
        ]  # fmt: skip
        # From here on nothing waits: what is asked for meanwhile is not removed.
        used = in_use()
        if used is not None:
            unused = sorted(
                (max(seen, self._used.get(key, self._started)), key)
                for key, seen in complete.items()
                if key not in used
            )
            excess = sum(self._sizes[key] for _, key in unused) - self.limit
            for last, key in unused:
                if last < now - _UNUSED_SECONDS or (excess > 0 and last < now - _YOUNG_SECONDS):
                    doomed.append(self._complete(key))
                    excess -= self._sizes.pop(key)
                    self._used.pop(key, None)
        for folder in doomed:
            detach(folder, self._trash)
        await self.run(shutil.rmtree, self._trash, ignore_errors=True)

    def _look(self) -> tuple[dict[Key, float], dict[Key, float]]:
        """When partial and complete uploads were last touched."""
        partial = {_key(path): _last_change(path) for path in self._folder.glob("*/partial/*")}
        complete = {}
        for path in self._folder.glob("*/complete/*"):
            key = _key(path)
            complete[key] = path.stat().st_mtime
            if key not in self._sizes:
                self._sizes[key] = size_of(path)
        return partial, complete

    async def remove_scope(self, scope: str) -> None:
        """Removes all of a scope's, and ends the calls that send more."""
        await asyncio.gather(*(one.revoke() for key, one in list(self._receiving.items()) if key[0] == scope))
        detach(self._folder / scope, self._trash)
        for key in [key for key in self._sizes if key[0] == scope]:
            del self._sizes[key]
        await self.run(shutil.rmtree, self._trash, ignore_errors=True)

    # Places

    @property
    def _trash(self) -> Path:
        return self._folder / ".trash"

    def _partial(self, key: Key) -> Path:
        return self._folder / key[0] / "partial" / key[1]

    def _complete(self, key: Key) -> Path:
        return self._folder / key[0] / "complete" / key[1]

    def _touch(self, key: Key) -> bool:
        """Notes that a complete upload is wanted; False when there is none."""
        try:
            os.utime(self._complete(key))
        except OSError:
            return False
        self._used[key] = time.time()
        return True

    async def run(
        self, work: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Result:
        """Does work in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(*args, **kwargs))


class Receiving:
    """An upload that one call is sending.

    Attributes:
        size: bytes that were missing when it began.
    """

    def __init__(self, uploads: Uploads, key: Key) -> None:
        self._uploads = uploads
        self._key = key
        self._receiver: Receiver | None = None
        self._work: asyncio.Future[Any] | None = None
        self._is_full = False
        self._is_revoked = False
        self.size = 0

    async def begin(self) -> None:
        """Finds what was announced.

        Raises:
            ModelhostError: UPLOAD_NOT_FOUND, STORAGE_FAILED.
        """
        self._receiver, self.size = await self._do(self._uploads.open, self._key)

    async def write(self, index: int, offset: int, data: bytes) -> None:
        """Takes a piece.

        Raises:
            ModelhostError: UPLOAD_INVALID, STORAGE_FAILED; UPLOAD_NOT_FOUND when its scope has been deleted.
        """
        assert self._receiver is not None
        await self._do(self._receiver.write, index, offset, data)

    async def finish(self) -> int:
        """Makes a complete upload of it; its size. When the caller leaves, it is made all the same.

        Raises:
            ModelhostError: UPLOAD_INVALID, UPLOAD_LIMIT, STORAGE_FAILED.
        """
        assert self._receiver is not None
        return await self._do(self._uploads.complete, self._key, self._receiver)

    async def revoke(self) -> None:
        """Takes no more; answers when nothing is being written."""
        self._is_revoked = True
        if self._work is not None:
            await asyncio.gather(self._work, return_exceptions=True)

    async def close(self) -> None:
        """Ends the sending, once what is under way is done; cancelling does not stop that."""
        await asyncio.shield(asyncio.ensure_future(self._close()))

    async def _close(self) -> None:
        if self._work is not None:
            await asyncio.gather(self._work, return_exceptions=True)
        if self._receiver is not None:
            self._receiver.close()
        await self._uploads.run(self._uploads.end, self._key, self._is_full)
        self._uploads.forget(self._key)

    async def _do(
        self, work: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Result:
        if self._is_revoked:
            raise _unknown(self._key)
        self._work = doing = asyncio.ensure_future(self._uploads.run(work, *args, **kwargs))
        try:
            with storing("the upload"):
                return await asyncio.shield(doing)
        except ModelhostError as error:
            self._is_full = self._is_full or error.reason is Reason.STORAGE_FAILED
            raise


def _unknown(key: Key) -> ModelhostError:
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
    written = partial / "manifest.new"
    written.write_text(manifest.to_json())
    written.replace(partial / "manifest")
