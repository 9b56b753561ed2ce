"""Where a client's token goes, and where it does not."""

from __future__ import annotations

import grpc
import modelhost
import pytest
from modelhost._shared_memory import is_on_this_machine

LOCAL = [
    "localhost:8500", "127.0.0.1:8500", "127.1.2.3:1", "[::1]:8500", "unix:/run/modelhost", "unix:modelhost",
    "localhost", "dns:///localhost:8500", "ipv4:127.0.0.1:8500", "ipv6:[::1]:8500",
]  # fmt: skip
ELSEWHERE = [
    "example.com:8500", "localhost.example.com:8500", "127.0.0.1.example.com:1", "127.example.com", "10.0.0.1:8500",
    "ipv4:127.0.0.1:80,10.0.0.1:80", "dns:///example.com:8500", "[::2]:8500", "localhosts:8500",
]  # fmt: skip


@pytest.mark.parametrize("target", LOCAL)
def test_what_is_on_this_machine(target: str) -> None:
    assert is_on_this_machine(target)
    modelhost.Client(target, token="secret").close()


@pytest.mark.parametrize("target", ELSEWHERE)
def test_a_token_goes_nowhere_else_in_plain_text(target: str) -> None:
    assert not is_on_this_machine(target)
    with pytest.raises(ValueError, match="plain text") as caught:
        modelhost.Client(target, token="secret")
    assert "secret" not in str(caught.value)
    modelhost.Client(target, token="secret", insecure=True).close()
    modelhost.Client(target, token="secret", credentials=grpc.ssl_channel_credentials()).close()
    modelhost.Client(target).close()


@pytest.mark.parametrize("token", ["sec\nret", "sec\x00ret", "sécret"])
def test_what_is_no_token_is_not_repeated(token: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII") as caught:
        modelhost.Client("localhost:1", token=token)
    assert token not in str(caught.value)
