"""The REST door as an ASGI application: its routes, and what those are told who miss them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ..errors import Code, ForeignError
from ..services.call import Call
from ..transport.asgi import caller, credentials_of
from .failures import Dialect, error_response

Endpoint = Callable[[Request], Awaitable[Response]]
# Nobody is there to read it; as nginx logs it.
_CLIENT_LEFT = 499


def answering(endpoint: Endpoint, dialect: Dialect, admit: Callable[[Call], Call]) -> Endpoint:
    """The endpoint, for calls that are admitted, with whatever goes wrong told in a protocol's words."""

    async def answer(request: Request) -> Response:
        try:
            # Before the body is read; HTTP has no deadlines.
            request.state.call = admit(Call(None, caller(request.scope), credentials_of(request.scope)))
            return await endpoint(request)
        except ClientDisconnect:
            return Response(status_code=_CLIENT_LEFT)
        except asyncio.CancelledError:
            # It is only cancelled when the drain's time is up.
            return dialect.response(ForeignError(Code.UNAVAILABLE, "the server has stopped"))
        except Exception as error:
            return dialect.response(error)

    return answer


def rest_application(routes: Sequence[Route]) -> Starlette:
    """The application."""
    application = Starlette(routes=routes, exception_handlers={HTTPException: _missed})
    # A slash too many is a mistake as any other.
    application.router.redirect_slashes = False
    return application


async def _missed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"Malformed request: {request.method} {request.url.path}"
    return error_response(error.status_code, message, error.headers)
