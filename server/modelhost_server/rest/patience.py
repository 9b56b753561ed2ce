"""Ends connections whose other end takes its time: to send a request, or to take an answer."""

from __future__ import annotations

import asyncio

import h11

from .certificates import CertificateProtocol


class PatientProtocol(CertificateProtocol):
    """HTTP/1.1 of one connection. `seconds` is how long is waited for the head of a request, for each next piece of its
    body, and for some of an answer to be taken.
    """

    seconds = 60.0
    _asked: asyncio.TimerHandle | None = None
    _told: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self._wait_for_request()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        was_idle = self.conn.their_state is h11.IDLE
        super().data_received(data)
        is_idle = self.conn.their_state is h11.IDLE
        if self._is_receiving() or is_idle:
            # The head has its time as a whole, however many pieces it comes in.
            if not (was_idle and is_idle and self._asked is not None):
                self._wait_for_request()
        else:
            self._end_wait()

    def on_response_complete(self) -> None:
        """See H11Protocol. Between requests uvicorn keeps connections for as long as it was told to."""
        self._end_wait()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        super().pause_writing()
        self._told = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        super().resume_writing()
        if self._told is not None:
            self._told.cancel()
            self._told = None

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._end_wait()
        if self._told is not None:
            self._told.cancel()
        super().connection_lost(error)

    def _is_receiving(self) -> bool:
        return self.conn.their_state is h11.SEND_BODY

    def _wait_for_request(self) -> None:
        self._end_wait()
        self._asked = self.loop.call_later(self.seconds, self.transport.abort)

    def _end_wait(self) -> None:
        if self._asked is not None:
            self._asked.cancel()
            self._asked = None
