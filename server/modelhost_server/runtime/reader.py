"""Reads frames as they come from the server."""

from __future__ import annotations

import socket

from ..ipc.frames import HEADER

_READ_BYTES = 256 << 10


class FrameReader:
    """Reads frames from a blocking socket; one thread at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray(_READ_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0

    def read(self) -> tuple[int, int, memoryview] | None:
        """The next frame's kind, call and body; None when the server has gone."""
        try:
            return self._read()
        except ConnectionError:
            # What the server went away without reading turns its end of stream into an error.
            return None

    def _read(self) -> tuple[int, int, memoryview] | None:
        if not self._fill(HEADER.size):
            return None
        length, kind, call = HEADER.unpack_from(self._buffer, self._start)
        self._start += HEADER.size
        body = bytearray(length)
        there = min(length, self._end - self._start)
        body[:there] = self._view[self._start : self._start + there]
        self._start += there
        view = memoryview(body)
        while there < length:
            count = self._sock.recv_into(view[there:])
            if count == 0:
                return None
            there += count
        return kind, call, view

    def _fill(self, size: int) -> bool:
        while self._end - self._start < size:
            if self._start == self._end:
                self._start = self._end = 0
            elif _READ_BYTES - self._start < size:
                rest = self._end - self._start
                self._buffer[:rest] = self._buffer[self._start : self._end]
                self._start, self._end = 0, rest
            count = self._sock.recv_into(self._view[self._end :])
            if count == 0:
                return False
            self._end += count
        return True
