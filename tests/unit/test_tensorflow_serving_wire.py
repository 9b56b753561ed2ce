"""TensorFlow Serving's Predict on the wire, beside what protobuf makes of the same bytes."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelhost_server.compat import serving_predict_pb2 as pb
from modelhost_server.compat import tensor_pb2
from modelhost_server.errors import ForeignError
from modelhost_server.services.tensorflow_serving import wire
from modelhost_server.services.tensorflow_serving.names import Target, target_of
from modelhost_server.services.tensorflow_serving.tensors import UNREADABLE, raw_inputs
from modelhost_server.tensor_values import FIELDS, raw_tensor
from modelhost_server.tensors import ITEMSIZE, STRING, Lease, LeasedBytes, RawTensor, element_count

NAMES = st.text(max_size=12)
PLAIN = {1: "float_val", 2: "double_val", 8: "scomplex_val", 10: "bool_val", 18: "dcomplex_val"}


def dims(*extents: int) -> tensor_pb2.TensorShapeProto:
    return tensor_pb2.TensorShapeProto(dim=[tensor_pb2.TensorShapeProto.Dim(size=extent) for extent in extents])


@st.composite
def tensors(draw: st.DrawFn) -> tensor_pb2.TensorProto:
    dtype = draw(st.sampled_from(sorted(ITEMSIZE)))
    shape = draw(st.lists(st.integers(0, 9), max_size=3))
    message = tensor_pb2.TensorProto(dtype=dtype, tensor_shape=dims(*shape), version_number=draw(st.integers(0, 1)))
    count = element_count(shape)
    if dtype == STRING:
        message.string_val.extend(draw(st.lists(st.binary(max_size=5), max_size=count)))
    elif draw(st.booleans()):
        message.tensor_content = bytes(draw(st.sampled_from([0, 1])) for _ in range(count * ITEMSIZE[dtype]))
    else:
        field, _ = FIELDS[dtype]
        parts = 2 if dtype in (8, 18) else 1
        getattr(message, field).extend([1] * (draw(st.integers(0, count)) * parts))
    return message


@st.composite
def messages(draw: st.DrawFn) -> pb.PredictRequest:
    message = pb.PredictRequest(output_filter=draw(st.lists(NAMES, max_size=3)))
    if draw(st.booleans()):
        message.model_spec.name = draw(NAMES)
    if draw(st.booleans()):
        message.model_spec.version.value = draw(st.integers(-(2**63), 2**63 - 1))
    for name, tensor in draw(st.dictionaries(NAMES, tensors(), max_size=3)).items():
        message.inputs[name].CopyFrom(tensor)
    # So that it is large.
    if draw(st.booleans()):
        message.inputs["x"].CopyFrom(
            tensor_pb2.TensorProto(dtype=1, tensor_shape=dims(50, 100), tensor_content=bytes(20_000))
        )
    return message


def plain(inputs: object) -> object:
    assert isinstance(inputs, dict)
    return {k: (t.dtype, list(t.shape), t.data if t.dtype == STRING else bytes(t.data)) for k, t in inputs.items()}


@settings(max_examples=300, deadline=None)
@given(messages())
def test_requests_are_read_as_protobuf_reads_them(message):
    data = message.SerializeToString()
    read = wire.read_request(data)
    assert plain(read.inputs) == plain(raw_inputs(message.inputs, len(data)))
    assert read.target == (target_of(message.model_spec) if message.HasField("model_spec") else None)
    assert list(read.output_filter) == list(message.output_filter)


@settings(max_examples=300, deadline=None)
@given(messages(), st.data())
def test_what_is_damaged_is_read_as_protobuf_reads_it(message, data):
    damaged = bytearray(message.SerializeToString() or b"\0")
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.one_of(st.integers(0, len(damaged) - 1), st.integers(0, min(60, len(damaged) - 1))))
        damaged[place] = data.draw(st.integers(0, 255))
    damaged = bytes(damaged[: data.draw(st.one_of(st.just(len(damaged)), st.integers(0, len(damaged))))])
    try:
        expected = pb.PredictRequest.FromString(damaged)
    except Exception:
        with pytest.raises(ForeignError, match=r"tensorflow\.serving\.PredictRequest"):
            wire.read_request(damaged)
        return
    read = wire.read_request(damaged)
    assert plain(read.inputs) == plain(raw_inputs(expected.inputs, len(damaged)))


@pytest.mark.parametrize("dtype", sorted({1, 2, 3, 8, 10, 18} & PLAIN.keys()))
def test_large_typed_values_are_not_copied(dtype):
    message = pb.PredictRequest()
    tensor = message.inputs["x"]
    tensor.dtype, count = dtype, 20_000
    tensor.tensor_shape.CopyFrom(dims(count))
    getattr(tensor, PLAIN[dtype]).extend([1] * (count * (2 if dtype in (8, 18) else 1)))
    (read,) = wire.read_request(message.SerializeToString()).inputs.values()
    assert isinstance(read.data, memoryview)
    assert bytes(read.data) == raw_tensor(tensor).data


def test_shapes_of_any_length_are_read():
    long_names = tensor_pb2.TensorShapeProto(dim=[tensor_pb2.TensorShapeProto.Dim(size=2, name="n" * 1000)])
    message = pb.PredictRequest(
        inputs={"x": tensor_pb2.TensorProto(dtype=1, tensor_shape=long_names, float_val=[1, 2])}
    )  # fmt: skip
    (read,) = wire.read_request(message.SerializeToString()).inputs.values()
    assert (list(read.shape), bytes(read.data)) == ([2], array("f", [1, 2]).tobytes())


def test_more_dimensions_than_tensorflow_has_are_not_multiplied():
    tensor = tensor_pb2.TensorProto(dtype=1, tensor_shape=dims(*[2**62] * 1_000_000))
    assert raw_inputs({"x": tensor}, 12 << 20)["x"] is UNREADABLE


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (1, {"float_val": [1, 2, 3]}, array("f", [1, 2])),
        (4, {"int_val": [-1, 300]}, array("B", [255, 44])),
        (6, {"int_val": [300, -1]}, array("b", [44, -1])),
        (5, {"int_val": [1 << 16, -2]}, array("h", [0, -2])),
        (19, {"half_val": [0x13C00, -1]}, array("H", [0x3C00, 0xFFFF])),
        (8, {"scomplex_val": [1, 2, 3]}, array("f", [1, 2, 1, 2])),
    ],
)
def test_values_that_do_not_fit_are_read_as_tensorflow_reads_them(dtype, values, expected):
    tensor = tensor_pb2.TensorProto(dtype=dtype, tensor_shape=dims(2), **values)
    assert raw_tensor(tensor).data == expected.tobytes()
    strings = tensor_pb2.TensorProto(dtype=STRING, tensor_shape=dims(1), string_val=[b"a", b"b"])
    assert raw_tensor(strings).data == [b"a"]


def test_few_bytes_cannot_ask_for_much_memory():
    for dtype in (1, STRING):
        tensor = tensor_pb2.TensorProto(dtype=dtype, tensor_shape=dims(1 << 28))
        assert raw_inputs({"x": tensor}, 100)["x"] is UNREADABLE
    # Neither by many tensors, nor by one long string.
    ten_mebibytes = tensor_pb2.TensorProto(dtype=1, tensor_shape=dims(10 << 20 >> 2))
    read = raw_inputs({str(i): ten_mebibytes for i in range(100)}, 1000)
    assert sum(tensor is not UNREADABLE for tensor in read.values()) == 6
    string = tensor_pb2.TensorProto(dtype=STRING, tensor_shape=dims(1 << 20), string_val=[bytes(1000)])
    assert raw_inputs({"x": string}, 1000)["x"] is UNREADABLE
    # But a large message may.
    tensor = tensor_pb2.TensorProto(dtype=4, tensor_shape=dims(70 << 20), int_val=[3])
    assert len(raw_inputs({"x": tensor}, 80 << 20)["x"].data) == 70 << 20


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, tensors(), max_size=4), NAMES, st.integers(1, 2**63 - 1), NAMES)
def test_responses_are_what_protobuf_writes(messages, name, version, signature):
    outputs = {key: raw_tensor(tensor) for key, tensor in messages.items()}
    written = wire.write_response(wire.Response(Target(name, signature=signature), version, outputs))
    read = pb.PredictResponse.FromString(written)
    assert read.model_spec.name == name
    assert read.model_spec.version.value == version
    assert read.model_spec.signature_name == (signature or "serving_default")
    assert {key: raw_tensor(value) for key, value in read.outputs.items()} == outputs
    assert not any(value.tensor_content for value in read.outputs.values())
    # In the order and the form in which protobuf writes it: nothing is unknown, nothing is twice.
    assert pb.PredictResponse.FromString(read.SerializeToString()) == read
    assert len(read.SerializeToString()) == len(written)


def test_leased_outputs_are_written():
    values = array("f", [1.5, -2.5])
    ended = []
    leased = LeasedBytes(memoryview(values).cast("B"), Lease(lambda: ended.append(True)))
    written = wire.write_response(wire.Response(Target("m"), 1, {"y": RawTensor(1, (2,), leased)}))
    assert pb.PredictResponse.FromString(written).outputs["y"].float_val == [1.5, -2.5]
    del leased
    assert ended
