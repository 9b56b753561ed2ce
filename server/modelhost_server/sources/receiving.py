"""What one call sends of an upload. What takes time is done in threads, to its end also when the call has left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from ..errors import ModelhostError, Reason
from .disk import storing
from .pieces import Pieces
from .upload_folder import Key, UploadFolder, unknown_upload

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class Receiving:
    """An upload that one call is sending.

    Args:
        folder: where it goes.
        key: the upload.
        on_end: called when the call has ended.

    Attributes:
        size: bytes that were missing when it began.
    """

    def __init__(self, folder: UploadFolder, key: Key, on_end: Callable[[], object]) -> None:
        self._folder = folder
        self._key = key
        self._on_end = on_end
        self._pieces: Pieces | None = None
        self._work: asyncio.Future[Any] | None = None
        self._is_full = False
        self._is_revoked = False
        self.size = 0

    async def begin(self) -> None:
        """Finds what was announced.

        Raises:
            ModelhostError: UPLOAD_NOT_FOUND, STORAGE_FAILED.
        """
        self._pieces, self.size = await self._do(self._folder.open, self._key)

    async def write(self, index: int, offset: int, data: bytes) -> None:
        """Takes a piece.

        Raises:
            ModelhostError: UPLOAD_INVALID, STORAGE_FAILED; UPLOAD_NOT_FOUND when its scope has been deleted.
        """
        assert self._pieces is not None
        await self._do(self._pieces.write, index, offset, data)

    async def finish(self) -> int:
        """Makes a complete upload of it; its size. When the caller leaves, it is made all the same.

        Raises:
            ModelhostError: UPLOAD_INVALID, UPLOAD_LIMIT, STORAGE_FAILED.
        """
        assert self._pieces is not None
        return await self._do(self._folder.complete, self._key, self._pieces)

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
        if self._pieces is not None:
            self._pieces.close()
        await self._folder.run(self._folder.end, self._key, self._is_full)
        self._on_end()

    async def _do(
        self, work: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Result:
        if self._is_revoked:
            raise unknown_upload(self._key)
        self._work = doing = asyncio.ensure_future(self._folder.run(work, *args, **kwargs))
        try:
            with storing("the upload"):
                return await asyncio.shield(doing)
        except ModelhostError as error:
            self._is_full = self._is_full or error.reason is Reason.STORAGE_FAILED
            raise
