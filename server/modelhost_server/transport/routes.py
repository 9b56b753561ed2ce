"""The methods of all services, as every transport serves them: by path, from a request's bytes to a response's.

Requests are parsed here and not by a transport's library: grpc would answer UNKNOWN to bytes that are no message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from ..errors import ModelhostError, Reason
from ..services.call import Codec


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
    """

    path: str
    streams_requests: bool
    streams_responses: bool
    behaviour: Callable[[Any, Any], Any]
    parse: Callable[[bytes], Any]
    serialize: Callable[[Any], bytes]


def routes(services: Mapping[ServiceDescriptor, object]) -> list[Route]:
    """All methods of services; for each, the service has one of that name in snake case, and perhaps a codec."""
    return [
        _route(method, implementation) for service, implementation in services.items() for method in service.methods
    ]


def _route(method: MethodDescriptor, implementation: object) -> Route:
    codec: Codec = getattr(implementation, "codecs", {}).get(method.name, Codec())
    return Route(
        f"/{method.containing_service.full_name}/{method.name}",
        method.client_streaming,
        method.server_streaming,
        getattr(implementation, _snake(method.name)),
        codec.parse or _parser(method),
        codec.serialize or GetMessageClass(method.output_type).SerializeToString,
    )


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


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
