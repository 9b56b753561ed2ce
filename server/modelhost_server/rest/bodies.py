"""The bodies of requests, as far as they are bounded."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from starlette.requests import Request

from .failures import HttpError

# As zlib tells the two formats from one another: RFC 1952 and RFC 1950.
_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
# Times the limit.
_THROWN_AWAY = 8
# After a body that is not read to its end nothing else can follow.
_NO_MORE = {"Connection": "close"}


async def read_body(request: Request, limit: int) -> bytes:
    """The body, decompressed if need be.

    Raises:
        HttpError: it is larger than the limit, or not compressed as it should be.
        ClientDisconnect: the caller has left.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", *_WINDOW):
        raise HttpError(415, "Unsupported compression type", {"Accept-Encoding": ", ".join(_WINDOW)})
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit and "expect" in request.headers:
        raise _too_large(limit, _NO_MORE)
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size <= limit:
            pieces.append(piece)
            continue
        # Who is still writing would not read an answer, so the rest is taken and thrown away, up to a point.
        pieces.clear()
        if size > limit * _THROWN_AWAY:
            raise _too_large(limit, _NO_MORE)
    if size > limit:
        raise _too_large(limit)
    body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return _decompressed(body, encoding, limit) if encoding in _WINDOW else body


def _decompressed(body: bytes, encoding: str, limit: int) -> bytes:
    decompressor = zlib.decompressobj(_WINDOW[encoding])
    try:
        content = decompressor.decompress(body, limit + 1)
    except zlib.error as error:
        raise HttpError(400, f"the body is not {encoding}: {error}") from None
    if len(content) > limit:
        raise _too_large(limit)
    if not decompressor.eof:
        raise HttpError(400, f"the body is not {encoding}: its end is missing")
    if decompressor.unused_data:
        raise HttpError(400, f"the body is not {encoding}: {len(decompressor.unused_data)} bytes follow its end")
    return content


def _too_large(limit: int, headers: Mapping[str, str] | None = None) -> HttpError:
    return HttpError(413, f"the request is larger than {limit} bytes", headers)
