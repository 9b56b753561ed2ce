"""Serves routes through h2corn, an HTTP/2 server in Rust: a call costs a fraction of what it costs grpc.aio."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

import h2corn

from .asgi import GrpcApplication
from .base import TransportOptions
from .listeners import Listeners
from .renewal import Renewal
from .routes import Route
from .tls import Identity

# As gRPC's own servers: connections that nobody uses are kept for two hours.
_IDLE_SECONDS = 7200.0
# What may have arrived and not been read, of a stream and of a connection: streams whose reading waits must not keep
# the others of their connection from being read.
_STREAM_WINDOW = 2 << 20
_CONNECTION_WINDOW = 64 << 20
# It is we who end calls when the drain's time is up, with a status; h2corn would only cut them off.
_NEVER_SECONDS = 1e6


class H2cornTransport:
    """See Transport."""

    def __init__(self, routes: Sequence[Route], options: TransportOptions) -> None:
        self._application = GrpcApplication(routes, options)
        self._options = options
        self._tls = options.tls
        self._listeners = Listeners(options.reuse_port)
        # As many as there are sockets with TLS and without, and those that end with the calls they still have.
        self._servers: set[h2corn.Server] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._renewal: Renewal | None = None
        self._replacing: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    def listen(self, addresses: Sequence[str]) -> list[str]:
        """See Transport."""
        return self._listeners.open(addresses)

    async def start(self) -> None:
        """See Transport."""
        # One server cannot have both: TLS is the TCP listeners' only.
        if self._listeners.unix:
            await self._serve(self._listeners.unix, None)
        if self._listeners.tcp:
            server = await self._serve(self._listeners.tcp, self._tls)
            if self._tls is not None:
                self._renewal = Renewal(self._tls, self._certificates_changed)
                self._replacing = asyncio.create_task(self._keep_replacing(server))

    async def stop(self, seconds: float) -> None:
        """See Transport."""
        if self._renewal is not None and self._replacing is not None:
            await self._renewal.stop()
            self._replacing.cancel()
            await asyncio.gather(self._replacing, return_exceptions=True)
        for server in self._servers:
            server.shutdown()
        self._listeners.close()
        if self._serving:
            await asyncio.wait(self._serving, timeout=seconds)
            self._application.end_calls()
            # Those that ended meanwhile have gone from there.
            await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, listeners: Sequence[socket.socket], tls: Identity | None) -> h2corn.Server:
        bind = tuple(f"fd://{listener.fileno()}" for listener in listeners)
        server = h2corn.Server(self._application, _config(bind, tls, self._options))
        self._servers.add(server)
        serving = asyncio.create_task(server.serve())
        self._serving.add(serving)
        serving.add_done_callback(lambda _: self._forget(serving, server))
        await server.wait_started()
        return server

    def _forget(self, serving: asyncio.Task[None], server: h2corn.Server) -> None:
        self._serving.discard(serving)
        self._servers.discard(server)

    def _certificates_changed(self, _: object) -> None:
        self._changed.set()

    async def _keep_replacing(self, server: h2corn.Server) -> None:
        """h2corn reads certificates once. So another server takes over the sockets; the old one ends with its calls,
        and has its callers connect again.
        """
        while True:
            await self._changed.wait()
            self._changed.clear()
            old, server = server, await self._serve(self._listeners.tcp, self._tls)
            old.shutdown()


def _config(bind: tuple[str, ...], tls: Identity | None, options: TransportOptions) -> h2corn.Config:
    secured: dict[str, Any] = {}
    if tls is not None:
        secured = {"certfile": tls.certificate, "keyfile": tls.key}
        if tls.client_ca is not None:
            secured |= {"ca_certs": tls.client_ca, "cert_reqs": "required"}
    return h2corn.Config(
        bind=bind, grpc=True, http1=False, lifespan="off", access_log=False, date_header=False, runtime_threads=1,
        max_concurrent_streams=options.max_streams, limit_connections=options.max_connections,
        h2_max_header_list_size=options.max_metadata_bytes, h2_max_header_block_size=options.max_metadata_bytes,
        timeout_keep_alive=_IDLE_SECONDS, timeout_graceful_shutdown=_NEVER_SECONDS,
        h2_initial_stream_window_size=_STREAM_WINDOW, h2_initial_connection_window_size=_CONNECTION_WINDOW,
        h2_timeout_response_stall=options.slow_reader_seconds, **secured,
    )  # fmt: skip
