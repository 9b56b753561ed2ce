"""Serves routes through grpc.aio: calls their behaviour, and turns errors into statuses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NoReturn, Protocol

import grpc
import grpc.aio
from grpc_status import rpc_status

from ..access.identity import NO_CREDENTIALS, Credentials
from ..services.call import Call
from .base import TransportOptions
from .listeners import host_and_port, socket_path
from .renewal import Renewal
from .routes import Route
from .status import too_slow
from .tls import TlsFiles

_MIN_PING_MILLISECONDS = 10_000
# Until a caller acknowledges the settings, gRPC takes 16 MB of metadata a call whatever they say.
_HANDSHAKE_MILLISECONDS = _SETTINGS_MILLISECONDS = 10_000


def _is_news(record: logging.LogRecord) -> bool:
    # grpc logs a traceback for each header, and two for each path, of a caller's that is no text.
    callers = ("Invalid encoding on", "Unexpected [UnicodeDecodeError]", "Failed sending error status")
    return not record.getMessage().startswith(callers)


logging.getLogger("grpc._cython.cygrpc").addFilter(_is_news)


class GrpcioTransport:
    """See Transport."""

    def __init__(self, routes: Sequence[Route], options: TransportOptions) -> None:
        self._tls = options.tls
        self._certificates = _Certificates(options.tls) if options.tls else None
        self._renewal: Renewal | None = None
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", options.max_receive_bytes),
                ("grpc.max_send_message_length", options.max_send_bytes),
                ("grpc.so_reuseport", int(options.reuse_port)),
                ("grpc.max_metadata_size", options.max_metadata_bytes),
                ("grpc.absolute_max_metadata_size", options.max_metadata_bytes),
                ("grpc.max_concurrent_streams", options.max_streams),
                ("grpc.max_allowed_incoming_connections", options.max_connections),
                ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MILLISECONDS),
                ("grpc.http2.settings_timeout", _SETTINGS_MILLISECONDS),
                # Clients may ask whether we are still there while a watch is quiet; gRPC's default of 5 minutes would
                # end the connection of one that asks more often.
                ("grpc.http2.min_ping_interval_without_data_ms", _MIN_PING_MILLISECONDS),
            ]
        )
        handler = _Handler(routes, _credentials_reader(options), options.slow_reader_seconds)
        self._server.add_generic_rpc_handlers([handler])

    def listen(self, addresses: Sequence[str]) -> list[str]:
        """See Transport."""
        return [self._listen(address) for address in addresses]

    def _listen(self, address: str) -> str:
        unix = address.startswith("unix:")
        try:
            # grpc would take a host without a port, or a socket without a path, and choose one itself.
            host = socket_path(address) if unix else host_and_port(address)[0]
            if self._certificates is None or unix:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, self._certificates.credentials)
        except RuntimeError:
            port = 0
        except OSError as error:
            raise OSError(f"cannot listen on {address}: {error}") from None
        if not port:
            raise OSError(f"cannot listen on {address}: the address is in use, or not this machine's")
        return address if unix else f"{host}:{port}"

    async def start(self) -> None:
        """See Transport."""
        if self._tls is not None and self._certificates is not None:
            self._renewal = Renewal(self._tls, self._certificates.read)
        await self._server.start()

    async def stop(self, seconds: float) -> None:
        """See Transport."""
        if self._renewal is not None:
            await self._renewal.stop()
        await self._server.stop(seconds)


class _Certificates:
    """The certificates that handshakes use; they may be read again at any time."""

    def __init__(self, tls: TlsFiles) -> None:
        self._tls = tls
        self._read: grpc.ServerCertificateConfiguration | None = None
        self.credentials = grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            self._fetch,  # type: ignore[arg-type]  # None is for no news.
            require_client_authentication=tls.client_ca is not None,
        )

    def read(self, _: object = None) -> None:
        """Has handshakes use from now on what the files say now."""
        self._read = self._configuration()

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """What gRPC asks for at each handshake, on threads of its own: news."""
        read, self._read = self._read, None
        return read

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        tls = self._tls
        authorities = tls.client_ca.read_bytes() if tls.client_ca is not None else None
        return grpc.ssl_server_certificate_configuration(
            [(tls.key.read_bytes(), tls.certificate.read_bytes())], authorities
        )


class _Context(Protocol):
    def time_remaining(self) -> float | None: ...
    def peer(self) -> str: ...
    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...
    def auth_context(self) -> Mapping[str, Iterable[bytes]]: ...
    async def write(self, message: Any) -> None: ...
    async def abort_with_status(self, status: Any) -> NoReturn: ...


_ReadCredentials = Callable[[_Context], Credentials]


def _credentials_reader(options: TransportOptions) -> _ReadCredentials:
    """What reads the credentials of calls; it costs nothing where nobody asks for them."""
    if not options.authenticates:
        return lambda _: NO_CREDENTIALS
    if options.tls is None or options.tls.client_ca is None:
        return lambda context: Credentials(_authorization(context))
    return lambda context: Credentials(_authorization(context), _subject(context))


def _authorization(context: _Context) -> str:
    # Only keys that end in -bin have bytes.
    return next((str(value) for key, value in context.invocation_metadata() or () if key == "authorization"), "")


def _subject(context: _Context) -> str:
    return next((name.decode(errors="replace") for name in context.auth_context().get("x509_common_name", ())), "")


class _Handler(grpc.GenericRpcHandler):
    """Finds the routes of calls."""

    def __init__(self, routes: Sequence[Route], credentials_of: _ReadCredentials, patience: float) -> None:
        self._methods = {route.path: _method_handler(route, credentials_of, patience) for route in routes}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """See grpc.GenericRpcHandler."""
        return self._methods.get(handler_call_details.method)


def _method_handler(route: Route, credentials_of: _ReadCredentials, patience: float) -> grpc.RpcMethodHandler[Any, Any]:
    if route.streams_responses:
        make = grpc.stream_stream_rpc_method_handler if route.streams_requests else grpc.unary_stream_rpc_method_handler
        return make(_answer_stream(route, credentials_of, patience), None, route.serialize)
    make = grpc.stream_unary_rpc_method_handler if route.streams_requests else grpc.unary_unary_rpc_method_handler
    return make(_answer(route, credentials_of), None, route.serialize)


def _given(request: Any, route: Route) -> Any:
    return _parse_all(request, route) if route.streams_requests else route.parse(request)


async def _parse_all(requests: AsyncIterator[bytes], route: Route) -> AsyncIterator[Any]:
    async for request in requests:
        yield route.parse(request)


def _call(context: _Context, credentials_of: _ReadCredentials) -> Call:
    remaining = context.time_remaining()
    deadline = None if remaining is None else asyncio.get_running_loop().time() + remaining
    return Call(deadline, context.peer(), credentials_of(context))


async def _abort(context: _Context, route: Route, error: Exception) -> NoReturn:
    await context.abort_with_status(rpc_status.to_status(route.status(error)))


def _answer(route: Route, credentials_of: _ReadCredentials) -> Any:
    async def answer(request: Any, context: _Context) -> Any:
        try:
            call = route.admit(_call(context, credentials_of))
            return await route.behaviour(_given(request, route), call)
        except Exception as error:
            await _abort(context, route, error)

    return answer


def _answer_stream(route: Route, credentials_of: _ReadCredentials, patience: float) -> Any:
    async def answer(request: Any, context: _Context) -> None:
        try:
            call = route.admit(_call(context, credentials_of))
            async with aclosing(route.behaviour(_given(request, route), call)) as responses:
                await _send(context, responses, patience)
        except Exception as error:
            await _abort(context, route, error)

    return answer


async def _send(context: _Context, responses: AsyncGenerator[Any, None], patience: float) -> None:
    """Sends responses; each waits while the caller does not read. When that takes too long, what makes them is ended at
    once. The caller is told when it reads: gRPC cannot take a message back that it has begun to send.
    """
    loop = asyncio.get_running_loop()
    ending: list[asyncio.Task[None]] = []
    async for response in responses:
        timer = loop.call_later(patience, lambda: ending.append(loop.create_task(responses.aclose())))
        try:
            await context.write(response)
        finally:
            timer.cancel()
        if ending:
            await ending[0]
            raise too_slow(patience)
