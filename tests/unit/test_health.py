"""Who may watch health: anybody, but nobody for ever more memory."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2
from modelhost_server.access.identity import Identity
from modelhost_server.errors import Reason
from modelhost_server.hosting.host import Host
from modelhost_server.services import health_service
from modelhost_server.services.call import Call
from modelhost_server.services.health_service import HealthService
from modelhost_server.sources.roots import ModelRoots
from modelhost_server.sources.sources import Sources
from test_store_phases import refused


async def test_watches_of_callers_that_are_not_known_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_service, "_MAX_UNKNOWN_WATCHES", 1)
    sources = Sources(tmp_path, None, 1, (), ModelRoots(()))
    health = HealthService(Host(tmp_path, sources, engines=()), ())
    request, known = health_pb2.HealthCheckRequest(), Call(identity=Identity("team"))
    async with aclosing(health.watch(request, Call())) as first:
        assert (await anext(first)).status == health_pb2.HealthCheckResponse.SERVING
        with refused(Reason.TOO_MANY_CALLS):
            await anext(health.watch(request, Call()))
        async with aclosing(health.watch(request, known)) as another:
            await anext(another)
    async with aclosing(health.watch(request, Call())) as next_one:
        await anext(next_one)
    sources.close()
