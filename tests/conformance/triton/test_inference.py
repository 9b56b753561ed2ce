"""Inferences by Triton's clients: synchronous, asynchronous, with callbacks."""

from __future__ import annotations

import asyncio
import queue

import ml_dtypes
import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput, service_pb2
from tritonclient.grpc import aio as asynchronous
from tritonclient.utils import InferenceServerException

A = np.arange(16, dtype=np.int32).reshape(1, 16)
B = np.full((1, 16), 3, np.int32)
RAMP = np.array([[-3, 0, 7]])
VALUES = {
    "BOOL": np.array([[True, False, True]]),
    "UINT8": np.array([[0, 7, 255]], np.uint8), "INT8": np.array([[-128, 0, 127]], np.int8),
    "UINT16": np.array([[0, 7, 65535]], np.uint16), "INT16": np.array([[-32768, 0, 32767]], np.int16),
    "UINT32": np.array([[0, 7, 2**32 - 1]], np.uint32), "INT32": np.array([[-(2**31), 0, 2**31 - 1]], np.int32),
    "UINT64": np.array([[0, 7, 2**64 - 1]], np.uint64), "INT64": np.array([[-(2**63), 0, 2**63 - 1]], np.int64),
    "FP16": RAMP.astype(np.float16), "FP32": RAMP.astype(np.float32), "FP64": RAMP.astype(np.float64),
    "BF16": RAMP.astype(ml_dtypes.bfloat16), "BYTES": np.array([[b"", b"\x00\xff", "ä".encode()]], np.object_),
}  # fmt: skip
MODELS = {"FP16": "float16", "FP32": "float32", "FP64": "float64", "BF16": "bfloat16", "BYTES": "string"}
CONTENTS = {
    "BOOL": "bool_contents", "UINT8": "uint_contents", "INT8": "int_contents", "UINT16": "uint_contents",
    "INT16": "int_contents", "UINT32": "uint_contents", "INT32": "int_contents", "UINT64": "uint64_contents",
    "INT64": "int64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


def tensor(name, datatype, value):
    made = InferInput(name, list(value.shape), datatype)
    made.set_data_from_numpy(value)
    return made


def identity(datatype):
    return f"identity_{MODELS.get(datatype, datatype.lower())}"


SIMPLE = [tensor("INPUT0", "INT32", A), tensor("INPUT1", "INT32", B)]


def check(result):
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), A + B)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), A - B)


@pytest.mark.parametrize(
    ("model", "version", "answered"),
    [
        ("simple", "", "2"), ("simple", "1", "1"), ("simple", "stable", "1"), ("team/simple", "", "1"),
        ("default/simple", "2", "2"),
    ],
)  # fmt: skip
def test_the_answer_tells_the_model_the_version_and_the_id(client, model, version, answered):
    result = client.infer(model, SIMPLE, version, request_id="my id")
    check(result)
    response = result.get_response()
    assert (response.model_name, response.model_version, response.id) == (model, answered, "my id")
    assert len(response.raw_output_contents) == 2
    assert not any(output.HasField("contents") for output in response.outputs)


@pytest.mark.parametrize("datatype", VALUES)
def test_every_datatype_there_and_back(client, datatype):
    value = VALUES[datatype]
    result = client.infer(identity(datatype), [tensor("INPUT0", datatype, value)])
    assert result.get_output("OUTPUT0").datatype == datatype
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), value)


@pytest.mark.parametrize("datatype", CONTENTS)
def test_every_datatype_as_typed_contents(client, datatype):
    value = VALUES[datatype]
    request = service_pb2.ModelInferRequest(model_name=identity(datatype))
    made = request.inputs.add(name="INPUT0", datatype=datatype, shape=value.shape)
    getattr(made.contents, CONTENTS[datatype]).extend(value.ravel().tolist())
    response = client._client_stub.ModelInfer(request)
    raw = client.infer(identity(datatype), [tensor("INPUT0", datatype, value)]).get_response()
    assert response == raw


def test_no_elements_and_scalars(client):
    for value in (np.zeros((0, 4), np.float32), np.array(2, np.float32)):
        np.testing.assert_array_equal(
            client.infer("identity_float32", [tensor("INPUT0", "FP32", value)]).as_numpy("OUTPUT0"), value
        )


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_eight_megabytes_there_and_back(client, compression):
    value = np.arange(2 << 20, dtype=np.float32).reshape(2, -1)
    result = client.infer(
        "identity_float32", [tensor("INPUT0", "FP32", value)], compression_algorithm=compression, request_id="large"
    )
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), value)
    assert result.get_response().id == "large"


def test_eight_megabytes_of_typed_contents(client):
    value = np.arange(2 << 20, dtype=np.float32)
    request = service_pb2.ModelInferRequest(model_name="identity_float32")
    request.inputs.add(name="INPUT0", datatype="FP32", shape=value.shape).contents.fp32_contents.extend(value)
    (content,) = client._client_stub.ModelInfer(request).raw_output_contents
    assert content == value.tobytes()


