"""Requests that are not right are refused with Triton's codes and messages."""

from __future__ import annotations

import struct

import grpc
import pytest
from tritonclient.grpc.service_pb2 import InferParameter as Value
from tritonclient.grpc.service_pb2 import ModelInferRequest
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

NO_ID = "[request id: <id_unknown>] "


@pytest.fixture(scope="module")
def stub(hosted):
    with grpc.insecure_channel(hosted.address) as channel:
        yield GRPCInferenceServiceStub(channel)


def request(names=("INPUT0", "INPUT1"), shape=(1, 16), datatype="INT32", raw=64, model="simple", **fields):
    """A request; each input of `raw` bytes of 0."""
    made = ModelInferRequest(model_name=model, **fields)
    for name in names:
        made.inputs.add(name=name, datatype=datatype, shape=shape)
        if raw is not None:
            made.raw_input_contents.append(bytes(raw))
    return made


def typed(first, second=None, **values):
    """A request with typed contents of its first input, and raw ones if it is to be mixed."""
    made = request(raw=None)
    for name, content in values.items():
        getattr(made.inputs[0].contents, name).extend(content)
    if second is not None:
        made.raw_input_contents.extend([second] * 2)
    if first:
        made.inputs[1].contents.int_contents.extend([0] * 16)
    return made


def strings(content, shape=(1,)):
    made = ModelInferRequest(model_name="identity_string", raw_input_contents=[content])
    made.inputs.add(name="INPUT0", datatype="BYTES", shape=shape)
    return made


def output(name="OUTPUT0", **parameters):
    made = request()
    added = made.outputs.add(name=name)
    for key, value in parameters.items():
        added.parameters[key].CopyFrom(value)
    return made


def parameter(**parameters):
    made = request()
    for key, value in parameters.items():
        made.parameters[key].CopyFrom(value)
    return made


def one(content):
    return struct.pack("<I", len(content)) + content


MISMATCH = NO_ID + "input byte size mismatch for input 'INPUT0' for model 'simple'. Expected 64, got "
CASES = {
    "missing": (
        request(["INPUT0"]),
        NO_ID + "expected 2 inputs but got 1 inputs for model 'simple'. Got input(s) ['INPUT0'], but missing required "
        "input(s) ['INPUT1']. Please provide all required input(s).",
    ),
    "none": (
        request([]),
        NO_ID + "expected 2 inputs but got 0 inputs for model 'simple'. Got input(s) [], but missing required input(s) "
        "['INPUT0','INPUT1']. Please provide all required input(s).",
    ),
    "more": (
        request(["INPUT0", "INPUT1", "X"]),
        NO_ID + "expected 2 inputs but got 3 inputs for model 'simple'. Got input(s) ['INPUT0','INPUT1','X'], but "
        "missing required input(s) []. Please provide all required input(s).",
    ),
    "another": (request(["INPUT0", "X"]), "unexpected inference input 'X' for model 'simple'"),
    "twice": (request(["INPUT0"] * 2, id="7"), "[request id: 7] input 'INPUT0' already exists in request"),
    "datatype": (
        request(datatype="FP32"),
        NO_ID + "inference input 'INPUT0' data-type is 'FP32', but model 'simple' expects 'INT32'",
    ),
    "no datatype": (
        request(datatype="INT"),
        NO_ID + "inference input 'INPUT0' data-type is '<invalid>', but model 'simple' expects 'INT32'",
    ),
    "shape": (
        request(shape=(1, 15), raw=60),
        NO_ID + "unexpected shape for input 'INPUT0' for model 'simple'. Expected [-1,16], got [1,15]. ",
    ),
    "rank": (
        request(shape=(16,)),
        NO_ID + "unexpected shape for input 'INPUT0' for model 'simple'. Expected [-1,16], got [16]. ",
    ),
    "open extent": (
        request(shape=(-1, 16)),
        NO_ID + "All input dimensions should be specified for input 'INPUT0' for model 'simple', got [-1,16]",
    ),
    "two open extents": (
        request(["INPUT0"], (-4, -4), "FP32", model="identity_float32"),
        NO_ID + "All input dimensions should be specified for input 'INPUT0' for model 'identity_float32', got [-4,-4]",
    ),
    "few bytes": (request(raw=60), MISMATCH + "60"),
    "many bytes": (request(raw=68), MISMATCH + "68"),
    "no bytes": (request(raw=0), MISMATCH + "0"),
    "no content": (request(raw=None), "unable to find data for input tensor 'INPUT0' for model 'simple' in request."),
    "too little content": (
        typed(False, int_contents=[0] * 16),
        "unable to find data for input tensor 'INPUT1' for model 'simple' in request.",
    ),
    "raw and typed": (
        typed(True, bytes(64), int_contents=[0] * 16),
        "contents field must not be specified when using raw_input_contents for 'INPUT0' for model 'simple'",
    ),
    "two types": (
        typed(True, int_contents=[0] * 16, fp32_contents=[0]),
        "unexpected explicit tensor data for input tensor 'INPUT0' for model 'simple', binary data was already "
        "supplied.",
    ),
    "another type": (
        typed(True, fp32_contents=[0] * 16),
        "unexpected explicit tensor data for input tensor 'INPUT0' for model 'simple' of type 'FP32', expected "
        "datatype 'INT32'",
    ),
    "few typed": (typed(True, int_contents=[0] * 15), MISMATCH + "60"),
    "few strings": (
        strings(one(b"abc"), (2,)),
        NO_ID + "expected 2 string elements for inference input 'INPUT0' for model 'identity_string', got 1",
    ),
    "many strings": (
        strings(one(b"abc") * 3, (2,)),
        NO_ID + "unexpected number of string elements 3 for inference input 'INPUT0' for model 'identity_string', "
        "expecting 2",
    ),
    "a string's end": (
        strings(one(b"abc")[:-1]),
        "incomplete string data for inference input 'INPUT0', expecting string of length 3 but only 2 bytes available",
    ),
    "a length's end": (
        strings(one(b"abc") + b"\1", (2,)),
        NO_ID + "incomplete string length indicator for inference input 'INPUT0' for model 'identity_string', "
        "expecting 4 bytes but only 1 bytes available. Please make sure the string length indicator is in one buffer.",
    ),
    "no such output": (output("X"), "unexpected inference output 'X' for model 'simple'"),
    "no classes": (
        output(classification=Value(int64_param=0)),
        "invalid value for 'classification' parameter, expected >= 1",
    ),
    "classes by name": (
        output(classification=Value(string_param="2")),
        "invalid value type for 'classification' parameter, expected int64_param",
    ),
    "classes in shared memory": (
        output(
            classification=Value(int64_param=1), shared_memory_region=Value(string_param="r"),
            shared_memory_byte_size=Value(int64_param=4),
        ),
        "output can't set both 'shared_memory_region' and 'classification'",
    ),
    "priority": (
        parameter(priority=Value(int64_param=-1)), "invalid value for 'priority', expected value >= 0."
    ),
    "type of priority": (
        parameter(priority=Value(string_param="1")),
        "invalid value type for 'priority' parameter, expected int64_param or uint64_param.",
    ),
    "type of timeout": (
        parameter(timeout=Value(string_param="1")),
        "invalid value type for 'timeout' parameter, expected int64_param.",
    ),
    "type of sequence id": (
        parameter(sequence_id=Value(bool_param=True)),
        "invalid value type for 'sequence_id' parameter, expected int64_param or string_param.",
    ),
    "sequence": (
        parameter(sequence_id=Value(int64_param=5)),
        "'sequence_id' must not be specified: there are no sequences here, each request is answered for itself",
    ),
    "reserved": (
        parameter(triton_mine=Value(bool_param=True)),
        "parameter keys starting with 'triton_' are reserved for Triton usage. Only the following keys starting with "
        "'triton_' are allowed: triton_enable_empty_final_response",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_right_is_refused_in_tritons_words(stub, case):
    asked, message = CASES[case]
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(asked)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, message)


@pytest.mark.parametrize("case", CASES)
def test_a_large_request_is_refused_alike(stub, case):
    asked, message = CASES[case]
    asked = ModelInferRequest.FromString(asked.SerializeToString())
    # Requests from some size on are read by hand.
    asked.parameters["filler"].string_param = "x" * (64 << 10)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(asked)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, message)


