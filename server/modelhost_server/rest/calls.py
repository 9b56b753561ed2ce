"""The services behind the REST door, as it calls them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from google.protobuf.message import Message
from starlette.requests import ClientDisconnect, Request

from ..hosting.host import Host
from ..services.call import Call
from ..transport.guard import Guard
from ..transport.routes import Route

_Result = TypeVar("_Result")
_Response = TypeVar("_Response", bound=Message)


class Methods:
    """The methods of services that answer one request with one response."""

    def __init__(self, routes: Iterable[Route], host: Host, nothing: Host, guard: Guard | None) -> None:
        self._routes = {route.path: route for route in routes}
        self._host = host
        self._nothing = nothing
        self._guard = guard

    def admit(self, call: Call) -> Call:
        """The call, with who calls.

        Raises:
            ModelhostError: UNAUTHENTICATED.
        """
        return call if self._guard is None else self._guard.admit(call)

    def admit_anybody(self, call: Call) -> Call:
        """The call, with who calls if that is known."""
        return call if self._guard is None else self._guard.admit_anybody(call)

    def host(self, path: str, scope: str, call: Call) -> Host:
        """The host, for what goes by a method's rule and past the method: one without scopes when the caller is not to
        know of this scope.

        Raises:
            ModelhostError: PERMISSION_DENIED.
        """
        rule = self._routes[path].rule
        if self._guard is None or rule is None or self._guard.sees(rule, scope, call):
            return self._host
        return self._nothing

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
    """The call that a request is, as it was admitted."""
    call: Call = request.state.call
    return call


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
