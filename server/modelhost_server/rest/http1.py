"""HTTP/1.1 as uvicorn speaks it, but for what follows bytes that are none."""

from __future__ import annotations

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class Http1Protocol(H11Protocol):
    """A connection. Where bytes that are no HTTP follow a request that is being answered, that answer is dropped and
    not sent behind the refusal, which is an error: uvicorn would raise it, and log a traceback.
    """

    def send_400_response(self, msg: str) -> None:
        """Refuses what came, as far as that can still be said, and hangs up."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()
