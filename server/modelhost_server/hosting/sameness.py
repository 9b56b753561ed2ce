"""Whether two runs of a model gave the same answer."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

from ..tensors import STRING, RawTensor

# Of the elements of an output that differ in their bytes, so many are looked at, evenly spread.
_LOOKED_AT = 4096
_BFLOAT16 = 14
_FLOATS = {1: "f", 2: "d", 8: "f", 18: "d", 19: "e"}


def same(answer: Sequence[RawTensor], expected: Sequence[RawTensor], tolerance: float) -> bool:
    """Whether the outputs are equal: those of whole numbers and strings exactly, others within `tolerance`, relative to
    the largest magnitude of the output.
    """
    return len(answer) == len(expected) and all(map(_same, answer, expected, [tolerance] * len(answer)))


def _same(one: RawTensor, other: RawTensor, tolerance: float) -> bool:
    if one.dtype != other.dtype or tuple(one.shape) != tuple(other.shape):
        return False
    if one.dtype == STRING:
        return list(one.data) == list(other.data)  # type: ignore[arg-type]
    left, right = content(one), content(other)
    if left == right:
        return True
    if one.dtype not in _FLOATS and one.dtype != _BFLOAT16:
        return False
    lefts, rights = _numbers(one.dtype, left), _numbers(one.dtype, right)
    scale = max((abs(value) for value in rights if math.isfinite(value)), default=0.0)
    return all(_near(x, y, tolerance * scale) for x, y in zip(lefts, rights, strict=True))


def content(tensor: RawTensor) -> memoryview:
    """The bytes of a tensor that is not of strings, wherever they are."""
    data: Any = tensor.data
    return data.view if hasattr(data, "view") else memoryview(data)


def _near(x: float, y: float, distance: float) -> bool:
    return x == y or abs(x - y) <= distance or (math.isnan(x) and math.isnan(y))


def _numbers(dtype: int, data: memoryview) -> list[float]:
    if dtype == _BFLOAT16:
        # The upper half of a float32.
        return [struct.unpack("<f", b"\0\0" + data[i : i + 2])[0] for i in _places(len(data) // 2, 2)]
    letter = _FLOATS[dtype]
    size = struct.calcsize(letter)
    return [struct.unpack_from(f"<{letter}", data, i)[0] for i in _places(len(data) // size, size)]


def _places(count: int, size: int) -> range:
    # An odd step, or it would always meet the same part of complex numbers, or the same columns.
    step = count // _LOOKED_AT | 1
    return range(0, count * size, step * size)
