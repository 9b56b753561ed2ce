"""Serves routes as an ASGI application that speaks gRPC, for a server that has HTTP/2 and trailers.

Every call is on the way of every prediction: what can be made once is made once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any

from google.rpc import status_pb2

from ..access.identity import NO_CREDENTIALS, Credentials
from ..errors import Code, ModelhostError, Reason
from ..services.call import Call
from .base import TransportOptions
from .routes import Route
from .status import status_error, status_of
from .subjects import common_name
from .wire import CONTENT_TYPE, FRAME, message_length, status_headers, timeout_seconds, too_large

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_START = {"type": "http.response.start", "status": 200, "headers": [CONTENT_TYPE], "trailers": True}
_OK = {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]}
_NO_BODY = {"type": "http.response.body"}
# Messages from here on are sent beside their frame's head and not copied behind it.
_LARGE_BYTES = 32 << 10


class GrpcApplication:
    """The application."""

    def __init__(self, routes: Sequence[Route], options: TransportOptions) -> None:
        self._routes = {route.path: route for route in routes}
        self._max_receive = options.max_receive_bytes
        self._max_send = options.max_send_bytes
        self._calls: set[asyncio.Task[Any]] = set()
        self._stopping = False
        self._authenticates = options.authenticates

    def end_calls(self) -> None:
        """Ends all calls under way with UNAVAILABLE, and those that still come."""
        self._stopping = True
        for call in self._calls:
            call.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one call; the server cancels it when its caller leaves."""
        timeout = content_type = b""
        for name, value in scope["headers"]:
            if name == b"grpc-timeout":
                timeout = value
            elif name == b"content-type":
                content_type = value
        if not content_type.startswith(b"application/grpc") or "http.response.trailers" not in scope["extensions"]:
            await _refuse_http(send)
            return
        answer = _Answer(send, self._max_send)
        route = self._routes.get(scope["path"])
        if route is None:
            await answer.fail(status_of(status_error(Code.UNIMPLEMENTED, "Method not found!")))
            return
        task = asyncio.current_task()
        assert task is not None
        self._calls.add(task)
        try:
            await self._answer(route, scope, timeout, receive, answer)
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            await answer.fail(status_of(status_error(Code.UNAVAILABLE, "the server has stopped")))
        except _CallerLeft:
            pass
        except Exception as error:
            await answer.fail(route.status(error))
        finally:
            self._calls.discard(task)

    async def _answer(self, route: Route, scope: Scope, timeout: bytes, receive: Receive, answer: _Answer) -> None:
        requests = _Requests(receive, route, self._max_receive)
        credentials = credentials_of(scope) if self._authenticates else NO_CREDENTIALS
        if not timeout:
            await _serve(route, requests, answer, Call(None, caller(scope), credentials))
            return
        deadline = asyncio.get_running_loop().time() + timeout_seconds(timeout)
        try:
            async with asyncio.timeout_at(deadline) as timer:
                await _serve(route, requests, answer, Call(deadline, caller(scope), credentials))
        except TimeoutError:
            if not timer.expired():
                raise
            raise status_error(Code.DEADLINE_EXCEEDED, "Deadline Exceeded") from None


async def _serve(route: Route, requests: _Requests, answer: _Answer, call: Call) -> None:
    call = route.admit(call)
    given = requests if route.streams_requests else await requests.only()
    if not route.streams_responses:
        await answer.write(route.serialize(await route.behaviour(given, call)))
    else:
        async with aclosing(route.behaviour(given, call)) as responses:
            async for response in responses:
                await answer.write(route.serialize(response))
    await answer.finish()


def caller(scope: Scope) -> str:
    """Where a call comes from, see `Call`."""
    client = scope.get("client")
    if client is None:
        return "unix:"
    host, port = client
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"


def credentials_of(scope: Scope) -> Credentials:
    """What a call came with."""
    authorization = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"), "")
    tls = scope.get("extensions", {}).get("tls")
    return Credentials(authorization, common_name(tls.get("client_cert_name") or "") if tls else "")


async def _refuse_http(send: Send) -> None:
    await send({"type": "http.response.start", "status": 415, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"this is a gRPC server\n"})


class _Requests:
    """The messages that come; they may lie across the pieces that the server hands over in any way."""

    __slots__ = ("_ended", "_limit", "_parse", "_piece", "_receive", "_start")

    def __init__(self, receive: Receive, route: Route, limit: int) -> None:
        self._receive = receive
        self._parse = route.parse
        self._limit = limit
        self._piece = b""
        self._start = 0
        self._ended = False

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        message = await self._read()
        if message is None:
            raise StopAsyncIteration
        return self._parse(message)

    async def only(self) -> Any:
        """The message of a call that has one."""
        message = await self._read()
        if message is None:
            raise ModelhostError(Reason.INVALID_REQUEST, "expected a request message; got none")
        return self._parse(message)

    async def _read(self) -> bytes | None:
        piece, start = self._piece, self._start
        while len(piece) - start < FRAME.size:
            rest = piece[start:]
            if self._ended:
                if rest:
                    raise _cut_off()
                return None
            piece, start = rest + await self._next_piece(), 0
        length = message_length(piece, start, self._limit)
        start += FRAME.size
        end = start + length
        if end <= len(piece):
            self._piece, self._start = piece, end
            return piece[start:end]
        parts = [piece[start:]]
        missing = end - len(piece)
        while missing > 0:
            if self._ended:
                raise _cut_off()
            piece = await self._next_piece()
            parts.append(piece[:missing])
            self._piece, self._start = piece, missing
            missing -= len(piece)
        return b"".join(parts)

    async def _next_piece(self) -> bytes:
        event = await self._receive()
        if event["type"] == "http.disconnect":
            raise ModelhostError(Reason.CANCELLED, "the caller has left")
        self._ended = not event.get("more_body", False)
        piece: bytes = event.get("body", b"")
        return piece


def _cut_off() -> ModelhostError:
    return ModelhostError(Reason.INVALID_REQUEST, "expected a whole message; got the beginning of one")


class _CallerLeft(Exception):
    """There is nobody to answer."""


class _Answer:
    """What is answered: messages, then a status. A write waits while the caller reads slower than we write."""

    __slots__ = ("_limit", "_send", "_started")

    def __init__(self, send: Send, limit: int) -> None:
        self._send = send
        self._limit = limit
        self._started = False

    async def write(self, message: bytes) -> None:
        size = len(message)
        if 0 <= self._limit < size:
            raise too_large("Sent", size, self._limit)
        head = FRAME.pack(False, size)
        try:
            if not self._started:
                self._started = True
                await self._send(_START)
            if size < _LARGE_BYTES:
                await self._send({"type": "http.response.body", "body": head + message, "more_body": True})
            else:
                await self._send({"type": "http.response.body", "body": head, "more_body": True})
                await self._send({"type": "http.response.body", "body": message, "more_body": True})
        except OSError:
            raise _CallerLeft from None

    async def finish(self) -> None:
        await self._end((_NO_BODY, _OK) if self._started else (_START, _NO_BODY, _OK))

    async def fail(self, status: status_pb2.Status) -> None:
        headers = status_headers(status)
        if self._started:
            await self._end((_NO_BODY, {"type": "http.response.trailers", "headers": headers}))
        else:
            start = {"type": "http.response.start", "status": 200, "headers": [CONTENT_TYPE, *headers]}
            await self._end((start, _NO_BODY))

    async def _end(self, events: Iterable[dict[str, Any]]) -> None:
        with suppress(OSError):
            for event in events:
                await self._send(event)
