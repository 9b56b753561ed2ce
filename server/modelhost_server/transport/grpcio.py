"""Serves routes through grpc.aio: calls their behaviour, and turns errors into statuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, NoReturn, Protocol

import grpc
import grpc.aio
from grpc_status import rpc_status

from ..services.call import Call
from ..services.failures import as_modelhost_error
from .routes import Route
from .status import rich_status


class _Context(Protocol):
    def time_remaining(self) -> float | None: ...
    def peer(self) -> str: ...
    async def abort_with_status(self, status: Any) -> NoReturn: ...


class Handler(grpc.GenericRpcHandler):
    """Finds the routes of calls."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._methods = {route.path: _method_handler(route) for route in routes}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """See grpc.GenericRpcHandler."""
        return self._methods.get(handler_call_details.method)


def _method_handler(route: Route) -> grpc.RpcMethodHandler[Any, Any]:
    if route.streams_requests:
        return grpc.stream_stream_rpc_method_handler(_answer_stream(route), None, route.serialize)
    if route.streams_responses:
        return grpc.unary_stream_rpc_method_handler(_answer_stream(route), None, route.serialize)
    return grpc.unary_unary_rpc_method_handler(_answer(route), None, route.serialize)


async def _parse_all(requests: AsyncIterator[bytes], route: Route) -> AsyncIterator[Any]:
    async for request in requests:
        yield route.parse(request)


def _call(context: _Context) -> Call:
    remaining = context.time_remaining()
    deadline = None if remaining is None else asyncio.get_running_loop().time() + remaining
    return Call(deadline, context.peer())


async def _abort(context: _Context, error: Exception) -> NoReturn:
    await context.abort_with_status(rpc_status.to_status(rich_status(as_modelhost_error(error))))


def _answer(route: Route) -> Any:
    async def answer(request: bytes, context: _Context) -> Any:
        try:
            return await route.behaviour(route.parse(request), _call(context))
        except Exception as error:
            await _abort(context, error)

    return answer


def _answer_stream(route: Route) -> Any:
    async def answer(request: Any, context: _Context) -> AsyncIterator[Any]:
        try:
            given = _parse_all(request, route) if route.streams_requests else route.parse(request)
            async for response in route.behaviour(given, _call(context)):
                yield response
        except Exception as error:
            await _abort(context, error)

    return answer
