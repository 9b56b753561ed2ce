"""Makes up inputs of a prediction from those of another one, of values that a model is likely to take."""

from __future__ import annotations

import struct
from typing import Any

from ..tensors import ITEMSIZE, STRING, RawTensor
from .joining import Inputs
from .sameness import content

_FLOATS = {1: "f", 2: "d"}
# Elements that are changed; the event loop waits for it.
_CHANGED = 16384


def varied(inputs: Inputs) -> list[tuple[int, RawTensor]]:
    """Inputs of the same extents of which each differs, where it can: in the order of its elements, and in what they
    add up to and are at most. Only float32 and float64 get values that were not there, or not nearly.
    """
    return [(position, _varied(tensor)) for position, tensor in inputs]


def differ(one: Inputs, other: Inputs) -> bool:
    """Whether two predictions' inputs are of other values."""
    return any(_data(a) != _data(b) for (_, a), (_, b) in zip(one, other, strict=True))


def _varied(tensor: RawTensor) -> RawTensor:
    data, size = _data(tensor), ITEMSIZE[tensor.dtype]
    if tensor.dtype == STRING:
        return tensor._replace(data=_changed(data[:_CHANGED], STRING) + data[_CHANGED:])
    end = _CHANGED * size
    if tensor.dtype in _FLOATS:
        head = _changed_floats(data[:end], f"<{min(len(data), end) // size}{_FLOATS[tensor.dtype]}")
    else:
        head = b"".join(_changed([data[i : i + size] for i in range(0, min(len(data), end), size)], tensor.dtype))
    return tensor._replace(data=head + data[end:])


def _data(tensor: RawTensor) -> Any:
    return list(tensor.data) if tensor.dtype == STRING else bytes(content(tensor))  # type: ignore[arg-type]


def _changed_floats(data: bytes, layout: str) -> bytes:
    values = struct.unpack(layout, data)
    return struct.pack(layout, *(0.75 * value + 0.125 for value in values[1:] + values[:1]))


def _changed(elements: list[bytes], dtype: int) -> list[bytes]:
    if not elements:
        return elements
    low, high = min(elements, key=_rank), max(elements, key=_rank)
    instead = low if low != high else _other(high, dtype)
    return [instead if element == high else element for element in elements[1:] + elements[:1]]


def _rank(element: bytes) -> tuple[int, bytes]:
    """Puts long strings before short ones, and numbers, of which the last byte counts most, into their order."""
    return len(element), element[::-1]


def _other(element: bytes, dtype: int) -> bytes:
    """A value near to the only one there is: half of a string, a number with another last bit."""
    return element[: len(element) // 2] if dtype == STRING else bytes([element[0] ^ 1]) + element[1:]
