"""Uploads as the protocol has them, for tests that say what the SDK would never say."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from modelhost.v1 import model_service_pb2 as pb

from .server import Stubs


def files_of(model: Path) -> dict[str, bytes]:
    """A model's files by path."""
    return {
        path.relative_to(model).as_posix(): path.read_bytes() for path in sorted(model.rglob("*")) if path.is_file()
    }


def prepare(
    stubs: Stubs, scope: str, files: Mapping[str, bytes], kind: pb.UploadFormat.ValueType = pb.UPLOAD_FORMAT_FILES
) -> pb.PrepareUploadResponse:
    """Announces files."""
    described = [
        pb.UploadFile(path=path, size=len(data), sha256=hashlib.sha256(data).digest()) for path, data in files.items()
    ]
    return stubs.models.PrepareUpload(pb.PrepareUploadRequest(scope=scope, files=described, format=kind), timeout=30)


def pieces(
    scope: str, prepared: pb.PrepareUploadResponse, files: Mapping[str, bytes], size: int = 1 << 20
) -> Iterator[pb.UploadModelRequest]:
    """What is missing."""
    contents = list(files.values())
    yield pb.UploadModelRequest(scope=scope, upload=prepared.upload)
    for part in prepared.missing:
        data = contents[part.file]
        for offset in range(part.offset, len(data), size):
            yield pb.UploadModelRequest(file=part.file, offset=offset, data=data[offset : offset + size])


def send(
    stubs: Stubs, scope: str, files: Mapping[str, bytes], kind: pb.UploadFormat.ValueType = pb.UPLOAD_FORMAT_FILES
) -> str:
    """Uploads files; the source."""
    prepared = prepare(stubs, scope, files, kind)
    return stubs.models.UploadModel(pieces(scope, prepared, files), timeout=60).source
