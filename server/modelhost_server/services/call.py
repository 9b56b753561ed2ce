"""What services and transports know of each other: the call, and how requests and responses become bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Call:
    """A call.

    Attributes:
        deadline: on the event loop's clock, None when the caller set none.
        caller: the connection it came by, e.g. "ipv4:10.0.0.7:51234".
    """

    deadline: float | None = None
    caller: str = ""


class Codec(NamedTuple):
    """How requests of a method are made of bytes, and bytes of its responses, where not as protobuf messages. A service
    names them in `codecs`, by method.
    """

    parse: Callable[[bytes], Any] | None = None
    serialize: Callable[[Any], bytes] | None = None
