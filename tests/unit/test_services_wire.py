"""Predictions on the wire, beside what protobuf makes of the same bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelhost.v1 import prediction_service_pb2 as pb
from modelhost.v1 import tensor_pb2
from modelhost_server.errors import ModelhostError
from modelhost_server.services.native import wire
from modelhost_server.services.native.tensors import raw_inputs
from modelhost_server.tensors import STRING, Lease, LeasedBytes, RawTensor

NAMES = st.text(max_size=12)
SHAPES = st.lists(st.integers(0, 2**63 - 1), max_size=5)
NUMERIC = st.sampled_from([1, 2, 3, 4, 9, 10, 14, 22])


@st.composite
def messages(draw: st.DrawFn) -> pb.PredictRequest:
    message = pb.PredictRequest(
        scope=draw(NAMES), model=draw(NAMES), signature=draw(NAMES), output_filter=draw(st.lists(NAMES, max_size=3)),
        priority=draw(st.integers(-(2**31), 2**31 - 1)),
    )  # fmt: skip
    if draw(st.booleans()):
        message.version = draw(st.integers(-(2**63), 2**63 - 1))
    for name, dtype, shape in draw(st.lists(st.tuples(NAMES, NUMERIC, SHAPES), max_size=3)):
        tensor = message.inputs[name]
        tensor.dtype, tensor.raw = dtype, draw(st.binary(max_size=40)) * draw(st.integers(1, 2000))
        tensor.shape.extend(shape)
    # So that it is large.
    message.inputs["x"].CopyFrom(tensor_pb2.Tensor(dtype=1, shape=[-1, 5], raw=bytes(20_000)))
    return message


@settings(max_examples=300, deadline=None)
@given(messages())
def test_large_requests_are_read_as_protobuf_reads_them(message):
    data = message.SerializeToString()
    read = wire.read_request(data)
    expected = raw_inputs(message.inputs)
    assert {k: (t.dtype, list(t.shape), bytes(t.data)) for k, t in read.inputs.items()} == {
        k: (t.dtype, list(t.shape), bytes(t.data)) for k, t in expected.items()
    }
    message.ClearField("inputs")
    assert read.message == message
    assert isinstance(read.inputs["x"].data, memoryview), "not copied"


@settings(max_examples=300, deadline=None)
@given(messages(), st.data())
def test_what_is_damaged_is_read_as_protobuf_reads_it(message, data):
    damaged = bytearray(message.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        # Most of it are tensors' bytes, where damage changes nothing.
        place = data.draw(st.one_of(st.integers(0, len(damaged) - 1), st.integers(0, 60)))
        damaged[place] = data.draw(st.integers(0, 255))
    damaged = bytes(damaged[: data.draw(st.one_of(st.just(len(damaged)), st.integers(16 << 10, len(damaged))))])
    try:
        expected = pb.PredictRequest.FromString(damaged)
        inputs = raw_inputs(expected.inputs)
    except Exception:
        with pytest.raises(ModelhostError):
            wire.read_request(damaged)
        return
    read = wire.read_request(damaged)
    assert {k: (t.dtype, list(t.shape), _plain(t.data)) for k, t in read.inputs.items()} == {
        k: (t.dtype, list(t.shape), _plain(t.data)) for k, t in inputs.items()
    }
    expected.ClearField("inputs")
    read.message.ClearField("inputs")
    assert read.message == expected


def _plain(data):
    return data if isinstance(data, list) else bytes(data)


@st.composite
def outputs(draw: st.DrawFn) -> dict[str, RawTensor]:
    found = {}
    for name in draw(st.lists(NAMES, max_size=3, unique=True)):
        if draw(st.booleans()):
            found[name] = RawTensor(STRING, tuple(draw(SHAPES)), draw(st.lists(st.binary(max_size=200), max_size=4)))
        else:
            data = draw(st.binary(max_size=300))
            leased = LeasedBytes(memoryview(data), Lease(lambda: None))
            found[name] = RawTensor(draw(NUMERIC), tuple(draw(SHAPES)), draw(st.sampled_from([data, leased])))
    return found


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 2**63 - 1), outputs(), st.integers(0, 2**64 - 1))
def test_protobuf_reads_what_is_written(version, tensors, number):
    response = wire.Response(version, tensors, {})
    message = pb.PredictResponse.FromString(wire.write_response(response))
    _check(message, version, tensors)
    failed = b"\x0a\x02no"
    answers = [wire.answer(number, response), wire.answer(7, None, failed), wire.answer(8, response)]
    stream = pb.PredictStreamResponse.FromString(wire.write_answers(answers))
    assert [item.id for item in stream.responses] == [number, 7, 8]
    assert stream.responses[1].error.SerializeToString() == failed
    for item in (stream.responses[0], stream.responses[2]):
        _check(item.response, version, tensors)


def _check(message, version, tensors):
    assert message.version == version
    assert message.outputs.keys() == tensors.keys()
    for name, tensor in tensors.items():
        got = message.outputs[name]
        assert (got.dtype, tuple(got.shape)) == (tensor.dtype, tensor.shape)
        if tensor.dtype == STRING:
            assert list(got.strings.values) == tensor.data
        else:
            assert got.raw == bytes(getattr(tensor.data, "view", tensor.data))


def test_an_output_in_shared_memory_is_a_reference():
    reference = tensor_pb2.SharedMemoryReference(region="r", offset=4096, byte_size=8)
    tensors = {"y": RawTensor(1, (2,), b"12345678")}
    written = wire.write_response(wire.Response(3, tensors, {"y": reference.SerializeToString()}))
    message = pb.PredictResponse.FromString(written)
    assert message.outputs["y"].shared_memory == reference
    assert list(message.outputs["y"].shape) == [2]


def test_memory_is_leased_until_the_answer_is_written():
    memory, ended = bytearray(b"right"), []
    output = RawTensor(4, (5,), LeasedBytes(memoryview(memory), Lease(lambda: ended.append(True))))
    answer = wire.answer(1, wire.Response(1, {"y": output}, {}))
    del output
    assert not ended
    message = pb.PredictStreamResponse.FromString(wire.write_answers([answer]))
    assert message.responses[0].response.outputs["y"].raw == b"right"
    del answer
    assert ended
