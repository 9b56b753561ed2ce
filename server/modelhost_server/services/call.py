"""What services and transports know of each other: calls, services, and how messages become bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from google.protobuf.descriptor import ServiceDescriptor

from ..access.grants import permission_denied
from ..access.identity import NO_CREDENTIALS, Credentials, Identity, Role
from ..errors import ForeignError, ModelhostError
from ..store.store import no_scope
from .rules import Rules

# Other projects' messages and services have names of our own behind this, see `compat`.
_FOREIGN = "modelhost.compat."


@dataclass(frozen=True, slots=True)
class Call:
    """A call.

    Attributes:
        deadline: on the event loop's clock, None when the caller set none.
        caller: the connection it came by, e.g. "ipv4:10.0.0.7:51234".
        credentials: what it came with; read only where callers are authenticated.
        identity: who calls; None where callers are not authenticated.
    """

    deadline: float | None = None
    caller: str = ""
    credentials: Credentials = NO_CREDENTIALS
    identity: Identity | None = None

    def until(self, deadline: float | None) -> Call:
        """The same with another deadline."""
        return Call(deadline, self.caller, self.credentials, self.identity)

    def sees(self, scope: str) -> bool:
        """Whether a scope is there for who calls."""
        return self.identity is None or bool(self.identity.role_on(scope))

    def require(self, role: Role, scope: str) -> None:
        """Checks a part of a request that fails alone; the guard has checked whatever fails as a whole.

        Raises:
            ModelhostError: PERMISSION_DENIED; SCOPE_NOT_FOUND when the scope is not there for who calls.
        """
        if self.identity is None or self.identity.role_on(scope) >= role:
            return
        raise permission_denied(self.identity, scope, role) if self.sees(scope) else no_scope(scope)

    @property
    def owner(self) -> str:
        """Whose what a call registers is; all callers are one where they are not authenticated."""
        return "" if self.identity is None else self.identity.name

    @property
    def who(self) -> str:
        """Whom turns and limits go by: the identity, or the connection where there is none."""
        return self.caller if self.identity is None else self.identity.name


class Codec(NamedTuple):
    """How requests of a method are made of bytes, and bytes of its responses, where not as protobuf messages. A service
    names them in `codecs`, by method.
    """

    parse: Callable[[bytes], Any] | None = None
    serialize: Callable[[Any], bytes] | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """A service of a protocol, and what carries it out.

    Attributes:
        descriptor: its methods.
        handlers: each method is one of them's, of that name in snake case: it takes a request (or an asynchronous
            iterator of requests) and a `Call`, and answers an awaitable response (or an asynchronous iterator of them).
        rules: what its methods ask of their callers.
        translate: the protocol's own words for an error; None where ours are the protocol's.
    """

    descriptor: ServiceDescriptor
    handlers: Sequence[object]
    rules: Rules
    translate: Callable[[ModelhostError], ForeignError] | None = None

    @property
    def name(self) -> str:
        """How callers know it."""
        return foreign_name(self.descriptor.full_name)


def foreign_name(name: str) -> str:
    """The name of a service or message as its own project has it; in any text that has such names, too."""
    return name.replace(_FOREIGN, "")
