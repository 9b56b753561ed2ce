"""What hostile callers do to HTTP/2: the server stays small and goes on to answer the others."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from modelhost.v1 import model_service_pb2 as pb
from modelhost.v1 import prediction_service_pb2
from support import frames
from support.frames import Connection, call, call_headers, frame
from support.predict import load, request
from support.server import BOTH_TRANSPORTS, OWN_CONNECTION, ServerProcess, Stubs

pytestmark = BOTH_TRANSPORTS

SLOW_SECONDS = 1
# With gRPC core: 60 MB for the 16 MB of headers that it takes before its settings are acknowledged, and the more for
# what a connection sends at once the busier the machine is, up to twice that.
MOST_GROWTH = 128 << 20
KILOBYTE_HEADERS = {f"x-{number}": "x" * 100 for number in range(10)}


class Victim:
    """A server, what it weighed before, and a caller that does no harm."""

    def __init__(self, server: ServerProcess) -> None:
        self.address = server.address
        self._process = psutil.Process(server.process.pid)
        self._channel = grpc.insecure_channel(server.address, options=OWN_CONNECTION)
        self._check = health_pb2_grpc.HealthStub(self._channel).Check
        self.assert_answers()
        self._before = self._process.memory_info().rss

    def assert_answers(self) -> None:
        answer = self._check(health_pb2.HealthCheckRequest(), timeout=20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING

    def assert_unharmed(self) -> None:
        self.assert_answers()
        assert self._process.memory_info().rss - self._before < MOST_GROWTH

    def close(self) -> None:
        self._channel.close()


@pytest.fixture(scope="module")
def victim(transport: str) -> Iterator[Victim]:
    limits = ("--max-streams", "50", "--max-metadata-bytes", "8192", "--slow-reader-seconds", str(SLOW_SECONDS))
    with ServerProcess("--transport", transport, *limits) as server:
        victim = Victim(server)
        yield victim
        victim.close()


def test_calls_that_are_reset_at_once(victim: Victim) -> None:
    """CVE-2023-44487."""
    with Connection(victim.address) as attacker:
        reset = struct.pack(">I", 8)
        for first in range(1, 20_000, 200):
            streams = range(first, first + 200, 2)
            if not attacker.send(b"".join(
                call(stream, frames.CHECK) + frame(frames.RST_STREAM, 0, stream, reset) for stream in streams
            )):  # fmt: skip
                break
        victim.assert_unharmed()


def test_headers_that_never_end(victim: Victim) -> None:
    """CVE-2024-27316."""
    piece = call_headers(frames.CHECK, KILOBYTE_HEADERS)
    with Connection(victim.address) as attacker:
        attacker.send(frame(frames.HEADERS, 0, 1, piece))
        sent = 0
        while sent < 20_000 and attacker.send(frame(frames.CONTINUATION, 0, 1, piece) * 100):
            sent += 100
        # Some 20 MB have not been taken, or not been kept.
        victim.assert_unharmed()


@pytest.mark.parametrize("kind", [frames.PING, frames.SETTINGS])
def test_questions_whose_answers_nobody_reads(victim: Victim, kind: int) -> None:
    body = bytes(8) if kind == frames.PING else struct.pack(">HI", frames.INITIAL_WINDOW_SIZE, 65_535)
    with Connection(victim.address) as attacker:
        attacker.socket.settimeout(1)
        for _ in range(300):
            if not attacker.send(frame(kind, 0, 0, body) * 1000):
                break
        victim.assert_unharmed()


def test_streams_that_nobody_ends(victim: Victim) -> None:
    with Connection(victim.address) as attacker:
        headers = call_headers(frames.CHECK)
        attacker.send(b"".join(frame(frames.HEADERS, frames.END_HEADERS, 2 * n + 1, headers) for n in range(10_000)))
        victim.assert_unharmed()


def test_metadata_that_is_too_large(victim: Victim) -> None:
    with grpc.insecure_channel(victim.address, options=OWN_CONNECTION) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        with pytest.raises(grpc.RpcError) as refused:
            check(health_pb2.HealthCheckRequest(), timeout=20, metadata=[("x-large", "x" * 100_000)])
        assert refused.value.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
        assert check(health_pb2.HealthCheckRequest(), timeout=20, metadata=[("x-small", "x" * 4000)]).status
    victim.assert_unharmed()


def test_a_stream_that_nobody_reads_is_ended(victim: Victim, models: Path) -> None:
    stubs, watching = Stubs(victim.address, OWN_CONNECTION), Stubs(victim.address, OWN_CONNECTION)
    load(stubs, "default", models / "half_plus_two")
    quiet = watching.models.WatchModels(pb.WatchModelsRequest())
    next(quiet)
    # More than connections buffer; whose caller does not even look.
    large = prediction_service_pb2.PredictStreamRequest()
    large.requests.add(request=request("default", "half_plus_two", {"x": np.zeros(1 << 20, np.float32)}))
    answers = stubs.predictions.PredictStream(iter([large] * 12), timeout=60)
    time.sleep(3 * SLOW_SECONDS)
    with pytest.raises(grpc.RpcError) as ended:
        list(answers)
    assert ended.value.code() in (grpc.StatusCode.ABORTED, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
    # One that reads and hears nothing new is let be.
    load(stubs, "default", models / "half_plus_three")
    assert next(quiet)
    quiet.cancel()
    for one in (stubs, watching):
        one.close()
    victim.assert_answers()
