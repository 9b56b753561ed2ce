"""numpy arrays to tensors as they travel, and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelhost.v1 import tensor_pb2

from ._errors import InternalError, InvalidInputError, UnsupportedError

STRING = "string"

# Names are numpy's, with "string" for byte strings; the keys of this table are all that travels.
_NUMBERS: dict[str, tensor_pb2.DataType.ValueType] = {
    name.removeprefix("DATA_TYPE_").lower(): number
    for name, number in tensor_pb2.DataType.items()
    if number != tensor_pb2.DATA_TYPE_UNSPECIFIED
}
_DTYPES: dict[str, np.dtype[Any]] = {STRING: np.dtype(object)} | {
    name: np.dtype(name).newbyteorder("<") for name in _NUMBERS if name not in (STRING, "bfloat16")
}
# Below this a copy is as cheap as a view.
_WORTH_A_VIEW = 4096
_NAMES = {number: name for name, number in _NUMBERS.items()}


def dtype_name(number: int) -> str:
    """What a dtype on the wire is called, e.g. "float32" or "string"; its number when this client does not know it."""
    return _NAMES.get(number, str(number))  # type: ignore[call-overload, no-any-return]


def array_dtype_name(dtype: np.dtype[Any]) -> str:
    """What an array's dtype is called on the wire: numpy's name, and "string" for text, bytes and objects."""
    return STRING if dtype.kind in "SUOT" else dtype.name


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The little-endian numpy dtype of a dtype's name; `object` for strings.

    Raises:
        UnsupportedError: this client does not know the dtype, or lacks the library for it.
    """
    known = _DTYPES.get(name)
    if known is not None:
        return known
    if name == "bfloat16":
        # Only those who meet a bfloat16 need the library.
        try:
            import ml_dtypes
        except ModuleNotFoundError:
            raise UnsupportedError("bfloat16 arrays need a library: pip install ml_dtypes") from None
        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    raise UnsupportedError(f"this client does not know the dtype {name}; a newer one may")


def dtype_number(name: str) -> tensor_pb2.DataType.ValueType:
    """The number of a dtype's name on the wire."""
    return _NUMBERS[name]


def wire_dtype(array: NDArray[Any], name: str) -> str:
    """The name of the dtype that the input `name` travels as.

    Raises:
        InvalidInputError: its dtype cannot travel.
    """
    dtype = array_dtype_name(array.dtype)
    if dtype not in _NUMBERS:
        raise InvalidInputError(
            f"input {name!r}: arrays of {array.dtype} cannot be sent; expected one of {', '.join(_NUMBERS)}",
            reason="INPUT_DTYPE_MISMATCH",
            details={"input": name},
        )
    return dtype


def raw_bytes(array: NDArray[Any]) -> bytes | memoryview:
    """The elements of an array of numbers as they travel; a view of the array itself if that is large."""
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    if array.nbytes < _WORTH_A_VIEW or not array.flags.c_contiguous:
        return array.tobytes()
    return array.reshape(-1).view(np.uint8).data


def to_message(array: NDArray[Any], name: str) -> tensor_pb2.Tensor:
    """`array` as it travels. Text becomes UTF-8.

    Raises:
        InvalidInputError: the input `name` has a dtype that cannot travel.
    """
    dtype = wire_dtype(array, name)
    if dtype == STRING:
        values = tensor_pb2.StringValues(values=[_to_bytes(element, name) for element in array.flat])
        return tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_STRING, shape=array.shape, strings=values)
    return tensor_pb2.Tensor(dtype=_NUMBERS[dtype], shape=array.shape, raw=bytes(raw_bytes(array)))


def from_message(tensor: tensor_pb2.Tensor) -> NDArray[Any]:
    """A tensor as an array: a read-only view of the received bytes, or an object array of `bytes` for strings.

    Raises:
        UnsupportedError: this client does not know the dtype, or lacks the library for it.
        InternalError: the tensor contradicts itself.
    """
    dtype, shape = numpy_dtype(dtype_name(tensor.dtype)), tuple(tensor.shape)
    try:
        if tensor.dtype == tensor_pb2.DATA_TYPE_STRING:
            return np.array(tensor.strings.values, dtype=object).reshape(shape)
        raw = tensor.raw
        if math.prod(shape) * dtype.itemsize != len(raw):
            raise ValueError(f"{len(raw)} bytes for the shape {shape} of {dtype}")
        return np.ndarray(shape, dtype, raw)
    except ValueError as error:
        raise InternalError(f"the server sent a malformed tensor: {error}", reason="INTERNAL") from error


def _to_bytes(element: object, name: str) -> bytes:
    try:
        if isinstance(element, str):
            return element.encode()
        if isinstance(element, bytes):
            return bytes(element)
        got = type(element).__name__
    except UnicodeEncodeError as error:
        got = f"a str that is not Unicode text ({error.reason})"
    raise InvalidInputError(
        f"input {name!r}: expected str or bytes as elements; got {got}",
        reason="INPUT_DTYPE_MISMATCH",
        details={"input": name},
    )
