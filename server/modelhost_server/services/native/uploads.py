"""What ModelService of modelhost.v1 does about uploads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from modelhost.v1 import model_service_pb2 as pb

from ...errors import ModelhostError, Reason
from ...hosting.host import Host
from ...sources.manifest import ARCHIVE, FILES, Manifest, UploadedFile
from ...sources.uploads import SCHEME
from ...store.records import Scope
from ..call import Call

# Who sends nothing for so long has gone without a word, and keeps others from going on.
_SILENCE_SECONDS = 60.0
_FORMATS = {pb.UPLOAD_FORMAT_UNSPECIFIED: FILES, pb.UPLOAD_FORMAT_FILES: FILES, pb.UPLOAD_FORMAT_ARCHIVE: ARCHIVE}


class ModelUploads:
    """Takes models from callers."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._uploads = host.sources.uploads

    async def prepare_upload(self, request: pb.PrepareUploadRequest, call: Call) -> pb.PrepareUploadResponse:
        """Announces an upload."""
        scope = self._scope(request.scope)
        if request.format not in _FORMATS:
            raise ModelhostError(
                Reason.INVALID_REQUEST,
                f"format: expected one of modelhost.v1.UploadFormat; got the number {request.format}",
                field="format",
            )
        files = tuple(UploadedFile(file.path, file.size, file.sha256.hex()) for file in request.files)
        prepared = await self._uploads.prepare(scope.name, Manifest(_FORMATS[request.format], files))
        return pb.PrepareUploadResponse(
            upload=prepared.id,
            source=SCHEME + prepared.id,
            complete=prepared.is_complete,
            missing=[pb.MissingFile(file=index, offset=arrived) for index, arrived in prepared.missing],
        )

    async def upload_model(self, requests: AsyncIterator[pb.UploadModelRequest], call: Call) -> pb.UploadModelResponse:
        """Takes what is missing of an upload."""
        first = await _next(requests)
        if first is None:
            raise ModelhostError(Reason.INVALID_REQUEST, "expected at least one message; got none")
        scope = self._scope(first.scope)
        source = SCHEME + first.upload
        receiving = await self._uploads.receive(scope.name, first.upload)
        if receiving is None:
            return pb.UploadModelResponse(source=source, byte_size=self._uploads.size(scope.name, first.upload))
        try:
            piece: pb.UploadModelRequest | None = first
            while piece is not None:
                self._host.draining.check_accepting()
                await receiving.write(piece.file, piece.offset, piece.data)
                piece = await _next(requests)
            size = await receiving.finish()
        finally:
            await receiving.close()
        return pb.UploadModelResponse(source=source, byte_size=size)

    def _scope(self, name: str) -> Scope:
        self._host.draining.check_accepting()
        scope = self._host.store.scope(name)
        if scope.deleting:
            raise ModelhostError(Reason.CONFLICT, f"scope {scope.name!r} is being deleted")
        return scope


async def _next(requests: AsyncIterator[pb.UploadModelRequest]) -> pb.UploadModelRequest | None:
    try:
        async with asyncio.timeout(_SILENCE_SECONDS):
            return await anext(requests, None)
    except TimeoutError:
        raise ModelhostError(
            Reason.DEADLINE_EXCEEDED,
            f"nothing came for {_SILENCE_SECONDS:.0f} s; ask PrepareUpload what is missing, and go on from there",
        ) from None
