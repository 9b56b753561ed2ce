"""The methods of all services, as every transport serves them: by path, from a request's bytes to a response's.

Requests are parsed here and not by a transport's library: grpc would answer UNKNOWN to bytes that are no message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc.status_pb2 import Status

from ..services.call import Call, Codec, Service, foreign_name
from ..services.failures import no_message
from ..services.rules import Rule
from ..services.wire_format import check_parts
from .status import status_of


def _as_it_is(call: Call) -> Call:
    return call


@dataclass(frozen=True, slots=True)
class Route:
    """One method.

    Attributes:
        path: "/package.Service/Method".
        streams_requests: `behaviour` takes an asynchronous iterator of requests, not a request.
        streams_responses: `behaviour` answers an asynchronous iterator of responses, not an awaitable response.
        behaviour: what the service does, given that and a `Call`. Raises ModelhostError.
        parse: makes a request of its bytes. Raises ModelhostError: INVALID_REQUEST.
        serialize: makes bytes of a response.
        rule: what it asks of its caller; None if nobody has said.
        status: what a caller is told of an error.
        admit: finds out who calls, before anything of a request is looked at. Raises ModelhostError: UNAUTHENTICATED.
    """

    path: str
    streams_requests: bool
    streams_responses: bool
    behaviour: Callable[[Any, Any], Any]
    parse: Callable[[bytes], Any]
    serialize: Callable[[Any], bytes]
    rule: Rule | None = None
    status: Callable[[Exception], Status] = status_of
    admit: Callable[[Call], Call] = _as_it_is


def routes(services: Iterable[Service]) -> list[Route]:
    """All methods of services."""
    return [_route(service, method) for service in services for method in service.descriptor.methods]


def _route(service: Service, method: MethodDescriptor) -> Route:
    name = _snake(method.name)
    handler = next(handler for handler in service.handlers if hasattr(handler, name))
    codec: Codec = getattr(handler, "codecs", {}).get(method.name, Codec())
    return Route(
        f"/{service.name}/{method.name}",
        method.client_streaming,
        method.server_streaming,
        getattr(handler, name),
        codec.parse or _parser(method),
        codec.serialize or GetMessageClass(method.output_type).SerializeToString,
        service.rules.get(method.name),
        partial(status_of, translate=service.translate) if service.translate else status_of,
    )


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _parser(method: MethodDescriptor) -> Callable[[bytes], Message]:
    from_string = GetMessageClass(method.input_type).FromString
    name = foreign_name(method.input_type.full_name)

    def parse(data: bytes) -> Message:
        check_parts(data, method.input_type)
        try:
            return from_string(data)
        except DecodeError:
            raise no_message(f"a {name}", data) from None

    return parse