def test_many_strings_there_and_back(client):
    value = np.array([b"%d" % i * (i % 7) for i in range(20000)], np.object_).reshape(100, 200)
    result = client.infer("identity_string", [tensor("INPUT0", "BYTES", value)])
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), value)


def test_a_model_of_strings(client):
    inputs = [
        tensor(name, "BYTES", value.astype(str).astype(np.object_)) for name, value in (("INPUT0", A), ("INPUT1", B))
    ]
    result = client.infer("simple_string", inputs)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0").astype(np.int32), A + B)


@pytest.mark.parametrize(
    ("wanted", "answered"),
    [
        (["OUTPUT1"], ["OUTPUT1"]), (["OUTPUT1", "OUTPUT0"], ["OUTPUT0", "OUTPUT1"]), (["OUTPUT1"] * 2, ["OUTPUT1"]),
        ([], ["OUTPUT0", "OUTPUT1"]),
    ],
)  # fmt: skip
def test_outputs_come_in_the_order_of_the_signature(client, wanted, answered):
    response = client.infer("simple", SIMPLE, outputs=[InferRequestedOutput(name) for name in wanted]).get_response()
    assert [output.name for output in response.outputs] == answered
    assert [np.frombuffer(raw, np.int32)[0] for raw in response.raw_output_contents] == [
        {"OUTPUT0": 3, "OUTPUT1": -3}[name] for name in answered
    ]


def test_classes_are_the_largest_values_of_each_row(client):
    value = np.array([[0.25, 0.5, 0.5, -1.0], [9.0, 8.0, 7.0, 6.0]], np.float32)
    ask = [InferRequestedOutput("y", class_count=3)]
    # A model that batches has classes of each row, one that does not has them of all.
    result = client.infer("identity_float32", [tensor("INPUT0", "FP32", value)],
                          outputs=[InferRequestedOutput("OUTPUT0", class_count=3)])  # fmt: skip
    assert result.as_numpy("OUTPUT0").tolist() == [b"9.000000:4", b"8.000000:5", b"7.000000:6"]
    result = client.infer("half", [tensor("x", "FP32", value[:, 1])], outputs=ask)
    assert result.as_numpy("y").tolist() == [[b"2.250000:0"], [b"6.000000:0"]]
    inputs = [
        tensor("INPUT0", "INT32", np.stack([A[0], A[0][::-1]])),
        tensor("INPUT1", "INT32", np.zeros((2, 16), np.int32)),
    ]
    result = client.infer("simple", inputs, outputs=[InferRequestedOutput("OUTPUT0", class_count=2)])
    assert result.as_numpy("OUTPUT0").tolist() == [[b"15:15", b"14:14"], [b"15:0", b"14:1"]]


def test_as_many_classes_as_there_are(client):
    result = client.infer("simple", SIMPLE, outputs=[InferRequestedOutput("OUTPUT0", class_count=1000)])
    assert result.as_numpy("OUTPUT0").shape == (1, 16)


def test_parameters_that_are_not_known_are_passed_over(client):
    parameters = {"mine": "x", "count": 3, "share": True}
    check(client.infer("simple", SIMPLE, priority=1, timeout=60_000_000, parameters=parameters, headers={"a": "b"}))


def test_a_signature_can_be_named(client):
    check(client.infer("simple", SIMPLE, parameters={"signature_name": "serving_default"}))
    with pytest.raises(InferenceServerException, match="no signature 'other'"):
        client.infer("simple", SIMPLE, parameters={"signature": "other"})


def test_many_at_once_by_callback(client):
    answers = queue.Queue()
    for number in range(50):
        client.async_infer(
            "simple", SIMPLE, lambda result, error: answers.put((result, error)), request_id=str(number)
        )  # fmt: skip
    client.async_infer("nothing", SIMPLE, lambda result, error: answers.put((result, error)))
    done = [answers.get(timeout=30) for _ in range(51)]
    assert {result.get_response().id for result, error in done if error is None} == set(map(str, range(50)))
    (failed,) = (error for _, error in done if error is not None)
    assert failed.message() == "Request for unknown model: 'nothing' is not found"


def test_many_at_once_by_the_asynchronous_client(hosted):
    async def ask():
        async with asynchronous.InferenceServerClient(hosted.address) as client:
            return await asyncio.gather(*(client.infer("simple", SIMPLE, request_id=str(i)) for i in range(50)))

    for number, result in enumerate(asyncio.run(ask())):
        check(result)
        assert result.get_response().id == str(number)


def test_a_clients_own_timeout_ends_a_call(client, waiting):
    with pytest.raises(InferenceServerException) as caught:
        client.infer("gate", waiting, client_timeout=0.2)
    assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    check(client.infer("simple", SIMPLE, client_timeout=60))


def test_the_same_by_the_other_transport(start_server, models):
    server = start_server("--transport", "h2corn")
    server.load("simple", models / "simple")
    with InferenceServerClient(server.address) as client:
        check(client.infer("simple", SIMPLE, request_id="a"))
        with pytest.raises(InferenceServerException) as caught:
            client.infer("simple", SIMPLE[:1])
        assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
