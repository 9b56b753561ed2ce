"""What one caller may ask for, so that there is something left for the others."""

from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from modelhost.v1 import model_service_pb2 as pb
from modelhost.v1 import scope_pb2, scope_service_pb2
from support.calls import eventually
from support.predict import error_of, load, predict, request
from support.server import OWN_CONNECTION, ServerProcess, Stubs

MOST_CALLS = 3
SLOW_SECONDS = 1
RATE = 2


@pytest.fixture(scope="module")
def limited() -> Iterator[ServerProcess]:
    options = ("--max-calls-per-caller", str(MOST_CALLS), "--slow-reader-seconds", str(SLOW_SECONDS))
    with ServerProcess(*options, "--rest", "127.0.0.1:0") as server:
        yield server


@pytest.fixture
def callers(limited: ServerProcess) -> Iterator[tuple[Stubs, Stubs]]:
    """Two callers, each with a connection of its own."""
    callers = Stubs(limited.address, OWN_CONNECTION), Stubs(limited.address, OWN_CONNECTION)
    yield callers
    for caller in callers:
        caller.close()


def test_a_caller_has_so_many_calls_under_way_and_no_more(callers: tuple[Stubs, Stubs]) -> None:
    busy, other = callers
    watches = [busy.models.WatchModels(pb.WatchModelsRequest()) for _ in range(MOST_CALLS)]
    for watch in watches:
        next(watch)
    listing = pb.ListModelsRequest()
    failure = error_of(lambda: busy.models.ListModels(listing, timeout=20))
    assert (failure.code, failure.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_CALLS")
    assert failure.retry_delay is not None
    assert other.models.ListModels(listing, timeout=20).revision
    # Whether the server lives may be asked at any time.
    assert health_pb2_grpc.HealthStub(busy.channel).Check(health_pb2.HealthCheckRequest(), timeout=20).status
    watches.pop().cancel()
    assert eventually(lambda: busy.models.ListModels(listing, timeout=20).revision)
    for watch in watches:
        watch.cancel()


def test_a_caller_asks_a_scope_so_often_and_no_more(callers: tuple[Stubs, Stubs], models: Path) -> None:
    busy, other = callers
    config = scope_pb2.ScopeConfig(caller_rate_limit=RATE)
    created = busy.scopes.CreateScope(scope_service_pb2.CreateScopeRequest(scope="rated", config=config), timeout=20)
    assert created.scope.config.caller_rate_limit == RATE
    load(busy, "rated", models / "half_plus_two")
    asked = [busy.predictions.Predict.future(request("rated", "half_plus_two", {"x": np.float32([2])}), timeout=20)
             for _ in range(MOST_CALLS)]  # fmt: skip
    refused = [failure for future in asked if (failure := future.exception(20)) is not None]
    failure = error_of(lambda: _raise(refused[0]))
    assert (failure.code, failure.reason) == ("RESOURCE_EXHAUSTED", "RATE_LIMIT")
    assert failure.retry_delay is not None
    assert 0 < failure.retry_delay.ToMilliseconds() <= 1000 / RATE
    assert predict(other, "rated", "half_plus_two", x=np.float32([2]))["y"].tolist() == [3.0]
    # The other scope has no limit, and one can be taken away.
    unlimited = scope_service_pb2.UpdateScopeRequest(scope="rated", update_mask={"paths": ["caller_rate_limit"]})
    assert busy.scopes.UpdateScope(unlimited, timeout=20).scope.config.caller_rate_limit == 0
    for _ in range(2 * MOST_CALLS):
        assert predict(busy, "rated", "half_plus_two", x=np.float32([2]))["y"].tolist() == [3.0]


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("rate", [-1.0, 1e-6, 1e12, float("nan")])
def test_rates_out_of_range_are_refused(callers: tuple[Stubs, Stubs], rate: float) -> None:
    message = scope_service_pb2.CreateScopeRequest(scope="odd", config=scope_pb2.ScopeConfig(caller_rate_limit=rate))
    failure = error_of(lambda: callers[0].scopes.CreateScope(message, timeout=20))
    assert failure.fields == ("config.caller_rate_limit",)


def test_messages_with_too_many_tensors_are_refused(callers: tuple[Stubs, Stubs]) -> None:
    message = request("default", "any", {str(number): np.float32(0) for number in range(10_001)})
    failure = error_of(lambda: callers[0].predictions.Predict(message, timeout=20))
    assert (failure.code, failure.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert "at most 10000 tensors" in failure.message


@pytest.mark.parametrize(
    "beginning",
    [b"", b"GET /v1/models", b"POST /v1/models/m:predict HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{"],
)
def test_requests_over_rest_that_do_not_come_to_an_end(limited: ServerProcess, beginning: bytes) -> None:
    url = limited.addresses[-1]
    host, port = url.removeprefix("http://").rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=20) as slow:
        slow.sendall(beginning)
        assert slow.recv(1) == b""
    with urllib.request.urlopen(f"{url}/v2/health/live", timeout=20) as answer:
        assert answer.status == 200


def test_rest_answers_that_nobody_takes(limited: ServerProcess, callers: tuple[Stubs, Stubs], models: Path) -> None:
    load(callers[0], "default", models / "half_plus_two")
    host, port = limited.addresses[-1].removeprefix("http://").rsplit(":", 1)
    body = json.dumps({"instances": [1.5] * (1 << 20)}).encode()
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(20)
        slow.connect((host, int(port)))
        head = f"POST /v1/models/half_plus_two:predict HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        slow.sendall(head.encode() + body)
        eventually(lambda: _is_gone(slow), 20)


def _is_gone(connection: socket.socket) -> bool:
    """Whether the other end has hung up; nothing is read."""
    try:
        connection.send(b" ")
    except ConnectionError:
        return True
    return False
