"""Inferences on the wire, beside what protobuf makes of the same bytes."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from modelhost_server.compat import open_inference_pb2 as pb
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.services.open_inference import wire
from modelhost_server.services.open_inference.datatypes import DATATYPE
from modelhost_server.services.open_inference.inference import InferenceResponse
from modelhost_server.tensors import STRING, Lease, LeasedBytes, RawTensor

NAMES = st.text(max_size=12)
SHAPES = st.lists(st.integers(0, 2**63 - 1), max_size=4)


@st.composite
def requests(draw: st.DrawFn) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name=draw(NAMES), model_version=draw(NAMES), id=draw(NAMES))
    for name in draw(st.lists(NAMES, max_size=3)):
        message.inputs.add(name=name, datatype=draw(NAMES), shape=draw(SHAPES))
        message.raw_input_contents.append(draw(st.binary(max_size=40)) * draw(st.integers(0, 1000)))
    for name in draw(st.lists(NAMES, max_size=2)):
        message.outputs.add(name=name).parameters[draw(NAMES)].int64_param = draw(st.integers(-9, 9))
        message.parameters[draw(NAMES)].string_param = draw(NAMES)
    # So that it is large.
    message.raw_input_contents.append(bytes(20_000))
    return message


@settings(max_examples=200, deadline=None)
@given(requests())
def test_large_requests_are_read_as_protobuf_reads_them(message):
    read = wire.read_request(message.SerializeToString())
    assert [bytes(content) for content in read.raw] == list(message.raw_input_contents)
    assert all(isinstance(content, memoryview) for content in read.raw), "not copied"
    message.ClearField("raw_input_contents")
    assert read.message == message


@settings(max_examples=200, deadline=None)
@given(requests(), st.data())
def test_what_is_damaged_is_read_as_protobuf_reads_it(message, data):
    damaged = bytearray(message.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.one_of(st.integers(0, len(damaged) - 1), st.integers(0, 60)))
        damaged[place] = data.draw(st.integers(0, 255))
    damaged = bytes(damaged[: data.draw(st.one_of(st.just(len(damaged)), st.integers(16 << 10, len(damaged))))])
    try:
        expected = pb.ModelInferRequest.FromString(damaged)
    except DecodeError:
        with pytest.raises(ModelhostError) as caught:
            wire.read_request(damaged)
        assert caught.value.reason is Reason.INVALID_REQUEST
        return
    read = wire.read_request(damaged)
    assert [bytes(content) for content in read.raw] == list(expected.raw_input_contents)
    for both in (expected, read.message):
        both.ClearField("raw_input_contents")
    assert read.message == expected


@st.composite
def responses(draw: st.DrawFn) -> InferenceResponse:
    outputs = {}
    for name, dtype in draw(st.lists(st.tuples(NAMES, st.sampled_from(sorted(DATATYPE))), max_size=3)):
        content = draw(st.binary(max_size=300))
        data: object = draw(st.lists(st.binary(max_size=200), max_size=4)) if dtype == STRING else content
        if dtype != STRING and draw(st.booleans()):
            data = LeasedBytes(memoryview(content), Lease(lambda: None))
        outputs[name] = RawTensor(dtype, draw(SHAPES), data)
    return InferenceResponse(draw(NAMES), draw(st.integers(1, 2**63 - 1)), draw(NAMES), outputs)


def message_of(response: InferenceResponse) -> pb.ModelInferResponse:
    """The response, made by protobuf."""
    message = pb.ModelInferResponse(model_name=response.model, model_version=str(response.version), id=response.id)
    for name, (dtype, shape, data) in response.outputs.items():
        message.outputs.add(name=name, datatype=DATATYPE[dtype], shape=shape)
        if dtype == STRING:
            content = b"".join(len(value).to_bytes(4, "little") + value for value in data)
        else:
            content = bytes(data.view if isinstance(data, LeasedBytes) else data)
        message.raw_output_contents.append(content)
    return message


@settings(max_examples=200, deadline=None)
@given(responses())
def test_responses_are_written_as_protobuf_writes_them(response):
    assert pb.ModelInferResponse.FromString(wire.write_response(response)) == message_of(response)


@settings(max_examples=100, deadline=None)
@given(responses())
def test_answers_of_streams_are_their_requests_last(response):
    expected = pb.ModelStreamInferResponse(infer_response=message_of(response))
    expected.infer_response.parameters["triton_final_response"].bool_param = True
    written = wire.write_answer(wire.StreamAnswer(response.id, response))
    assert pb.ModelStreamInferResponse.FromString(written) == expected


@given(NAMES, NAMES)
def test_errors_of_streams_have_the_requests_id(identifier, error):
    expected = pb.ModelStreamInferResponse(error_message=error, infer_response=pb.ModelInferResponse(id=identifier))
    written = wire.write_answer(wire.StreamAnswer(identifier, None, error))
    assert pb.ModelStreamInferResponse.FromString(written) == expected
