"""grpc.health.v1: of the server, of each service, and of each model by its resource name.

Answers come from the store, which knows; a table of statuses beside it would be a second truth.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator
from contextlib import aclosing, contextmanager

from grpc_health.v1 import health_pb2

from ..access.identity import Role
from ..errors import ModelhostError, Reason, brief
from ..hosting.host import Host
from .call import Call
from .rules import Rule, Rules

_Status = health_pb2.HealthCheckResponse
_PARTS = 4
# Watches of callers that nobody knows, together: each takes memory for as long as it likes.
_MAX_UNKNOWN_WATCHES = 10_000
_RETRY_SECONDS = 10.0


def _scope_of(request: health_pb2.HealthCheckRequest) -> str | None:
    """The scope of a model; the server and its services are of none."""
    parts = request.service.split("/")
    return parts[1] if len(parts) == _PARTS and (parts[0], parts[2]) == ("scopes", "models") else None


_RULE = Rule(Role.PREDICT, _scope_of, is_open=True)
RULES: Rules = {"Check": _RULE, "Watch": _RULE}


class HealthService:
    """Says what serves."""

    def __init__(self, host: Host, services: Collection[str]) -> None:
        self._host = host
        self._services = frozenset({"", *services})
        self._unknown_watches = 0

    async def check(self, request: health_pb2.HealthCheckRequest, call: Call) -> health_pb2.HealthCheckResponse:
        """The status of what `service` names: "", a service, or `scopes/{scope}/models/{model}`."""
        status = self._status(request.service)
        if status == _Status.SERVICE_UNKNOWN:
            raise ModelhostError(
                Reason.MODEL_NOT_FOUND,
                f"service: expected '', a service's full name or scopes/{{scope}}/models/{{model}}; "
                f"got {brief(request.service)}, which is not there",
                field="service",
            )
        return _Status(status=status)

    async def watch(
        self, request: health_pb2.HealthCheckRequest, call: Call
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The status now, and whenever it changes."""
        with self._counted(call):
            async with aclosing(self._changes(request.service)) as statuses:
                async for status in statuses:
                    yield _Status(status=status)

    @contextmanager
    def _counted(self, call: Call) -> Iterator[None]:
        if call.identity is not None:
            yield
            return
        if self._unknown_watches >= _MAX_UNKNOWN_WATCHES:
            raise ModelhostError(
                Reason.TOO_MANY_CALLS,
                f"there are {_MAX_UNKNOWN_WATCHES} watches of callers that are not known, as many as this server takes",
                retry_after=_RETRY_SECONDS,
                limit=_MAX_UNKNOWN_WATCHES,
            )
        self._unknown_watches += 1
        try:
            yield
        finally:
            self._unknown_watches -= 1

    async def _changes(self, service: str) -> AsyncGenerator[health_pb2.HealthCheckResponse.ServingStatus, None]:
        news = asyncio.Event()
        stops = [self._host.store.events.listen(lambda event: news.set()), self._host.draining.listen(news.set)]
        last = None
        try:
            while True:
                news.clear()
                status = self._status(service)
                if status != last:
                    yield status
                    last = status
                self._host.draining.check_accepting()
                await news.wait()
        finally:
            for stop in stops:
                stop()

    def _status(self, service: str) -> health_pb2.HealthCheckResponse.ServingStatus:
        serving = _Status.NOT_SERVING if self._host.draining.has_begun else _Status.SERVING
        if service in self._services:
            return serving
        parts = service.split("/")
        if len(parts) == _PARTS and (parts[0], parts[2]) == ("scopes", "models"):
            try:
                model = self._host.store.model(parts[1], parts[3])
            except ModelhostError:
                return _Status.SERVICE_UNKNOWN
            return serving if model.serving is not None else _Status.NOT_SERVING
        return _Status.SERVICE_UNKNOWN
