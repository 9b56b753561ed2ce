"""Streams of inferences by Triton's clients."""

from __future__ import annotations

import asyncio
import queue

import grpc
import numpy as np
import pytest
from tritonclient.grpc import InferInput
from tritonclient.grpc import aio as asynchronous
from tritonclient.grpc.service_pb2 import ModelInferRequest
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from tritonclient.utils import InferenceServerException


def floats(value):
    made = InferInput("INPUT0", list(value.shape), "FP32")
    made.set_data_from_numpy(value)
    return [made]


@pytest.fixture
def answers(client):
    """What a stream answers; the stream is open."""
    arrived = queue.Queue()
    client.start_stream(lambda result, error: arrived.put((result, error)))
    yield arrived
    client.stop_stream()


def test_answers_come_in_the_order_of_the_requests(client, answers):
    sizes = [1 << 20 if number % 7 == 0 else 4 for number in range(60)]
    for number, size in enumerate(sizes):
        client.async_stream_infer("identity_float32", floats(np.full(size, number, np.float32)), request_id=str(number))
    for number, size in enumerate(sizes):
        result, error = answers.get(timeout=30)
        assert error is None
        assert result.get_response().id == str(number)
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), np.full(size, number, np.float32))


def test_more_requests_than_are_taken_at_a_time(client, answers):
    for number in range(1000):
        client.async_stream_infer("identity_float32", floats(np.array([number], np.float32)), request_id=str(number))
    assert [answers.get(timeout=30)[0].get_response().id for _ in range(1000)] == list(map(str, range(1000)))


def test_a_request_that_fails_ends_no_stream(client, answers, waiting):
    value = floats(np.zeros(4, np.float32))
    client.async_stream_infer("identity_float32", value, request_id="a")
    client.async_stream_infer("nothing", value, request_id="b")
    client.async_stream_infer("identity_int32", value, request_id="c")
    client.async_stream_infer("gate", waiting, request_id="d", timeout=200_000)
    client.async_stream_infer("identity_float32", value, request_id="e")
    done = [answers.get(timeout=30) for _ in range(5)]
    assert [error and error.message() for _, error in done] == [
        None, "Request for unknown model: 'nothing' is not found",
        "[request id: c] inference input 'INPUT0' data-type is 'FP32', but model 'identity_int32' expects 'INT32'",
        "Request timeout expired", None,
    ]  # fmt: skip
    assert [result.get_response().id for result, error in done if error is None] == ["a", "e"]


def test_each_answer_is_its_requests_last(client, answers):
    client.async_stream_infer(
        "identity_float32", floats(np.zeros(4, np.float32)), enable_empty_final_response=True, request_id="a"
    )
    response = answers.get(timeout=30)[0].get_response()
    assert response.parameters["triton_final_response"].bool_param
    client.async_stream_infer("identity_float32", floats(np.zeros(4, np.float32)), request_id="b")
    assert answers.get(timeout=30)[0].get_response().id == "b"


def test_an_error_has_the_requests_id(hosted):
    bad = ModelInferRequest(model_name="nothing", id="x")
    with grpc.insecure_channel(hosted.address) as channel:
        (answer,) = GRPCInferenceServiceStub(channel).ModelStreamInfer(iter([bad]))
    assert answer.error_message == "Request for unknown model: 'nothing' is not found"
    assert answer.infer_response.id == "x"


def test_no_requests_and_no_message(hosted):
    with grpc.insecure_channel(hosted.address) as channel:
        assert list(GRPCInferenceServiceStub(channel).ModelStreamInfer(iter([]))) == []
        with pytest.raises(grpc.RpcError) as caught:
            list(channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")(iter([b"\xff"])))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_stream_that_is_cancelled_leaves_the_server_well(client):
    client.start_stream(lambda result, error: None)
    for _ in range(50):
        client.async_stream_infer("identity_float32", floats(np.zeros(1 << 16, np.float32)))
    client.stop_stream(cancel_requests=True)
    assert client.infer("identity_float32", floats(np.ones(2, np.float32))).as_numpy("OUTPUT0").tolist() == [1, 1]


def test_the_asynchronous_clients_stream(hosted):
    async def requests():
        for number in range(20):
            yield {
                "model_name": "identity_float32" if number != 10 else "nothing", "request_id": str(number),
                "inputs": asynchronous_floats(number),
            }  # fmt: skip

    async def ask():
        async with asynchronous.InferenceServerClient(hosted.address) as client:
            return [answer async for answer in client.stream_infer(requests())]

    done = asyncio.run(ask())
    assert [result.as_numpy("OUTPUT0")[0] for result, error in done if error is None] == [
        number for number in range(20) if number != 10
    ]
    assert isinstance(done[10][1], InferenceServerException)


def asynchronous_floats(number):
    return floats(np.array([number], np.float32))
