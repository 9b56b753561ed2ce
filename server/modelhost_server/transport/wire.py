"""gRPC over HTTP/2 as its specification has it: frames of messages, timeouts, statuses as headers.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import base64
import re
import string
import struct
from urllib.parse import quote

from google.rpc import status_pb2

from ..errors import Code, ModelhostError, Reason
from .status import StatusError, status_error

Headers = list[tuple[bytes, bytes]]

FRAME = struct.Struct(">?I")
CONTENT_TYPE = (b"content-type", b"application/grpc")
# Nothing is ever compressed: tensors gain little, and it costs more than the network does.
_ENCODING = (b"grpc-accept-encoding", b"identity")
_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_TIMEOUT_DIGITS = 8
# Printable ASCII but for the percent sign stays as it is.
_PLAIN = string.punctuation.replace("%", "") + " "
_OUTER_SPACES = re.compile("^ +| +$")


def timeout_seconds(value: bytes) -> float:
    """What a grpc-timeout header says.

    Raises:
        ModelhostError: INVALID_REQUEST.
    """
    digits, unit = value[:-1], value[-1:]
    if unit not in _SECONDS or not digits.isdigit() or len(digits) > _TIMEOUT_DIGITS:
        raise ModelhostError(
            Reason.INVALID_REQUEST,
            "grpc-timeout: expected up to 8 digits and one of H, M, S, m, u, n",
        )
    return int(digits) * _SECONDS[unit]


def status_headers(status: status_pb2.Status) -> Headers:
    """A status that is not OK, as headers or trailers."""
    # A header's value neither begins nor ends with a space.
    message = _OUTER_SPACES.sub(lambda spaces: "%20" * len(spaces[0]), quote(status.message, safe=_PLAIN))
    headers = [(b"grpc-status", b"%d" % status.code), (b"grpc-message", message.encode())]
    if status.details:
        headers.append((b"grpc-status-details-bin", base64.b64encode(status.SerializeToString()).rstrip(b"=")))
    if status.code == Code.UNIMPLEMENTED:
        headers.append(_ENCODING)
    return headers


def message_length(head: bytes, start: int, limit: int) -> int:
    """The length of the message whose frame begins at `start`.

    Raises:
        StatusError: it is compressed, or too large.
    """
    compressed, length = FRAME.unpack_from(head, start)
    if compressed:
        raise status_error(Code.UNIMPLEMENTED, "compressed messages are not supported; send them as they are")
    if length > limit:
        raise too_large("Received", length, limit)
    return int(length)


def too_large(done: str, size: int, limit: int) -> StatusError:
    """A message that is over its limit, in gRPC's own words."""
    return status_error(Code.RESOURCE_EXHAUSTED, f"SERVER: {done} message larger than max ({size} vs. {limit})")