def test_the_words_fit_into_headers_whatever_the_names_are(stub):
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request(names=[f"{i}" + "é%" * 120 for i in range(20)]))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "expected 2 inputs but got 20 inputs for model 'simple'" in caught.value.details()


def test_integers_that_do_not_fit_are_refused(stub):
    asked = ModelInferRequest(model_name="identity_int8")
    asked.inputs.add(name="INPUT0", datatype="INT8", shape=[2]).contents.int_contents.extend([1, 300])
    with pytest.raises(grpc.RpcError, match="300 is no INT8"):
        stub.ModelInfer(asked)


def test_bytes_of_bool_are_0_or_1(stub):
    asked = ModelInferRequest(model_name="identity_bool", raw_input_contents=[b"\1\2"])
    asked.inputs.add(name="INPUT0", datatype="BOOL", shape=[2])
    with pytest.raises(grpc.RpcError, match="bytes of bool are 0 or 1; got 2"):
        stub.ModelInfer(asked)


def test_strings_have_no_classes(stub):
    asked = strings(one(b"abc"))
    asked.outputs.add(name="OUTPUT0").parameters["classification"].int64_param = 1
    with pytest.raises(grpc.RpcError, match="class result not available for output due to unsupported type 'BYTES'"):
        stub.ModelInfer(asked)


def test_time_that_is_over_is_told(stub):
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(parameter(timeout=Value(int64_param=1)))
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAVAILABLE, "Request timeout expired")


def test_what_is_no_message_is_refused(hosted):
    with grpc.insecure_channel(hosted.address) as channel:
        for data in (b"\xff\xff", b"\xff" * 100_000, request().SerializeToString()[:-1]):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(data)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_what_the_model_fails_with_is_told(stub):
    asked = ModelInferRequest(model_name="simple_string", raw_input_contents=[one(b"no number") * 16] * 2)
    for name in ("INPUT0", "INPUT1"):
        asked.inputs.add(name=name, datatype="BYTES", shape=[1, 16])
    with pytest.raises(grpc.RpcError, match="no number") as caught:
        stub.ModelInfer(asked)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
