"""A front process: takes calls from callers, and has the primary answer them.

It runs a transport like the primary's own, on the same ports; the routes it serves hand everything over. It ends when
the primary says so or has gone.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

from google.rpc import status_pb2

from ..logs import set_up_logging
from ..services.call import Call
from .base import TransportOptions
from .flow import Inflow, Outflow
from .frames import FrameLink, Kind, call_body, credit_body, read_credit
from .routes import Route
from .status import StatusError
from .tls import TlsFiles
from .transports import make_transport


class Front:
    """The front's end of the link to the primary."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.link = FrameLink(self._handle, _primary_has_gone)
        self.config: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self.drain: asyncio.Future[float] = self._loop.create_future()
        self._ids = itertools.count(1)
        self._calls: dict[int, asyncio.Future[bytes] | Inflow] = {}
        self._requests: dict[int, Outflow] = {}

    def route(self, index: int, path: str, streams_requests: bool, streams_responses: bool) -> Route:
        """A route that hands its calls over; `index` is how the primary knows it."""

        def single(request: Any, call: Call) -> Awaitable[bytes]:
            return self._call(index, request, call)

        def stream(request: Any, call: Call) -> AsyncIterator[bytes]:
            return self._stream(index, request, call)

        return Route(path, streams_requests, streams_responses, stream if streams_responses else single, bytes, bytes)

    async def _call(self, index: int, request: bytes | AsyncIterator[bytes], call: Call) -> bytes:
        call_id = next(self._ids)
        answer: asyncio.Future[bytes] = self._loop.create_future()
        self._calls[call_id] = answer
        feeder = self._begin(call_id, index, request, call)
        try:
            return await answer
        finally:
            self._leave(call_id, feeder)

    async def _stream(self, index: int, request: bytes | AsyncIterator[bytes], call: Call) -> AsyncIterator[bytes]:
        call_id = next(self._ids)
        responses = self._calls[call_id] = Inflow(lambda size: self.link.send(Kind.CREDIT, call_id, credit_body(size)))
        feeder = self._begin(call_id, index, request, call)
        try:
            async for response in responses:
                yield response
        finally:
            self._leave(call_id, feeder)

    def _begin(
        self, call_id: int, index: int, request: bytes | AsyncIterator[bytes], call: Call
    ) -> asyncio.Task[None] | None:
        body = call_body(index, call, self._loop.time())
        if isinstance(request, bytes):
            self.link.send(Kind.CALL, call_id, body, request)
            return None
        self.link.send(Kind.CALL, call_id, body)
        return self._loop.create_task(self._feed(call_id, request))

    async def _feed(self, call_id: int, requests: AsyncIterator[bytes]) -> None:
        outflow = self._requests[call_id] = Outflow()
        try:
            async for request in requests:
                await outflow.take(len(request))
                self.link.send(Kind.REQUEST, call_id, request)
            self.link.send(Kind.END, call_id)
        except Exception as error:
            # What came is no message, or too large: the call is over, for both sides.
            self._ended(call_id, error)
            self.link.send(Kind.CANCEL, call_id)
        finally:
            del self._requests[call_id]

    def _leave(self, call_id: int, feeder: asyncio.Task[None] | None) -> None:
        if feeder is not None:
            feeder.cancel()
        if self._calls.pop(call_id, None) is not None:
            self.link.send(Kind.CANCEL, call_id)

    def _ended(self, call_id: int, error: Exception | None) -> None:
        waiting = self._calls.pop(call_id, None)
        if isinstance(waiting, Inflow):
            waiting.end(error)
        elif waiting is not None and error is not None and not waiting.done():
            waiting.set_exception(error)

    def _handle(self, kind: int, call_id: int, body: memoryview) -> None:
        if kind == Kind.RESULT:
            answer = self._calls.pop(call_id, None)
            if isinstance(answer, asyncio.Future) and not answer.done():
                answer.set_result(bytes(body))
        elif kind == Kind.RESPONSE:
            responses = self._calls.get(call_id)
            if isinstance(responses, Inflow):
                responses.put(bytes(body))
        elif kind == Kind.STATUS:
            self._ended(call_id, StatusError(status_pb2.Status.FromString(bytes(body))) if body else None)
        elif kind == Kind.CREDIT:
            if call_id in self._requests:
                self._requests[call_id].credit(read_credit(body))
        elif kind == Kind.CONFIG:
            self.config.set_result(json.loads(bytes(body)))
        elif kind == Kind.DRAIN:
            self.drain.set_result(json.loads(bytes(body)))


def _primary_has_gone() -> None:
    # Nobody can be answered any more, so nothing is worth ending in order.
    os._exit(1)


async def serve(control: socket.socket) -> None:
    """Serves until the primary ends it.

    Raises:
        OSError: the addresses cannot be listened on.
    """
    front = Front()
    await asyncio.get_running_loop().create_unix_connection(lambda: front.link, sock=control)
    config = await front.config
    set_up_logging(config["log_level"], config["log_json"])
    tls = TlsFiles(*(path and Path(path) for path in config["tls"])) if config["tls"] else None
    options = TransportOptions(**config["options"], tls=tls)
    routes = [front.route(index, *route) for index, route in enumerate(config["routes"])]
    transport = make_transport(config["transport"], routes, options)
    transport.listen(config["addresses"])
    await transport.start()
    front.link.send(Kind.READY, 0)
    await transport.stop(await front.drain)


if __name__ == "__main__":
    # A service manager may signal every process; when to end is the primary's to say.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        asyncio.run(serve(socket.socket(fileno=int(sys.argv[1]))))
    except OSError as error:
        sys.exit(f"a front process: {error}")
