"""Makes one batch of the inputs of several predictions, and of its outputs what each of them is answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..tensors import ITEMSIZE, STRING, FileRange, Joined, LeasedBytes, RawTensor, element_count

# What a prediction gives: inputs by position.
Inputs = Sequence[tuple[int, RawTensor]]


def join(predictions: Sequence[Inputs], rows: int) -> list[tuple[int, RawTensor]]:
    """The inputs of a batch of so many rows: those of the predictions, one after the other; what is missing is filled
    up with the last row again. Where further dimensions differ, inputs are filled up with zeros (empty strings).
    """
    joined = []
    for place, (position, first) in enumerate(predictions[0]):
        tensors = [inputs[place][1] for inputs in predictions]
        rest = tuple(first.shape)[1:]
        if any(tuple(tensor.shape)[1:] != rest for tensor in tensors):
            rest = tuple(max(extents) for extents in zip(*(tuple(t.shape)[1:] for t in tensors), strict=True))
            tensors = [_widen(tensor, rest) for tensor in tensors]
        parts: list[Any] = [tensor.data for tensor in tensors]
        missing = rows - sum(tensor.shape[0] for tensor in tensors)
        if missing:
            parts.extend([_last_row(tensors[-1])] * missing)
        data: Any = [value for part in parts for value in part] if first.dtype == STRING else Joined(parts)
        joined.append((position, RawTensor(first.dtype, (rows, *rest), data)))
    return joined


def split(outputs: Sequence[RawTensor], counts: Sequence[int], rows: int) -> list[list[RawTensor]] | None:
    """The outputs of each prediction, by how many rows each has of the batch's; None when the outputs are not of so
    many rows.
    """
    if any(not output.shape or output.shape[0] != rows for output in outputs):
        return None
    answers: list[list[RawTensor]] = [[] for _ in counts]
    for dtype, shape, data in outputs:
        rest = tuple(shape[1:])
        stride = element_count(rest) * (1 if dtype == STRING else ITEMSIZE[dtype])
        start = 0
        for answer, count in zip(answers, counts, strict=True):
            end = start + count * stride
            part: Any = data.part(start, end) if isinstance(data, LeasedBytes) else data[start:end]  # type: ignore[index]
            answer.append(RawTensor(dtype, (count, *rest), part))
            start = end
    return answers


def _contents(tensor: RawTensor) -> Any:
    """Elements that can be sliced: bytes, or the list of strings."""
    data = tensor.data
    if isinstance(data, FileRange):
        content = bytearray(len(data))
        data.read_into(memoryview(content))
        return content
    return data


def _last_row(tensor: RawTensor) -> Any:
    content = _contents(tensor)
    return content[len(content) - len(content) // tensor.shape[0] :]


def _widen(tensor: RawTensor, rest: Sequence[int]) -> RawTensor:
    """The tensor with all dimensions but the first enlarged to these extents."""
    content = _contents(tensor)
    unit = 1 if tensor.dtype == STRING else ITEMSIZE[tensor.dtype]
    shape = (tensor.shape[0], *rest)
    widened: Any = [b""] * element_count(shape) if tensor.dtype == STRING else bytearray(element_count(shape) * unit)
    _copy(content, tuple(tensor.shape), widened, shape, unit)
    return RawTensor(tensor.dtype, shape, widened)


def _copy(source: Any, have: Sequence[int], target: Any, want: Sequence[int], unit: int) -> None:
    """Copies a tensor of extents `have` into the corner of one of extents `want`."""
    if 0 in have:
        return
    run = have[-1] * unit
    for number in range(element_count(have[:-1])):
        place, rest = 0, number
        for had, wants in zip(reversed(have[:-1]), _strides(want), strict=True):
            place += rest % had * wants
            rest //= had
        target[place * unit : place * unit + run] = source[number * run : (number + 1) * run]


def _strides(shape: Sequence[int]) -> list[int]:
    """Elements from one to the next, of each dimension but the last, innermost first."""
    strides, size = [], 1
    for extent in reversed(shape[1:]):
        size *= extent
        strides.append(size)
    return strides
