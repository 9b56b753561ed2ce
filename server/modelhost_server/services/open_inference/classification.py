"""The classification extension: of an output, the largest values, each as "value:index", or "value:index:label"."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

from ...errors import ForeignError
from ...tensors import STRING, RawTensor, element_count, output_bytes
from .datatypes import datatype
from .errors import invalid

# As `memoryview.cast` names them; Triton classifies by no other ones.
_FORMATS = {1: "f", 2: "d", 3: "i", 4: "B", 5: "h", 6: "b", 9: "q", 17: "H", 22: "I", 23: "Q"}
_FLOATS = frozenset({1, 2})


def classify(output: RawTensor, count: int, is_batched: bool, labels: Sequence[bytes] = ()) -> RawTensor:
    """The `count` largest values of an output as strings; of each row, if the first dimension is the batch's. The first
    elements of a row may have labels.

    Raises:
        ForeignError: INVALID_ARGUMENT.
    """
    if output.dtype not in _FORMATS:
        raise _unsupported(output.dtype)
    view = output_bytes(output)
    values: list[float] = view.cast(_FORMATS[output.dtype]).tolist() if len(view) else []  # type: ignore[call-overload]
    shape = tuple(output.shape)
    rows = shape[0] if is_batched and shape else 1
    size = element_count(shape[1:] if is_batched else shape)
    strings: list[bytes] = []
    # There may be more rows than anybody can count where they are empty.
    for row in range(rows if values else 0):
        strings += _largest(values[row * size : (row + 1) * size], count, output.dtype in _FLOATS, labels)
    classes = min(count, size)
    return RawTensor(STRING, (rows, classes) if is_batched and shape else (classes,), strings)


def _largest(values: list[float], count: int, is_float: bool, labels: Sequence[bytes]) -> list[bytes]:
    # Of equal values, the first comes first. Those that are not a number come last.
    order = heapq.nlargest(count, range(len(values)), lambda i: values[i] if values[i] == values[i] else -math.inf)
    strings = [f"{values[i]:.6f}:{i}".encode() if is_float else f"{values[i]}:{i}".encode() for i in order]
    for place, i in enumerate(order):
        if i < len(labels):
            strings[place] += b":" + labels[i]
    return strings


def _unsupported(dtype: int) -> ForeignError:
    return invalid(f"class result not available for output due to unsupported type '{datatype(dtype)}'")
