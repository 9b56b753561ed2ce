"""Serves the REST door by uvicorn, which tells of callers that leave; h2corn does not, for HTTP/1.1."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import Any

import uvicorn

from ..hosting.host import Host
from ..transport.base import TransportOptions
from ..transport.guard import Guard
from ..transport.listeners import Listeners
from ..transport.renewal import Renewal
from ..transport.routes import Route
from . import open_inference, paths, tensorflow_serving
from .application import rest_application
from .calls import Methods
from .patience import PatientProtocol

# Clients keep connections and do not expect them to go; nothing is lost by keeping them, too.
_KEEP_ALIVE_SECONDS = 600


class RestDoor:
    """HTTP beside gRPC, over the same services. Listens, starts and stops once, in this order.

    Args:
        host: what the services are over.
        nothing: a host that has no scopes, see `Guard`.
        routes: the services' methods.
        guard: whom they ask who may do what; None where callers are not authenticated.
        options: as every transport's.
    """

    def __init__(
        self, host: Host, nothing: Host, routes: Sequence[Route], guard: Guard | None, options: TransportOptions
    ) -> None:
        paths.register()
        methods = Methods(routes, host, nothing, guard)
        self._application = rest_application(
            [
                *tensorflow_serving.routes(methods, options.max_receive_bytes),
                *open_inference.routes(methods, options.max_receive_bytes),
            ]
        )
        self._options = options
        self._tls = options.tls
        self._listeners = Listeners(reuse_port=False)
        self._renewal: Renewal | None = None
        self._renewed: ssl.SSLContext | None = None
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    def listen(self, address: str) -> str:
        """Takes an address, HOST:PORT or unix:PATH; answers it as a URL, with the port that was really bound.

        Raises:
            OSError: it cannot be listened on.
        """
        (opened,) = self._listeners.open([address])
        for listener in self._listeners.tcp:
            # Connections inherit it. Otherwise the end of an answer waits until its beginning is acknowledged: 40 ms.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        secured = self._tls is not None and not self._listeners.unix
        return f"{'https' if secured else 'http'}://{opened}"

    async def start(self) -> None:
        """Begins to answer."""
        server = self._server = _Server(self._config())
        sockets = [*self._listeners.tcp, *self._listeners.unix]
        self._serving = asyncio.create_task(server.serve(sockets))
        await server.listening.wait()

    async def stop(self, seconds: float) -> None:
        """Takes no new requests, gives those under way this long, and ends."""
        if self._renewal is not None:
            await self._renewal.stop()
        if self._server is not None and self._serving is not None:
            self._server.config.timeout_graceful_shutdown = seconds  # type: ignore[assignment]
            self._server.should_exit = True
            await self._serving
        self._listeners.close()

    def _config(self) -> uvicorn.Config:
        secured: dict[str, Any] = {}
        # As with gRPC: who may connect to a Unix socket is the file system's to say.
        if self._tls is not None and self._listeners.tcp:
            context = self._tls.context()
            # Each handshake takes what was read last; the context that began it cannot forget an authority.
            context.sni_callback = self._use_renewed
            secured = {"ssl_context_factory": lambda *_: context}
            self._renewal = Renewal(self._tls, self._renew)

        class protocol(PatientProtocol):  # noqa: N801
            seconds = self._options.slow_reader_seconds

        return uvicorn.Config(
            self._application, http=protocol, ws="none", lifespan="off", log_config=None, log_level="error",
            access_log=False, server_header=False, timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            limit_concurrency=self._options.max_connections,
            # Who calls is who has connected, whatever the headers say: callers share the queue fairly.
            proxy_headers=False, **secured,
        )  # fmt: skip

    def _renew(self, context: ssl.SSLContext) -> None:
        self._renewed = context

    def _use_renewed(self, connection: ssl.SSLObject, _: str | None, began_with: ssl.SSLContext) -> None:
        connection.context = self._renewed or began_with


class _Server(uvicorn.Server):
    """A server in somebody else's process: signals are not its business."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.listening.set()
