"""Tensors between TensorProto and the server's own form."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

from ...compat import tensor_pb2 as pb
from ...errors import ModelhostError
from ...tensor_values import FIELDS, raw_tensor
from ...tensors import LeasedBytes, RawTensor

# What stands for a tensor that cannot be read, until it is known whether anybody asks for it: DT_INVALID.
UNREADABLE = RawTensor(0, (), b"")
# Few bytes can ask for many equal values; this many bytes of them are read.
_REPEATED = 64 << 20
# A byte of a message becomes at most this many of a tensor, where each value is spelled out.
_GROWTH = 8


def raw_inputs(tensors: Mapping[str, pb.TensorProto], message_size: int) -> dict[str, RawTensor]:
    """The inputs of a request of this many bytes."""
    largest = max(_REPEATED, _GROWTH * message_size)
    return {name: _raw_input(tensor, largest) for name, tensor in tensors.items()}


def _raw_input(tensor: pb.TensorProto, largest: int) -> RawTensor:
    try:
        return raw_tensor(tensor, largest)
    except ModelhostError:
        return UNREADABLE


def typed_values(tensor: RawTensor) -> bytes:
    """The field of a TensorProto that has a tensor's values, one by one, encoded."""
    field, code = FIELDS[tensor.dtype]
    values = array(code)
    values.frombytes(tensor.data.view if isinstance(tensor.data, LeasedBytes) else tensor.data)  # type: ignore[arg-type]
    return pb.TensorProto(**{field: values}).SerializeToString()  # type: ignore[arg-type]
