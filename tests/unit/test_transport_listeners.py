"""What may be listened on."""

from __future__ import annotations

import pytest
from modelhost_server.transport.listeners import Listeners


@pytest.mark.parametrize("address", ["", "nonsense", ":1", "h:", "h:x", "h:-1", "h:65536", "h:²", "unix:", "unix://"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(OSError, match=f"cannot listen on {address}: expected HOST:PORT or unix:PATH"):
        Listeners(reuse_port=False).open([address])
