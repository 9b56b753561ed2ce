"""The services behind the REST door, as it calls them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from google.protobuf.message import Message
from starlette.requests import ClientDisconnect, Request

from ..services.call import Call
from ..transport.asgi import caller, credentials_of
from ..transport.routes import Route

_Result = TypeVar("_Result")
_Response = TypeVar("_Response", bound=Message)


class Methods:
    """The methods of services that answer one request with one response."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = {route.path: route for route in routes}

    async def __call__(self, path: str, message: Message, response: type[_Response], call: Call) -> _Response:
        """What a method answers.

        Raises:
            ModelhostError, ForeignError: it fails.
        """
        route = self._routes[path]
        answer = await route.behaviour(route.parse(message.SerializeToString()), call)
        return response.FromString(route.serialize(answer))

    def begin(self, path: str, request: Any, call: Call) -> Coroutine[Any, Any, Any]:
        """A method at work on a request, both in the service's own form."""
        return self._routes[path].behaviour(request, call)  # type: ignore[no-any-return]


def call_of(request: Request) -> Call:
    """Who calls. HTTP has no deadlines."""
    return Call(None, caller(request.scope), credentials_of(request.scope))


async def while_there(request: Request, work: Coroutine[Any, Any, _Result]) -> _Result:
    """What comes of `work`, which is cancelled when the caller leaves. The request's body has been read.

    Raises:
        ClientDisconnect: the caller has left.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
