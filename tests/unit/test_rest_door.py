"""What the REST door makes of a connection."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from modelhost_server.compat import open_inference_pb2 as pb
from modelhost_server.rest.door import RestDoor
from modelhost_server.services.call import Call
from modelhost_server.transport.base import TransportOptions
from modelhost_server.transport.routes import Route


def test_who_calls_is_who_has_connected() -> None:
    callers = []

    async def live(request: Any, call: Call) -> Any:
        callers.append(call.caller)
        return pb.ServerLiveResponse(live=True)

    def serialized(message: Any) -> bytes:
        return bytes(message.SerializeToString())

    route = Route("/inference.GRPCInferenceService/ServerLive", False, False, live, bytes, serialized)

    async def run() -> None:
        door = RestDoor(None, None, [route], None, TransportOptions(1 << 20))  # type: ignore[arg-type]
        url = door.listen("127.0.0.1:0")
        await door.start()
        async with httpx.AsyncClient(base_url=url, headers={"X-Forwarded-For": "10.0.0.7"}) as client:
            assert (await client.get("/v2/health/live")).status_code == 200
        await door.stop(1)

    asyncio.run(run())
    assert [caller.rpartition(":")[0] for caller in callers] == ["ipv4:127.0.0.1"]
