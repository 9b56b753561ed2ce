"""Predict's messages on the wire, read and written without a copy of a tensor that is not needed; see `native.wire`.

Packed floats, complex numbers and bools are on the wire as they are in memory, and so is `tensor_content`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from ...compat import serving_predict_pb2 as pb
from ...compat import tensor_pb2
from ...tensors import ITEMSIZE, STRING, RawTensor, element_count
from ..failures import no_message
from ..wire_format import (
    LENGTH,
    Parts,
    UnusualError,
    check_parts,
    join_parts,
    read_map,
    read_singles,
    read_varint,
    write_entry_head,
    write_varint,
)
from .errors import translate
from .names import Target, model_spec, target_of
from .tensors import raw_inputs, typed_values

# Callers ask for few things, again and again: what is no longer than this is read once, and kept.
_KEPT_BYTES = 512
# Fields of PredictRequest, PredictResponse and TensorProto.
_INPUTS, _OUTPUTS = 2, 1
_DTYPE, _SHAPE, _VERSION_NUMBER, _CONTENT, _STRINGS = 1, 2, 3, 4, 8
# The field with a dtype's values, where these are encoded as they are in memory.
_PLAIN = {1: 5, 2: 6, 8: 9, 10: 11, 18: 12}


class Request(NamedTuple):
    """A PredictRequest. `target` is None when it has no ModelSpec."""

    target: Target | None
    inputs: Mapping[str, RawTensor]
    output_filter: Sequence[str]


def read_request(data: bytes) -> Request:
    """A PredictRequest. Its tensors look into `data` where that is how they are in memory.

    Raises:
        ForeignError: it is none.
    """
    try:
        try:
            rest, inputs = read_map(data, _INPUTS, _tensor)
            target, output_filter = (_read_named_once if len(rest) <= _KEPT_BYTES else _read_named)(rest)
        except (UnusualError, IndexError, UnicodeDecodeError):
            check_parts(data, pb.PredictRequest.DESCRIPTOR)
            message = pb.PredictRequest.FromString(data)
            target, output_filter = _named(message)
            inputs = raw_inputs(message.inputs, len(data))
    except DecodeError:
        raise translate(no_message("a tensorflow.serving.PredictRequest", data)) from None
    return Request(target, inputs, output_filter)


def _named(message: pb.PredictRequest) -> tuple[Target | None, Sequence[str]]:
    """What a request names."""
    return target_of(message.model_spec) if message.HasField("model_spec") else None, tuple(message.output_filter)


def _read_named(data: bytes) -> tuple[Target | None, Sequence[str]]:
    return _named(pb.PredictRequest.FromString(data))


_read_named_once = lru_cache(4096)(_read_named)


def _tensor(data: bytes, begin: int, end: int) -> RawTensor:
    fields = read_singles(data, begin, end, (_DTYPE, _VERSION_NUMBER))
    if _DTYPE not in fields:
        raise UnusualError
    dtype, _ = read_varint(data, fields.pop(_DTYPE)[0])
    fields.pop(_VERSION_NUMBER, None)
    shape = data[slice(*fields.pop(_SHAPE, (0, 0)))]
    if len(shape) > _KEPT_BYTES:
        raise UnusualError
    extents = _extents(shape)
    # What is left is the content, in the one field or the other.
    if dtype == STRING or fields.keys() not in ({_CONTENT}, {_PLAIN.get(dtype, _CONTENT)}):
        raise UnusualError
    content = memoryview(data)[slice(*fields.popitem()[1])]
    # The last one of fewer values repeats.
    if dtype not in ITEMSIZE or len(content) != element_count(extents) * ITEMSIZE[dtype]:
        raise UnusualError
    return RawTensor(dtype, extents, content)


@lru_cache(4096)
def _extents(encoded: bytes) -> tuple[int, ...]:
    shape = tensor_pb2.TensorShapeProto.FromString(encoded)
    extents = tuple(dim.size for dim in shape.dim)
    if shape.unknown_rank or any(extent < 0 for extent in extents):
        raise UnusualError
    return extents


class Response(NamedTuple):
    """A PredictResponse."""

    target: Target
    version: int
    outputs: Mapping[str, RawTensor]


def write_response(response: Response) -> bytes:
    """A PredictResponse."""
    parts: Parts = []
    for name, tensor in response.outputs.items():
        content = _content(tensor)
        parts.append(_head(name, tensor.dtype, tuple(tensor.shape), sum(map(len, content))))
        parts += content
    parts.append(_model_spec(response.target.name, response.version, response.target.signature_name))
    return join_parts(parts)


def _content(tensor: RawTensor) -> Sequence[Any]:
    """The content of a tensor in the field of its dtype, as TensorFlow Serving fills it."""
    data: Any = tensor.data
    if not len(data):
        return ()
    if tensor.dtype == STRING:
        tag = _tag(_STRINGS)
        return [part for value in data for part in (tag, write_varint(len(value)), value)]
    number = _PLAIN.get(tensor.dtype)
    return (typed_values(tensor),) if number is None else (_tag(number), write_varint(len(data)), data)


@lru_cache(4096)
def _head(name: str, dtype: int, shape: tuple[int, ...], content_size: int) -> bytes:
    """All that precedes the content of an output: the map entry's tag, its key, and the tensor's dtype and shape."""
    dims = [tensor_pb2.TensorShapeProto.Dim(size=extent) for extent in shape]
    tensor = tensor_pb2.TensorProto(
        dtype=dtype, tensor_shape=tensor_pb2.TensorShapeProto(dim=dims)  # type: ignore[arg-type]
    )  # fmt: skip
    return write_entry_head(_OUTPUTS, name, tensor.SerializeToString(), content_size)


@lru_cache(4096)
def _model_spec(name: str, version: int, signature: str) -> bytes:
    return pb.PredictResponse(model_spec=model_spec(name, version, signature)).SerializeToString()


def _tag(number: int) -> bytes:
    return write_varint(number << 3 | LENGTH)
