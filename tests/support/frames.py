"""HTTP/2 as a hostile caller speaks it: frames by hand, in any order."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping

DATA, HEADERS, RST_STREAM, SETTINGS, PING, CONTINUATION = 0, 1, 3, 4, 6, 9
END_STREAM, END_HEADERS = 1, 4
INITIAL_WINDOW_SIZE = 4
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CHECK = "/grpc.health.v1.Health/Check"


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    """A frame."""
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def _text(text: str) -> bytes:
    encoded = text.encode()
    assert len(encoded) < 127
    return bytes([len(encoded)]) + encoded


def call_headers(path: str, more: Mapping[str, str] | None = None) -> bytes:
    """The headers of a gRPC call, none of them compressed."""
    headers = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost"}
    headers |= {"content-type": "application/grpc", "te": "trailers", **(more or {})}
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in headers.items())


def call(stream: int, path: str, message: bytes = b"") -> bytes:
    """A call with one message."""
    body = struct.pack(">?I", False, len(message)) + message
    return frame(HEADERS, END_HEADERS, stream, call_headers(path)) + frame(DATA, END_STREAM, stream, body)


class Connection:
    """A connection to a server."""

    def __init__(self, address: str) -> None:
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.socket.sendall(_PREFACE + frame(SETTINGS, 0, 0))

    def send(self, data: bytes) -> bool:
        """Sends; whether the server still takes it."""
        try:
            self.socket.sendall(data)
        except (TimeoutError, OSError):
            return False
        return True

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
