"""What a transport is, and what every one of them is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from .tls import TlsFiles

TransportName = Literal["grpcio", "h2corn"]


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """How to serve, whatever serves.

    Attributes:
        max_receive_bytes: largest request message.
        max_send_bytes: largest response message; -1 for no limit.
        tls: of the TCP listeners; None serves plaintext. Unix sockets are always plaintext: who may connect is the
            file system's to say.
        reuse_port: other processes may listen on the same ports.
        max_metadata_bytes: of a call's headers; more is refused.
        max_streams: calls under way on one connection; more wait at their caller.
        max_connections: at the same time, a process; more are closed at once.
        slow_reader_seconds: a stream whose reader takes nothing for so long, while there is something to take, ends.
        authenticates: callers must say who they are; only then are their credentials read.
    """

    max_receive_bytes: int
    max_send_bytes: int = -1
    tls: TlsFiles | None = None
    reuse_port: bool = False
    max_metadata_bytes: int = 16 << 10
    max_streams: int = 1000
    max_connections: int = 4096
    slow_reader_seconds: float = 60.0
    authenticates: bool = False


class Transport(Protocol):
    """Serves routes to callers. Listens, starts and stops once, in this order."""

    def listen(self, addresses: Sequence[str]) -> list[str]:
        """Takes the addresses, HOST:PORT or unix:PATH; answers them with the ports that were really bound.

        Raises:
            OSError: one of them cannot be listened on.
        """

    async def start(self) -> None:
        """Begins to answer calls."""

    async def stop(self, seconds: float) -> None:
        """Refuses new calls, gives those under way this long, and ends."""
