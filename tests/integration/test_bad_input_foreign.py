"""Bytes that are no message, and damaged ones, on every RPC of other projects' protocols."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import modelhost_server.compat
import pytest
from modelhost_server.compat import open_inference_pb2, serving_predict_pb2
from modelhost_server.services.call import foreign_name
from support.garbage import GARBAGE, caller, damaged, errors, methods_of
from support.predict import assert_serves, load, new_scope
from support.server import BOTH_TRANSPORTS, Stubs

pytestmark = BOTH_TRANSPORTS

METHODS = {foreign_name(path): method for path, method in methods_of(modelhost_server.compat).items()}
# What a request may be answered with, that began as a good one and was damaged on its way.
SANE = {"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNAVAILABLE"}


@pytest.fixture(scope="module")
def scope(models: Path, stubs: Stubs) -> Iterator[str]:
    with new_scope(stubs, "bad-foreign") as name:
        load(stubs, name, models / "half_plus_two", "half")
        yield name


@pytest.fixture(autouse=True)
def still_serves(stubs: Stubs, scope: str) -> Iterator[None]:
    yield
    assert_serves(stubs, scope, "half")


def test_the_rpcs_are_found():
    some = {"/tensorflow.serving.PredictionService/Predict", "/inference.GRPCInferenceService/ModelInfer"}
    assert some <= set(METHODS)


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("path", METHODS)
def test_bytes_that_are_no_message_are_refused(stubs, path, garbage):
    method = METHODS[path]
    if not method.input_type.fields and garbage is GARBAGE["field number 0"]:
        pytest.skip("protobuf passes over fields of messages that have none")
    with pytest.raises(grpc.RpcError) as caught:
        list(caller(stubs, path, method)(garbage(method.input_type)))
    assert caught.value.code().name == "INVALID_ARGUMENT"
    assert foreign_name(method.input_type.full_name) in caught.value.details()


@pytest.mark.parametrize("path", METHODS)
def test_an_empty_message_is_answered_or_refused_in_words(stubs, path):
    answers: list[object] = []
    try:
        answer = caller(stubs, path, METHODS[path])(b"")
        answers.extend([answer] if isinstance(answer, bytes) else answer)
    except grpc.RpcError as error:
        assert error.code().name in {*SANE, "UNIMPLEMENTED"}
        assert error.details()
    else:
        assert len(answers) == 1


def test_no_damage_to_a_prediction_makes_the_server_fail(stubs, scope):
    message = serving_predict_pb2.PredictRequest(output_filter=["y"])
    message.model_spec.name = f"{scope}/half"
    message.model_spec.version.value = 1
    x = message.inputs["x"]
    x.dtype = 1
    x.tensor_shape.dim.add(size=2)
    x.float_val.extend([1, 2])
    data = message.SerializeToString()
    found = errors(stubs, "/tensorflow.serving.PredictionService/Predict", damaged(data))
    assert {error.code().name for error in found} <= SANE
    assert len(found) > len(data)


def test_no_damage_to_an_inference_makes_the_server_fail(stubs, scope):
    message = open_inference_pb2.ModelInferRequest(model_name=f"{scope}/half", model_version="1", id="7")
    message.inputs.add(name="x", datatype="FP32", shape=[2])
    message.raw_input_contents.append(bytes(8))
    message.outputs.add(name="y").parameters["classification"].int64_param = 1
    data = message.SerializeToString()
    found = errors(stubs, "/inference.GRPCInferenceService/ModelInfer", damaged(data))
    assert {error.code().name for error in found} <= SANE
    assert len(found) > len(data)
