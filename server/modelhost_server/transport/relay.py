"""In the primary: answers the calls that a front process has taken from its callers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from ..services.call import Call
from .flow import Inflow, Outflow
from .frames import FrameLink, Kind, credit_body, read_call, read_credit
from .routes import Route


class Relay:
    """The calls of one front, which comes and goes with its link."""

    def __init__(self, routes: Sequence[Route], link: FrameLink) -> None:
        self._routes = routes
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._requests: dict[int, Inflow] = {}
        self._responses: dict[int, Outflow] = {}

    def handle(self, kind: int, call_id: int, body: memoryview) -> None:
        """A frame of the front's, about a call."""
        if kind == Kind.CALL:
            self._begin(call_id, body)
        elif kind == Kind.CANCEL:
            if call_id in self._tasks:
                self._tasks[call_id].cancel()
        elif kind == Kind.CREDIT:
            if call_id in self._responses:
                self._responses[call_id].credit(read_credit(body))
        elif call_id in self._requests:
            if kind == Kind.REQUEST:
                self._requests[call_id].put(bytes(body))
            elif kind == Kind.END:
                self._requests[call_id].end()

    def lost(self) -> None:
        """The front has gone, and its callers with it."""
        for task in self._tasks.values():
            task.cancel()

    def _begin(self, call_id: int, body: memoryview) -> None:
        index, call, request = read_call(body, self._loop.time())
        route = self._routes[index]
        given: bytes | Inflow
        if route.streams_requests:
            given = self._requests[call_id] = Inflow(
                lambda size: self._link.send(Kind.CREDIT, call_id, credit_body(size))
            )
        else:
            given = bytes(request)
        request.release()
        task = self._loop.create_task(self._answer(call_id, route, given, call))
        self._tasks[call_id] = task
        task.add_done_callback(lambda _: self._forget(call_id))

    def _forget(self, call_id: int) -> None:
        del self._tasks[call_id]
        self._requests.pop(call_id, None)
        self._responses.pop(call_id, None)

    async def _answer(self, call_id: int, route: Route, given: bytes | Inflow, call: Call) -> None:
        try:
            call = route.admit(call)
            parsed = _parse_all(given, route) if isinstance(given, Inflow) else route.parse(given)
            if not route.streams_responses:
                response = await route.behaviour(parsed, call)
                self._link.send(Kind.RESULT, call_id, route.serialize(response))
                return
            outflow = self._responses[call_id] = Outflow()
            async with aclosing(route.behaviour(parsed, call)) as responses:
                async for response in responses:
                    message = route.serialize(response)
                    await outflow.take(len(message))
                    self._link.send(Kind.RESPONSE, call_id, message)
            self._link.send(Kind.STATUS, call_id)
        except Exception as error:
            self._link.send(Kind.STATUS, call_id, route.status(error).SerializeToString())


async def _parse_all(requests: Inflow, route: Route) -> AsyncIterator[Any]:
    async for request in requests:
        yield route.parse(request)
