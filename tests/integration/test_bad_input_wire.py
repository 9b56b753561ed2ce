"""Bytes that are no message, on every RPC there is."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import grpc
import modelhost.v1
import numpy as np
import pytest
from hpack import Encoder
from modelhost.v1 import model_service_pb2
from modelhost.v1 import prediction_service_pb2 as pb
from support.garbage import GARBAGE, caller, damaged, errors, methods_of
from support.predict import assert_serves, error_of, failure, load, new_scope, request
from support.server import BOTH_TRANSPORTS, OWN_CONNECTION, Stubs

pytestmark = BOTH_TRANSPORTS


METHODS = methods_of(modelhost.v1)


@pytest.fixture(scope="module")
def scope(models: Path, stubs: Stubs) -> Iterator[str]:
    with new_scope(stubs, "bad-wire") as name:
        load(stubs, name, models / "half_plus_two", "half")
        yield name


@pytest.fixture(autouse=True)
def still_serves(stubs: Stubs, scope: str) -> Iterator[None]:
    yield
    assert_serves(stubs, scope, "half")


def test_the_rpcs_are_found():
    assert {"/modelhost.v1.ModelService/LoadModel", "/modelhost.v1.PredictionService/PredictStream"} <= set(METHODS)
    assert len(METHODS) >= 13


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("path", METHODS)
def test_bytes_that_are_no_message_are_refused(stubs, path, garbage):
    method = METHODS[path]
    data = garbage(method.input_type)
    found = error_of(lambda: caller(stubs, path, method)(data))
    assert (found.code, found.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert method.input_type.full_name in found.message
    assert f"{len(data)} bytes" in found.message


def test_a_broken_message_ends_a_stream_after_the_good_ones_before_it(stubs, scope):
    path = "/modelhost.v1.PredictionService/PredictStream"
    message = request(scope, "half", {"x": np.float32([1])})
    item = pb.StreamedRequest(id=5, request=message)
    good = pb.PredictStreamRequest(requests=[item]).SerializeToString()
    answers = stubs.channel.stream_stream(path)(iter([good, good, b"\x0a\xff\xff"]), timeout=30)
    received = []
    with pytest.raises(grpc.RpcError) as caught:
        received.extend(answers)
    assert (failure(caught.value).code, failure(caught.value).reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")


# What a request may be answered with, that began as a good one and was damaged on its way.
SANE = {"INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED"}


def test_no_damage_to_a_prediction_makes_the_server_fail(stubs, scope):
    path = "/modelhost.v1.PredictionService/Predict"
    message = request(scope, "half", {"x": np.float32([1, 2])}, version=1, output_filter=["y"]).SerializeToString()
    found = errors(stubs, path, damaged(message))
    assert {failure(error).code for error in found} <= SANE
    assert len(found) > len(message)


@pytest.mark.parametrize("name", ["GetModel", "ListModels"])
def test_no_damage_to_a_question_makes_the_server_fail(stubs, scope, name):
    message = {
        "GetModel": model_service_pb2.GetModelRequest(scope=scope, model="half", version=1, view=3),
        "ListModels": model_service_pb2.ListModelsRequest(scope=scope, page_size=5, page_token="WyJhIl0=", view=3),
    }[name]
    found = errors(stubs, f"/modelhost.v1.ModelService/{name}", damaged(message.SerializeToString()))
    assert {failure(error).code for error in found} <= SANE
    assert found


def test_a_path_that_is_no_text_ends_nothing(stubs, server):
    # grpcio 1.84 shut its server down.
    def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
        return len(body).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + body

    named = [(":method", "POST"), (":scheme", "http"), (":path", b"/a/\xb5"), (":authority", "h")]
    headers = Encoder().encode([*named, ("content-type", "application/grpc"), ("te", "trailers")])
    host, port = server.address.rsplit(":", 1)
    for _ in range(3):
        with socket.create_connection((host, int(port)), 10) as caller:
            data = frame(4, 0, 0, b"") + frame(1, 4, 1, headers) + frame(0, 1, 1, bytes(5))
            caller.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + data)
            assert caller.recv(1000)
    # Whoever has no connection yet gets one.
    fresh = Stubs(server.address, OWN_CONNECTION)
    error_of(lambda: fresh.models.GetModel(model_service_pb2.GetModelRequest(model="nothing"), timeout=30))
    fresh.close()
