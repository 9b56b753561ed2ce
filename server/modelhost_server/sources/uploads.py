"""Models that callers sent, by their content: a scope sees its own only."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelhostError, Reason, brief
from .manifest import Manifest, check_manifest
from .receiving import Receiving
from .upload_folder import Key, UploadFolder, unknown_upload

SCHEME = "upload:"
_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)
# After its last byte.
_PARTIAL_SECONDS = 3600.0
# Without a version that uses it.
_UNUSED_SECONDS = 3600.0
# Whoever has just sent it is about to load it, however full it is.
_YOUNG_SECONDS = 600.0


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
        self._folder = UploadFolder(folder, limit, lambda: sum(one.size for one in self._receiving.values()))
        self.limit = limit
        self._receiving: dict[Key, Receiving] = {}
        # When complete ones were used last.
        self._used: dict[Key, float] = {}
        self._started = time.time()

    async def start(self) -> None:
        """Removes what an earlier server has left half done."""
        self._folder.make()
        await self.collect(lambda: None)

    def close(self) -> None:
        """Ends the work in threads."""
        self._folder.close()

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
        lacking = await self._folder.run(self._folder.prepare, key, manifest)
        return Prepared(manifest.id, is_complete=False, missing=lacking)

    async def receive(self, scope: str, upload: str) -> Receiving | None:
        """Begins to take what is missing of an upload; None when it is complete. Must be closed.

        Raises:
            ModelhostError: UPLOAD_NOT_FOUND, CONFLICT, STORAGE_FAILED.
        """
        key = (scope, upload)
        if not _ID.fullmatch(upload):
            raise unknown_upload(key)
        if self._touch(key):
            return None
        if key in self._receiving:
            raise ModelhostError(
                Reason.CONFLICT,
                "upload: another call is sending it; ask PrepareUpload again when that has ended",
                retry_after=1.0,
            )
        receiving = self._receiving[key] = Receiving(self._folder, key, lambda: self._receiving.pop(key))
        try:
            await receiving.begin()
        except BaseException:
            await receiving.close()
            raise
        return receiving

    # Loading

    def size(self, scope: str, upload: str) -> int:
        """Bytes of a complete upload, once it has been measured."""
        return self._folder.sizes[scope, upload]

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
        return self._folder.complete_path(key)

    # Removing

    async def collect(self, in_use: Callable[[], set[Key] | None]) -> None:
        """Removes what nobody completes, and what no version uses.

        Args:
            in_use: the uploads that versions use now; None when that is not known yet, and none is removed.
        """
        partial, complete = await self._folder.run(self._folder.look)
        now = time.time()
        doomed = [
            self._folder.partial_path(key) for key, used in partial.items()
            if key not in self._receiving and used < now - _PARTIAL_SECONDS
        ]  # fmt: skip
        # From here on nothing waits: what is asked for meanwhile is not removed.
        used = in_use()
        if used is not None:
            unused = sorted(
                (max(seen, self._used.get(key, self._started)), key)
                for key, seen in complete.items()
                # Some may have gone with their scope meanwhile.
                if key not in used and key in self._folder.sizes
            )
            excess = sum(self._folder.sizes[key] for _, key in unused) - self.limit
            for last, key in unused:
                if last < now - _UNUSED_SECONDS or (excess > 0 and last < now - _YOUNG_SECONDS):
                    doomed.append(self._folder.complete_path(key))
                    excess -= self._folder.sizes.pop(key)
                    self._used.pop(key, None)
        await self._folder.remove(doomed)

    async def remove_scope(self, scope: str) -> None:
        """Removes all of a scope's, and ends the calls that send more."""
        await asyncio.gather(*(one.revoke() for key, one in list(self._receiving.items()) if key[0] == scope))
        await self._folder.remove_scope(scope)

    def _touch(self, key: Key) -> bool:
        """Notes that a complete upload is wanted; False when there is none."""
        if not self._folder.touch(key):
            return False
        self._used[key] = time.time()
        return True
