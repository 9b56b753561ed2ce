"""The Open Inference Protocol's JSON and the bytes behind it."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelhost_server.compat import open_inference_pb2 as pb
from modelhost_server.errors import Code, ForeignError
from modelhost_server.rest.infer_requests import infer_request
from modelhost_server.rest.infer_responses import infer_response
from modelhost_server.rest.messages import message_document
from modelhost_server.services.open_inference.inference import InferenceResponse
from modelhost_server.tensors import STRING, Lease, LeasedBytes, RawTensor


def tensor(name="x", datatype="INT32", shape=(2,), **more):
    return {"name": name, "datatype": datatype, "shape": list(shape), **more}


def read(document, rest=b""):
    header = document if isinstance(document, bytes) else json.dumps(document).encode()
    return infer_request("m", "3", header + rest, str(len(header)) if rest else None)


def refusal(document, rest=b""):
    with pytest.raises(ForeignError) as error:
        read(document, rest)
    assert error.value.code is Code.INVALID_ARGUMENT
    return error.value.message


def test_a_request():
    asked = read(
        {
            "id": "a",
            "parameters": {"priority": 1, "x": True, "y": 0.5, "z": "s", "large": 2**63, "binary_data_output": True},
            "inputs": [
                tensor("x", data=[[1], [2]]),
                tensor("s", "BYTES", data=["a", "ü"]),
                tensor("f", "FP16", parameters={"binary_data_size": 4}),
                tensor("shared", parameters={"shared_memory_region": "r", "shared_memory_byte_size": 8}),
                tensor("b", "BOOL", parameters={"binary_data_size": 2}),
            ],
            "outputs": [{"name": "y", "parameters": {"binary_data": False, "classification": 2}}],
        },
        b"FFFF\x00\x01",
    )
    message, raw = asked.request
    assert (message.model_name, message.model_version, message.id) == ("m", "3", "a")
    assert {name: value.WhichOneof("parameter_choice") for name, value in message.parameters.items()} == {
        "priority": "int64_param", "x": "bool_param", "y": "double_param", "z": "string_param", "large": "uint64_param",
    }  # fmt: skip
    assert [bytes(each) for each in raw] == [
        np.array([1, 2], "<i4").tobytes(), b"\x01\x00\x00\x00a\x02\x00\x00\x00\xc3\xbc", b"FFFF", b"\x00\x01",
    ]  # fmt: skip
    assert [(each.name, each.datatype, list(each.shape)) for each in message.inputs][:2] == [
        ("x", "INT32", [2]), ("s", "BYTES", [2]),
    ]  # fmt: skip
    assert message.inputs[3].parameters["shared_memory_region"].string_param == "r"
    assert message.outputs[0].parameters["classification"].int64_param == 2
    assert (asked.is_binary, asked.is_binary_by_default) == ({"y": False}, True)


def test_bytes_are_not_copied():
    body = json.dumps({"inputs": [tensor(parameters={"binary_data_size": 8})]}).encode()
    asked = infer_request("m", "", body + b"12345678", str(len(body)))
    (raw,) = asked.request.raw
    assert isinstance(raw, memoryview)
    assert raw.nbytes == 8


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("BOOL", [True, False]), ("UINT8", [0, 255]), ("INT8", [-128, 127]), ("UINT16", [0, 65535]),
        ("INT64", [-(2**63), 1]),
        ("UINT64", [0, 2**64 - 1]), ("FP32", [1, 16777217]), ("FP64", [0.1, 2]),
    ],
)  # fmt: skip
def test_numbers(datatype, values):
    kind = {"BOOL": "?", "FP32": "f4", "FP64": "f8"}.get(datatype) or np.dtype(datatype.lower()).str
    (raw,) = read({"inputs": [tensor("x", datatype, data=values)]}).request.raw
    assert raw == np.array(values, kind).tobytes()


CONTENT = "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', "


@pytest.mark.parametrize(
    ("document", "rest", "message"),
    [
        (b"", b"", "failed to parse the request JSON buffer: "),
        (b"[" * 3000, b"", "failed to parse the request JSON buffer: "),
        ([], b"", "Unable to parse 'the request': expected a JSON object"),
        ({}, b"", "Unable to parse 'inputs': attempt to access JSON non-array as array"),
        ({"inputs": [1]}, b"", "Unable to parse 'inputs': expected a JSON object"),
        ({"inputs": [], "id": 1}, b"", "Unable to parse 'id': attempt to access JSON non-string as string"),
        (b'{"inputs": [], "id": NaN}', b"", "Unable to parse 'id'"),
        (b'{"inputs": [NaN], "id": "\\ud800"}', b"", "failed to parse the request JSON buffer"),
        (b'{"inputs": [NaN], "id": "\xed\xa0\x80"}', b"", "failed to parse the request JSON buffer"),
        ({"inputs": [], "parameters": 1}, b"", "Unable to parse 'parameters': expected a JSON object"),
        ({"inputs": [], "parameters": {"p": [1]}}, b"", "parameter 'p' has invalid type."),
        ({"inputs": [], "parameters": {"p": None}}, b"", "parameter 'p' has invalid type."),
        ({"inputs": [], "parameters": {"binary_data_output": 1}}, b"", "Unable to parse 'binary_data_output': "),
        ({"inputs": [tensor()]}, b"", CONTENT + "'shared_memory_region' in 'parameters'. But no field is set"),
        ({"inputs": [tensor(data=[1], parameters={"binary_data_size": 4})]}, b"1234", "But set 'data' 'binary"),
        ({"inputs": [{"data": [1]}]}, b"", "Unable to parse 'name'"),
        ({"inputs": [{"name": "x", "data": [1]}]}, b"", "Unable to parse 'datatype'"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "data": [1]}]}, b"", "Unable to parse 'shape'"),
        ({"inputs": [tensor(shape=[-1], data=[1])]}, b"", "Unable to parse 'shape': attempt to access"),
        ({"inputs": [tensor(shape=[1.0], data=[1])]}, b"", "Unable to parse 'shape': attempt to access"),
        ({"inputs": [tensor(data=1)]}, b"", "Unable to parse 'data': attempt to access JSON non-array as array"),
        ({"inputs": [tensor(data=[1])]}, b"", "Unable to parse 'data': Shape does not match true"),
        ({"inputs": [tensor(data=[1, [2]])]}, b"", "Unable to parse 'data': Shape does not match true shape"),
        ({"inputs": [tensor(shape=[0], data=[1, [2]])]}, b"", "Unable to parse 'data': Shape does not match true"),
        (b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [2], "data": [NaN, 1' + b"0" * 400 + b"]}]}", b"",
         "a value is out of the range of FP64"),
        ({"inputs": [tensor(data=[1, 2.5])]}, b"", "attempt to access JSON non-signed-integer as signed-integer"),
        ({"inputs": [tensor(data=[1, 2**31])]}, b"", "Unable to parse 'data': a value is out of the range of INT32"),
        ({"inputs": [tensor("x", "BOOL", data=[1, 0])]}, b"", "attempt to access JSON non-boolean as boolean"),
        ({"inputs": [tensor("x", "FP32", data=["a", 0])]}, b"", "attempt to access JSON non-number as number"),
        ({"inputs": [tensor("x", "BYTES", data=["a", 0])]}, b"", "attempt to access JSON non-string as string"),
        ({"inputs": [tensor("x", "FP16", data=[1, 0])]}, b"", "receiving FP16 data via JSON is not supported."),
        ({"inputs": [tensor("x", "FP13", data=[1, 0])]}, b"", "invalid datatype for input x"),
        ({"inputs": [tensor(parameters={"binary_data_size": -1})]}, b"x", "Unable to parse 'binary_data_size'"),
        ({"inputs": [tensor(parameters={"binary_data_size": 8})]}, b"12345", "input 'x', expecting 3 additional bytes"),
        ({"inputs": [tensor(parameters={"binary_data_size": 8})]}, b"123456789", "unexpected additional input data for "
         "model 'm'"),
        ({"inputs": [], "outputs": 1}, b"", "Unable to parse 'outputs'"),
        ({"inputs": [], "outputs": [{}]}, b"", "Unable to parse 'name'"),
        ({"inputs": [], "outputs": [{"name": "y", "parameters": {"binary_data": True, "shared_memory_region": "r"}}]},
         b"",
         "Output can't set both 'shared_memory_region' and 'binary_data'"),
    ],
)  # fmt: skip
def test_requests_that_are_wrong(document, rest, message):
    assert message in refusal(document, rest)


@pytest.mark.parametrize("length", ["-1", "3", "x", "", "99999999999", "²"])
def test_lengths_that_are_wrong(length):
    with pytest.raises(ForeignError, match="inference header size should be in range"):
        infer_request("m", "", b"{}", length)


def test_bytes_alone_are_refused():
    with pytest.raises(ForeignError, match="requests of bytes alone are not supported"):
        infer_request("m", "", b"1234", "0")


@given(st.binary(max_size=80), st.none() | st.integers(0, 80).map(str))
def test_whatever_is_sent_is_told_of(body, length):
    with pytest.raises(ForeignError):
        infer_request("m", "", body, length)


OUTPUTS = {
    "f": RawTensor(1, [2], np.array([0.2, math.nan], "<f4").tobytes()),
    "leased": RawTensor(3, [1, 1], LeasedBytes(memoryview(b"\x01\x00\x00\x00"), Lease(lambda: None))),
    "s": RawTensor(STRING, [1], ["ü".encode()]),
}


def written(document, outputs=OUTPUTS):
    return infer_response(read({"inputs": [], **document}), InferenceResponse("m", 7, document.get("id", ""), outputs))


def test_an_answer_of_more_dimensions_than_numpy_has():
    content, _ = written({}, {"x": RawTensor(1, [1] * 70, b"\0" * 4), "none": RawTensor(1, [0, 2**62], b"")})
    assert [output["data"] for output in json.loads(content)["outputs"]] == [[0], []]


def test_an_answer_in_json():
    content, header_length = written({"id": "a"})
    assert header_length is None
    assert content.decode() == (
        '{"id":"a","model_name":"m","model_version":"7","outputs":['
        '{"name":"f","datatype":"FP32","shape":[2],"data":[0.2,NaN]},'
        '{"name":"leased","datatype":"INT32","shape":[1,1],"data":[1]},'
        '{"name":"s","datatype":"BYTES","shape":[1],"data":["ü"]}]}'
    )


def test_an_answer_with_bytes_behind_it():
    content, length = written(
        {
            "parameters": {"binary_data_output": True},
            "outputs": [
                {"name": "f", "parameters": {"binary_data": False}},
                {"name": "s", "parameters": {"binary_data": True}},
            ],
        }
    )
    outputs = json.loads(content[:length])["outputs"]
    assert outputs[1:] == [
        {"name": "leased", "datatype": "INT32", "shape": [1, 1], "parameters": {"binary_data_size": 4}},
        {"name": "s", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 6}},
    ]
    assert "data" in outputs[0]
    assert content[length:] == b"\x01\x00\x00\x00\x02\x00\x00\x00\xc3\xbc"


def test_outputs_in_shared_memory_are_only_told_of():
    asked = {"outputs": [{"name": "f", "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 8}}]}
    content, _ = written(asked, {"f": RawTensor(1, [2], b"")})
    assert json.loads(content)["outputs"] == [{"name": "f", "datatype": "FP32", "shape": [2]}]


def test_an_answer_of_no_bytes_is_json():
    content, length = written({"parameters": {"binary_data_output": True}}, {"f": RawTensor(1, [0], b"")})
    assert length is None
    assert json.loads(content)["outputs"][0]["parameters"] == {"binary_data_size": 0}


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (RawTensor(19, [1], b"12"), "sending FP16 data via JSON is not supported"),
        (RawTensor(14, [1], b"12"), "sending BF16 data via JSON is not supported"),
        (RawTensor(STRING, [1], [b"\xff"]), "sending BYTES data that is not UTF-8 via JSON is not supported"),
    ],
)
def test_answers_that_json_has_nothing_for(tensor, message):
    with pytest.raises(ForeignError, match=message):
        written({}, {"y": tensor})


def test_messages_have_numbers_as_numbers():
    statistics = pb.ModelStatistics(name="m", inference_count=2**60)
    statistics.response_stats["1"].success.count = 3
    document = message_document(statistics)
    assert document["inference_count"] == 2**60
    assert document["response_stats"] == {"1": {"success": {"count": 3, "ns": 0}}}
    assert document["batch_stats"] == []
    assert "inference_stats" not in document
    assert message_document(pb.ModelMetadataResponse.TensorMetadata(shape=[-1, 2]))["shape"] == [-1, 2]
