"""KServe's InferenceGRPCClient, and the other methods of its own messages."""

from __future__ import annotations

import asyncio

import grpc
import numpy as np
import pytest
from kserve import InferenceGRPCClient, InferInput, InferRequest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from kserve.protocol.infer_type import RequestedOutput

A = np.arange(16, dtype=np.int32).reshape(1, 16)
B = np.full((1, 16), 3, np.int32)
# By KServe, BYTES are text.
VALUES = {
    "bool": np.array([[True, False, True]]),
    "uint8": np.array([[0, 7, 255]], np.uint8), "int8": np.array([[-128, 0, 127]], np.int8),
    "uint16": np.array([[0, 7, 65535]], np.uint16), "int16": np.array([[-32768, 0, 32767]], np.int16),
    "uint32": np.array([[0, 7, 2**32 - 1]], np.uint32), "int32": np.array([[-(2**31), 0, 2**31 - 1]], np.int32),
    "uint64": np.array([[0, 7, 2**64 - 1]], np.uint64), "int64": np.array([[-(2**63), 0, 2**63 - 1]], np.int64),
    "float16": np.array([[-3, 0, 7]], np.float16), "float32": np.array([[-3, 0, 7]], np.float32),
    "float64": np.array([[-3, 0, 7]], np.float64), "string": np.array([[b"", b"abc", "ä".encode()]], np.object_),
}  # fmt: skip
DATATYPES = {"float16": "FP16", "float32": "FP32", "float64": "FP64", "string": "BYTES"}


@pytest.fixture(scope="module")
def hosted(server, built):
    """A server with the models."""
    models = built("build_foreign")
    names = [path.name for path in models.iterdir() if path.name == "simple" or path.name.startswith("identity_")]
    server.modelhost("load-many", *(f"{name}={models / name}" for name in names))
    return server


@pytest.fixture
def stub(hosted):
    """KServe's messages without its client, which has not all methods."""
    with grpc.insecure_channel(hosted.address) as channel:
        yield GRPCInferenceServiceStub(channel)


def ask(hosted, method, *arguments, **options):
    """What a method of the client answers."""

    async def answer():
        async with InferenceGRPCClient(hosted.address) as client:
            return await getattr(client, method)(*arguments, **options)

    return asyncio.run(answer())


def tensor(name, value, is_raw, datatype=None):
    datatype = datatype or DATATYPES.get(value.dtype.name, value.dtype.name.upper())
    made = InferInput(name, list(value.shape), "BYTES" if datatype == "OBJECT" else datatype)
    made.set_data_from_numpy(value, binary_data=is_raw)
    return made


def test_the_server_is_live_and_ready(hosted):
    assert ask(hosted, "is_server_live")
    assert ask(hosted, "is_server_ready")


@pytest.mark.parametrize(("model", "ready"), [("simple", True), ("default/simple", True), ("nothing", False)])
def test_models_that_serve_are_ready(hosted, model, ready):
    assert ask(hosted, "is_model_ready", model) is ready


@pytest.mark.parametrize("is_raw", [True, False])
def test_an_inference(hosted, is_raw):
    inputs = [tensor("INPUT0", A, is_raw), tensor("INPUT1", B, is_raw)]
    answer = ask(hosted, "infer", InferRequest("simple", inputs, request_id="my id"), headers=[("a", "b")])
    assert (answer.model_name, answer.model_version, answer.id) == ("simple", "1", "my id")
    assert [output.name for output in answer.outputs] == ["OUTPUT0", "OUTPUT1"]
    np.testing.assert_array_equal(answer.outputs[0].as_numpy(), A + B)
    np.testing.assert_array_equal(answer.outputs[1].as_numpy(), A - B)


# There are no typed contents of FP16.
@pytest.mark.parametrize(
    ("dtype", "is_raw"), [(d, True) for d in VALUES] + [(d, False) for d in VALUES if d != "float16"]
)
def test_every_datatype_there_and_back(hosted, dtype, is_raw):
    request = InferRequest(f"identity_{dtype}", [tensor("INPUT0", VALUES[dtype], is_raw)])
    (output,) = ask(hosted, "infer", request).outputs
    assert output.datatype == DATATYPES.get(dtype, dtype.upper())
    assert output.shape == [1, 3]
    np.testing.assert_array_equal(output.as_numpy(), VALUES[dtype])


def test_only_the_outputs_asked_for(hosted):
    inputs = [tensor("INPUT0", A, True), tensor("INPUT1", B, True)]
    request = InferRequest("simple", inputs, request_outputs=[RequestedOutput("OUTPUT1")])
    assert [output.name for output in ask(hosted, "infer", request).outputs] == ["OUTPUT1"]


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (InferRequest("nothing", [tensor("INPUT0", A, True)]), grpc.StatusCode.NOT_FOUND,
         "Request for unknown model: 'nothing' is not found"),
        (InferRequest("simple", [tensor("INPUT0", A, True), tensor("INPUT1", B, False)]),
         grpc.StatusCode.INVALID_ARGUMENT,
         "contents field must not be specified when using raw_input_contents for 'INPUT1' for model 'simple'"),
        (InferRequest("simple", [tensor("INPUT0", A, True), tensor("INPUT1", B.astype(np.float32), True)], "x"),
         grpc.StatusCode.INVALID_ARGUMENT,
         "[request id: x] inference input 'INPUT1' data-type is 'FP32', but model 'simple' expects 'INT32'"),
    ],
)  # fmt: skip
def test_what_is_not_right_is_refused(hosted, request_, code, message):
    with pytest.raises(grpc.RpcError) as caught:
        ask(hosted, "infer", request_)
    assert (caught.value.code(), caught.value.details()) == (code, message)


def test_metadata(stub):
    server = stub.ServerMetadata(pb.ServerMetadataRequest())
    assert server.name == "modelhost"
    model = stub.ModelMetadata(pb.ModelMetadataRequest(name="simple"))
    assert [tensor.name for tensor in model.inputs] == ["INPUT0", "INPUT1"]
    assert list(model.outputs[0].shape) == [-1, 16]
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelMetadata(pb.ModelMetadataRequest(name="nothing"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
