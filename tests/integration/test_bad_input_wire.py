"""Bytes that are no message, on every RPC there is."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import modelhost.v1
import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from modelhost.v1 import model_service_pb2
from modelhost.v1 import prediction_service_pb2 as pb
from support.predict import Failure, assert_serves, error_of, failure, load, new_scope, request
from support.server import BOTH_TRANSPORTS, Stubs

pytestmark = BOTH_TRANSPORTS


def all_methods() -> dict[str, MethodDescriptor]:
    """Every RPC of modelhost.v1, from what protoc generated, so that a new one is tested by itself."""
    modules = [m.name for m in pkgutil.iter_modules(modelhost.v1.__path__) if m.name.endswith("_service_pb2")]
    files = [importlib.import_module(f"modelhost.v1.{name}").DESCRIPTOR for name in modules]
    services = [service for file in files for service in file.services_by_name.values()]
    return {f"/{service.full_name}/{method.name}": method for service in services for method in service.methods}


METHODS = all_methods()
GARBAGE = {
    "a field that ends too early": lambda message: b"\x0a\x7f\x00",
    "a length beyond all bytes": lambda message: b"\x0a\xff\xff\xff\xff\x07",
    "half a varint": lambda message: b"\x08\xff",
    "an endless varint": lambda message: b"\x08" + b"\xff" * 20,
    "field number 0": lambda message: b"\x02\x00",
    "an end of no group": lambda message: b"\x0c",
    "text": lambda message: b'{"scope": "default"}',
    "text that is no Unicode": lambda message: _text_field(message, b"\xff\xfe"),
}


def _text_field(message: Descriptor, value: bytes) -> bytes:
    """A message whose first text field, in itself or in the messages it holds, has this value."""
    for field in message.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            return bytes([field.number << 3 | 2, len(value)]) + value
    for field in message.fields:
        if field.message_type is not None:
            inner = _text_field(field.message_type, value)
            return bytes([field.number << 3 | 2, len(inner)]) + inner
    raise AssertionError(f"{message.full_name} holds no text")


def caller(stubs: Stubs, path: str, method: MethodDescriptor) -> Callable[[bytes], Any]:
    """Calls a method with bytes as they are."""
    kinds = {
        (False, False): stubs.channel.unary_unary,
        (False, True): stubs.channel.unary_stream,
        (True, False): stubs.channel.stream_unary,
        (True, True): stubs.channel.stream_stream,
    }
    call = kinds[method.client_streaming, method.server_streaming](path)
    return lambda data: call(iter([data]) if method.client_streaming else data, timeout=30)


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


def _damaged(data: bytes) -> Iterator[bytes]:
    for i in range(len(data)):
        yield data[:i]
        yield data[:i] + bytes([data[i] ^ 0x80]) + data[i + 1 :]
        yield data[:i] + bytes([data[i] ^ 0x07]) + data[i + 1 :]
        yield data[:i] + data[i + 1 :]


def test_no_damage_to_a_prediction_makes_the_server_fail(stubs, scope):
    path = "/modelhost.v1.PredictionService/Predict"
    message = request(scope, "half", {"x": np.float32([1, 2])}, version=1, output_filter=["y"]).SerializeToString()
    outcomes = _outcomes(stubs, path, _damaged(message))
    assert {outcome.code for outcome in outcomes} <= SANE
    assert len(outcomes) > len(message)


@pytest.mark.parametrize("name", ["GetModel", "ListModels"])
def test_no_damage_to_a_question_makes_the_server_fail(stubs, scope, name):
    message = {
        "GetModel": model_service_pb2.GetModelRequest(scope=scope, model="half", version=1, view=3),
        "ListModels": model_service_pb2.ListModelsRequest(scope=scope, page_size=5, page_token="WyJhIl0=", view=3),
    }[name]
    outcomes = _outcomes(stubs, f"/modelhost.v1.ModelService/{name}", _damaged(message.SerializeToString()))
    assert {outcome.code for outcome in outcomes} <= SANE
    assert outcomes


def _outcomes(stubs: Stubs, path: str, messages: Iterator[bytes]) -> list[Failure]:
    """How those of the calls failed that did."""
    call = stubs.channel.unary_unary(path)
    failures = []
    for future in [call.future(message, timeout=30) for message in messages]:
        error = future.exception()
        if error is not None:
            failures.append(failure(error))
    return failures
