"""Serves services through grpc.aio: for each method of a service's descriptor, a handler that parses the request,
calls the service's method of the same name in snake case, and turns errors into statuses.

Requests are parsed here and not by grpc, which would answer UNKNOWN to bytes that are no message.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn, Protocol

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from grpc_status import rpc_status

from ..errors import ModelhostError, Reason
from ..services.call import Call
from ..services.failures import as_modelhost_error
from .status import rich_status


class _Context(Protocol):
    def time_remaining(self) -> float | None: ...
    async def abort_with_status(self, status: Any) -> NoReturn: ...


def handler(service: ServiceDescriptor, implementation: object) -> grpc.GenericRpcHandler:
    """The handler of a whole service."""
    methods = {method.name: _method_handler(method, implementation) for method in service.methods}
    return grpc.method_handlers_generic_handler(service.full_name, methods)


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _method_handler(method: MethodDescriptor, implementation: object) -> Any:
    behaviour = getattr(implementation, _snake(method.name))
    parse = _parser(method)
    serialize = GetMessageClass(method.output_type).SerializeToString
    if method.client_streaming and method.server_streaming:
        return grpc.stream_stream_rpc_method_handler(
            _answer_stream(behaviour, lambda requests: _parse_all(requests, parse)), None, serialize
        )
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(_answer_stream(behaviour, parse), None, serialize)
    return grpc.unary_unary_rpc_method_handler(_answer(behaviour, parse), None, serialize)


def _parser(method: MethodDescriptor) -> Callable[[bytes], Message]:
    from_string = GetMessageClass(method.input_type).FromString

    def parse(data: bytes) -> Message:
        try:
            return from_string(data)
        except DecodeError:
            raise ModelhostError(
                Reason.INVALID_REQUEST,
                f"expected a {method.input_type.full_name}; got {len(data)} bytes that are truncated or corrupt",
            ) from None

    return parse


async def _parse_all(requests: AsyncIterator[bytes], parse: Callable[[bytes], Message]) -> AsyncIterator[Message]:
    async for request in requests:
        yield parse(request)


def _call(context: _Context) -> Call:
    remaining = context.time_remaining()
    return Call() if remaining is None else Call(asyncio.get_running_loop().time() + remaining)


async def _abort(context: _Context, error: Exception) -> NoReturn:
    await context.abort_with_status(rpc_status.to_status(rich_status(as_modelhost_error(error))))


def _answer(behaviour: Any, parse: Any) -> Any:
    async def answer(request: bytes, context: _Context) -> Message:
        try:
            response: Message = await behaviour(parse(request), _call(context))
            return response
        except Exception as error:
            await _abort(context, error)

    return answer


def _answer_stream(behaviour: Any, parse: Any) -> Any:
    async def answer(request: Any, context: _Context) -> AsyncIterator[Message]:
        try:
            async for response in behaviour(parse(request), _call(context)):
                yield response
        except Exception as error:
            await _abort(context, error)

    return answer
