"""How many calls each caller may have under way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Any

from ..errors import ModelhostError, Reason
from ..services.call import Call
from .routes import Route

_RETRY_SECONDS = 0.1


class CallLimit:
    """Counts the calls of each caller; wraps routes, where there is a limit.

    Args:
        most: calls of one caller at the same time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._under_way: dict[str, int] = {}

    def limited(self, route: Route) -> Route:
        """The route, for callers that have fewer calls under way; what anybody may ask at any time as it is."""
        if route.rule is not None and route.rule.is_open:
            return route
        behaviour = route.behaviour

        async def answer(request: Any, call: Call) -> Any:
            with self._counted(call.who):
                return await behaviour(request, call)

        async def stream(request: Any, call: Call) -> AsyncIterator[Any]:
            with self._counted(call.who):
                async with aclosing(behaviour(request, call)) as responses:
                    async for response in responses:
                        yield response

        return replace(route, behaviour=stream if route.streams_responses else answer)

    @contextmanager
    def _counted(self, caller: str) -> Iterator[None]:
        count = self._under_way.get(caller, 0)
        if count >= self._most:
            raise ModelhostError(
                Reason.TOO_MANY_CALLS,
                f"the caller has {count} calls under way, as many as it may; wait for one of them to end",
                retry_after=_RETRY_SECONDS,
                limit=self._most,
            )
        self._under_way[caller] = count + 1
        try:
            yield
        finally:
            left = self._under_way.pop(caller) - 1
            if left:
                self._under_way[caller] = left
