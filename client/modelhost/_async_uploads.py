"""Sending models to a server that does not share a disk with the caller."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable

from modelhost.v1 import model_service_pb2

from ._async_connection import AsyncConnection
from ._errors import ConflictError, DeadlineExceededError, ModelhostError, NotFoundError, UnavailableError
from ._local_models import LocalModel, PieceReader, local_model, new_hash, read_and_hash
from ._names import ModelRef, check_name
from ._spawning import async_in_thread
from ._types import LoadProgress, LoadStage

# Without a byte more having arrived, an upload is taken up again so often.
_ATTEMPTS = 6
_FIRST_DELAY = 0.5
_LONGEST_DELAY = 8.0

_OnProgress = Callable[[LoadProgress], None]


class AsyncUploads(AsyncConnection):
    """Sends models."""

    async def upload(
        self,
        path: str | os.PathLike[str],
        *,
        scope: str = "",
        version: int | None = None,
        timeout: float | None = None,
        on_progress: _OnProgress | None = None,
    ) -> str:
        """Sends a model to the server, and answers the source to load it by.

        >>> source = await client.upload(models / "half_plus_two")
        >>> loaded = await client.load("uploaded", source)
        >>> (await client.predict("uploaded", [4.0]))["y"]
        array([4.], dtype=float32)

        Only what the server lacks is sent: an upload that was interrupted is taken up where it ended, here a few times
        by itself, and one that is there already costs one question. It stays for as long as a version uses it, and an
        hour longer.

        Args:
            path: on this machine, of a SavedModel, of a directory with one in a sub-directory named by its version
                number, of a `.tflite` or `.keras` file, or of an archive of one of these (`.tar`, `.tar.gz`, `.tgz`,
                `.zip`). Links are followed.
            scope: the scope that may load it; "default" when empty.
            version: of a directory of versions, the one to send; the newest when None.
            timeout: seconds to take at most; None for as long as it takes.
            on_progress: called with news, in stage HASHING and then UPLOADING; maybe in another thread.

        Raises:
            InvalidRequestError: there is no model at `path`, or it is not what may be uploaded.
            NotFoundError: there is no such scope.
            ResourceExhaustedError: it is larger than the server takes.
            UnavailableError: the server cannot be reached, or its disk is full.
            DeadlineExceededError: it has not been sent when the timeout ends; what was sent is kept for an hour.
        """
        if scope:
            check_name("scope", scope)
        end = None if timeout is None else time.monotonic() + timeout
        model = await async_in_thread(local_model, path, version)
        announcement = model.announcement(scope, await self._digests(model, on_progress))
        attempts, delay, least = 0, _FIRST_DELAY, model.byte_size + 1
        while True:
            try:
                prepared = await self._call(self._stubs.models.PrepareUpload, announcement, _left(end))
                if prepared.complete:
                    _tell(on_progress, "UPLOADING", model.byte_size, model.byte_size)
                    return prepared.source
                missing = sum(model.files[part.file].size - part.offset for part in prepared.missing)
                if missing < least:
                    attempts, delay, least = 0, _FIRST_DELAY, missing
                return await self._send(model, scope, prepared, missing, on_progress, end)
            except (UnavailableError, ConflictError, NotFoundError) as error:
                attempts += 1
                is_forgotten = error.reason == "UPLOAD_NOT_FOUND"
                if attempts == _ATTEMPTS or (isinstance(error, NotFoundError) and not is_forgotten):
                    raise
                await asyncio.sleep(min(delay, _left(end) or delay))
                delay = min(2 * delay, _LONGEST_DELAY)

    async def _uploaded(
        self,
        path: str | os.PathLike[str],
        ref: ModelRef,
        timeout: float | None,
        on_progress: _OnProgress | None,
    ) -> tuple[str, float | None]:
        """Sends what a load is to load; the source, and the seconds that are left."""
        end = None if timeout is None else time.monotonic() + timeout
        source = await self.upload(
            path, scope=ref.scope, version=ref.version or None, timeout=timeout, on_progress=on_progress
        )
        return source, _left(end)

    async def _digests(self, model: LocalModel, on_progress: _OnProgress | None) -> list[bytes]:
        digests, done = [], 0
        for file in model.files:
            total = new_hash()
            with file.place.open("rb") as opened:
                while size := await async_in_thread(read_and_hash, opened, total):
                    done += size
                    _tell(on_progress, "HASHING", done, model.byte_size)
            digests.append(total.digest())
        return digests

    async def _send(
        self,
        model: LocalModel,
        scope: str,
        prepared: model_service_pb2.PrepareUploadResponse,
        missing: int,
        on_progress: _OnProgress | None,
        end: float | None,
    ) -> str:
        """Sends what is missing; the source."""
        failures: list[Exception] = []
        reader = PieceReader()

        async def messages() -> AsyncIterator[model_service_pb2.UploadModelRequest]:
            done = model.byte_size - missing
            try:
                yield model_service_pb2.UploadModelRequest(scope=scope, upload=prepared.upload)
                for part in prepared.missing:
                    file, offset = model.files[part.file], part.offset
                    while offset < file.size:
                        data = await async_in_thread(reader.read, file, offset)
                        yield model_service_pb2.UploadModelRequest(file=part.file, offset=offset, data=data)
                        offset += len(data)
                        done += len(data)
                        _tell(on_progress, "UPLOADING", done, model.byte_size)
            except Exception as error:
                # gRPC would tell the server nothing of it, and us nothing about it.
                failures.append(error)

        try:
            with self._told_errors():
                response = await self._stubs.models.UploadModel(messages(), timeout=_left(end), metadata=self._metadata)
        except ModelhostError:
            if failures:
                raise failures[0] from None
            raise
        finally:
            reader.close()
        return response.source


def _left(end: float | None) -> float | None:
    """Seconds that are left.

    Raises:
        DeadlineExceededError: there are none.
    """
    if end is None:
        return None
    left = end - time.monotonic()
    if left <= 0:
        raise DeadlineExceededError(
            "the model had not been sent when the timeout ended; what was sent is kept for an hour",
            reason="DEADLINE_EXCEEDED",
        )
    return left


def _tell(on_progress: _OnProgress | None, stage: LoadStage, done: int, total: int) -> None:
    if on_progress is not None:
        on_progress(LoadProgress(stage, done / total if total else 1.0, done, total))
