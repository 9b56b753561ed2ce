"""What may be listened on."""

from __future__ import annotations

import asyncio

import pytest
from modelhost_server.transport.base import TransportOptions
from modelhost_server.transport.grpcio import GrpcioTransport
from modelhost_server.transport.listeners import Listeners

WRONG = pytest.mark.parametrize(
    "address", ["", "nonsense", ":1", "h:", "h:x", "h:-1", "h:65536", "h:²", "unix:", "unix://"]
)
MESSAGE = "cannot listen on {}: expected HOST:PORT or unix:PATH"


@WRONG
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(OSError, match=MESSAGE.format(address)):
        Listeners(reuse_port=False).open([address])


@WRONG
def test_what_is_no_address_for_grpcio(address: str) -> None:
    async def listen() -> None:
        GrpcioTransport([], TransportOptions(1 << 20)).listen([address])

    with pytest.raises(OSError, match=MESSAGE.format(address)):
        asyncio.run(listen())
