"""Tensors between TensorProto and the server's own form."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

from ...compat import tensor_pb2 as pb
from ...errors import ModelhostError
from ...tensor_values import FIELDS, STRING_SIZE, raw_tensor
from ...tensors import STRING, RawTensor, output_bytes

# What stands for a tensor that cannot be read, until it is known whether anybody asks for it: DT_INVALID.
UNREADABLE = RawTensor(0, (), b"")
# Few bytes can ask for many equal values; a request is given this many bytes of them.
_REPEATED = 64 << 20
# A byte of a message becomes at most this many of a tensor, where each value is spelled out.
_GROWTH = 8


def most_bytes(message_size: int) -> int:
    """What a request of this many bytes may become in memory."""
    return _REPEATED + _GROWTH * message_size


def raw_inputs(tensors: Mapping[str, pb.TensorProto], message_size: int) -> dict[str, RawTensor]:
    """The inputs of a request of this many bytes."""
    left = most_bytes(message_size)
    inputs = {}
    for name, tensor in tensors.items():
        inputs[name] = _raw_input(tensor, left)
        left -= _size(inputs[name])
    return inputs


def _raw_input(tensor: pb.TensorProto, largest: int) -> RawTensor:
    try:
        return raw_tensor(tensor, largest)
    except ModelhostError:
        return UNREADABLE


def _size(tensor: RawTensor) -> int:
    count = len(tensor.data)  # type: ignore[arg-type]
    # Equal strings, too, are written one by one when the model gets them.
    return STRING_SIZE * count + sum(map(len, tensor.data)) if tensor.dtype == STRING else count  # type: ignore


def typed_values(tensor: RawTensor) -> bytes:
    """The field of a TensorProto that has a tensor's values, one by one, encoded."""
    field, code = FIELDS[tensor.dtype]
    values = array(code)
    values.frombytes(output_bytes(tensor))
    return pb.TensorProto(**{field: values}).SerializeToString()  # type: ignore[arg-type]
