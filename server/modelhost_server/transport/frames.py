"""What a front process and the primary say to each other: frames over a Unix socket.

A frame is a header (body length, kind, call id) and a body. All that is sent within one turn of the event loop goes out
in one write.
"""

from __future__ import annotations

import asyncio
import json
import math
import struct
from collections.abc import Callable
from enum import IntEnum

from ..access.identity import NO_CREDENTIALS, Credentials
from ..services.call import Call

_HEADER = struct.Struct("<IBQ")
_CALL = struct.Struct("<HdHI")
_CREDIT = struct.Struct("<I")
# Larger parts are written by themselves: copying them behind others costs more than a write.
_LARGE_BYTES = 64 << 10


class Kind(IntEnum):
    """What a frame is."""

    # Front to primary.
    READY = 1  # It listens.
    CALL = 2  # A call begins; with its request, if it has just one.
    REQUEST = 3  # A message of a stream of requests.
    END = 4  # That stream's end.
    CANCEL = 5  # The caller has left, or its time is up.
    # Primary to front.
    CONFIG = 16  # What the front is to serve, once, as JSON.
    RESPONSE = 17  # A message of a stream of responses.
    RESULT = 18  # The only response of a call, and that it is OK.
    STATUS = 19  # How a call ended: nothing for OK, else a google.rpc.Status.
    DRAIN = 20  # Refuse new calls, give those under way the seconds the body tells, end.
    # Both ways: so many bytes of a stream's messages have been taken.
    CREDIT = 32


OnFrame = Callable[[int, int, memoryview], None]
OnLost = Callable[[], None]


def call_body(route: int, call: Call, now: float) -> bytes:
    """How a CALL begins; what follows is the request. Clocks differ: what is sent are the seconds left."""
    remaining = math.inf if call.deadline is None else call.deadline - now
    caller, credentials = call.caller.encode(), b""
    if call.credentials is not NO_CREDENTIALS:
        credentials = json.dumps([call.credentials.authorization, call.credentials.subject]).encode()
    return _CALL.pack(route, remaining, len(caller), len(credentials)) + caller + credentials


def read_call(body: memoryview, now: float) -> tuple[int, Call, memoryview]:
    """The route, call and request of a CALL."""
    route, remaining, caller_length, credentials_length = _CALL.unpack_from(body)
    middle = _CALL.size + caller_length
    end = middle + credentials_length
    credentials = NO_CREDENTIALS
    if credentials_length:
        credentials = Credentials(*json.loads(bytes(body[middle:end])))
    deadline = None if math.isinf(remaining) else now + remaining
    return route, Call(deadline, str(body[_CALL.size : middle], "utf-8"), credentials), body[end:]


def credit_body(size: int) -> bytes:
    """The body of a CREDIT."""
    return _CREDIT.pack(size)


def read_credit(body: memoryview) -> int:
    """The bytes of a CREDIT."""
    return int(_CREDIT.unpack(body)[0])


class FrameLink(asyncio.Protocol):
    """One end of the socket.

    Args:
        on_frame: called with each frame's kind, call id and body, which is only to be looked at until it returns.
        on_lost: called once, when the other end has gone.
    """

    def __init__(self, on_frame: OnFrame, on_lost: OnLost) -> None:
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport | None = None
        self._outgoing: list[bytes] = []
        self._received = bytearray()

    def send(self, kind: Kind, call: int, *parts: bytes) -> None:
        """Sends a frame; what is sent to an end that has gone is lost."""
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(_HEADER.pack(sum(map(len, parts)), kind, call))
        self._outgoing.extend(parts)

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if self._transport is None or self._transport.is_closing():
            return
        start = 0
        for i, part in enumerate(outgoing):
            if len(part) >= _LARGE_BYTES:
                self._transport.write(b"".join(outgoing[start:i]))
                self._transport.write(part)
                start = i + 1
        self._transport.write(b"".join(outgoing[start:]))

    def close(self) -> None:
        """Hangs up."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._on_lost()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        buffer: bytes | bytearray = data
        if self._received:
            self._received += data
            buffer = self._received
        start, size = 0, len(buffer)
        with memoryview(buffer) as view:
            while size - start >= _HEADER.size:
                length, kind, call = _HEADER.unpack_from(buffer, start)
                end = start + _HEADER.size + length
                if end > size:
                    break
                with view[start + _HEADER.size : end] as body:
                    self._on_frame(kind, call, body)
                start = end
        if buffer is data:
            self._received = bytearray(data[start:])
        elif start:
            del self._received[:start]
