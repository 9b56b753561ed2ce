"""What a method asks of its caller. Every method has a rule; the tables are beside the services."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..access.identity import ALL_SCOPES, Role

# Finds the scope that a request is about; None when it names none, or when its parts are looked at one by one.
ScopeOf = Callable[[Any], str | None]


def _no_scope(request: Any) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Rule:
    """What a method asks of its caller.

    Attributes:
        role: on the scope that a request is about.
        scope: finds that scope. Of a stream of requests, the first is asked.
        conceals: to who has no role on the scope, it is not there; otherwise the caller is told that it may not.
        is_open: anybody may ask what is about no scope.
    """

    role: Role = Role.NONE
    scope: ScopeOf = _no_scope
    conceals: bool = True
    is_open: bool = False


# By method.
Rules = Mapping[str, Rule]

# Whoever is known: what is answered depends on what it may see, or is its own.
KNOWN = Rule()
ANYBODY = Rule(is_open=True)
# Whoever has charge of the whole server.
SERVER = Rule(Role.ADMIN, lambda request: ALL_SCOPES, conceals=False)
