"""Lets callers do what they may: wraps the behaviour of routes, where callers are authenticated.

A scope on which a caller has no role is not there for it, in any protocol's words. So that nothing tells it from one
that really is not there, such a call is answered by the same services over a host that has no scopes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from ..access.authenticator import Authenticator
from ..access.grants import permission_denied
from ..access.identity import Role
from ..errors import ModelhostError, Reason
from ..services.call import Call
from ..services.rules import Rule
from .routes import Route
from .sessions import Session, Sessions

Behaviour = Callable[[Any, Call], Any]


class Guard:
    """Guards routes.

    Args:
        authenticator: knows callers.
        nothing: the same routes, over a host that has no scopes.
    """

    def __init__(self, authenticator: Authenticator, nothing: Iterable[Route]) -> None:
        self._authenticator = authenticator
        self._nothing = {route.path: route.behaviour for route in nothing}
        self._sessions = Sessions(authenticator)

    def guarded(self, route: Route) -> Route:
        """The route, for those only who may use it.

        Raises:
            LookupError: it has no rule: it is for nobody then.
        """
        rule = route.rule
        if rule is None:
            raise LookupError(f"{route.path} has no rule that says who may call it")
        behaviour = self._behaviour(rule, route.behaviour, self._nothing[route.path], route.streams_requests)
        if route.streams_requests or route.streams_responses:
            behaviour = self._in_session(behaviour, route)
        return replace(route, behaviour=behaviour, admit=self.admit_anybody if rule.is_open else self.admit)

    def sees(self, rule: Rule, scope: str | None, call: Call) -> bool:
        """Whether a call's scope is there for its caller, who may do there what `rule` is about.

        Raises:
            ModelhostError: PERMISSION_DENIED, UNAUTHENTICATED.
        """
        if scope is None:
            return True
        # Of what anybody may ask, some is of scopes all the same.
        identity = call.identity or self._authenticator.identify(call.credentials)
        role = identity.role_on(scope)
        if role >= rule.role:
            return True
        if role or not rule.conceals:
            raise permission_denied(identity, scope, rule.role)
        return False

    def admit(self, call: Call) -> Call:
        """The call, with who calls.

        Raises:
            ModelhostError: UNAUTHENTICATED.
        """
        return Call(call.deadline, call.caller, call.credentials, self._authenticator.identify(call.credentials))

    def admit_anybody(self, call: Call) -> Call:
        """The call, with who calls if that is known."""
        try:
            return self.admit(call)
        except ModelhostError:
            return call

    def _behaviour(self, rule: Rule, real: Behaviour, nothing: Behaviour, streams_requests: bool) -> Behaviour:
        def once(request: Any, call: Call) -> Any:
            return (real if self.sees(rule, rule.scope(request), call) else nothing)(request, call)

        async def by_first(requests: AsyncIterator[Any], call: Call) -> Any:
            first = await anext(requests, None)
            if first is None:
                raise ModelhostError(Reason.INVALID_REQUEST, "expected a request message; got none")
            chosen = real if self.sees(rule, rule.scope(first), call) else nothing
            return await chosen(_all(first, requests), call)

        if not streams_requests:
            return once
        return by_first if rule.role is not Role.NONE else real

    def _in_session(self, behaviour: Behaviour, route: Route) -> Behaviour:
        """Ends a stream when its caller loses what it had."""

        def given(requests: Any, session: Session) -> Any:
            return session.checked(requests) if route.streams_requests else requests

        async def answer(requests: Any, call: Call) -> Any:
            with self._sessions.opened(call) as session:
                return await session.wait(behaviour(given(requests, session), call))

        async def stream(requests: Any, call: Call) -> AsyncIterator[Any]:
            with self._sessions.opened(call) as session:
                async with aclosing(behaviour(given(requests, session), call)) as responses:
                    while (response := await session.wait(anext(responses, _END))) is not _END:
                        yield response

        return stream if route.streams_responses else answer


_END: Any = object()


async def _all(first: Any, others: AsyncIterator[Any]) -> AsyncIterator[Any]:
    yield first
    async for other in others:
        yield other
