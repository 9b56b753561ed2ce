"""Tensors as numpy arrays and back, without copies, and which of them are no ordinary numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..tensors import DTYPE_NAME, LentMemory, RawTensor, SignatureSpec
from .base import NotForEngine

Array = np.ndarray[Any, np.dtype[Any]]

# numpy's dtypes by DataType number, of those that numpy has.
NUMPY_DTYPE: Mapping[int, np.dtype[Any]] = {
    number: np.dtype(name) for number, name in DTYPE_NAME.items() if name not in ("string", "bfloat16")
}


_FLOATS = frozenset({1, 2, 19})


def check_ordinary(spec: SignatureSpec, inputs: Sequence[tuple[int, RawTensor]]) -> None:
    """Refuses what no engine was judged on, because engines differ there even when they are right otherwise.

    Raises:
        NotForEngine: a tensor's shape is none that the signature promises to take, or it has no elements, or NaN or
            infinity among them (a maximum with NaN may be either).
    """
    if not spec.accepts_shapes(inputs):
        raise NotForEngine("an input is of a shape that the signature does not promise to take")
    for _, tensor in inputs:
        if 0 in tensor.shape:
            raise NotForEngine("an input has no elements")
        if tensor.dtype in _FLOATS:
            # One pass over the numbers; that the sum of very large ones is infinite costs only time.
            with np.errstate(all="ignore"):
                total = np.add.reduce(np.frombuffer(memory_of(tensor), NUMPY_DTYPE[tensor.dtype]), dtype=np.float32)
            if not np.isfinite(total):
                raise NotForEngine("an input has NaN or infinity")


def array_of(tensor: RawTensor, dtype: np.dtype[Any]) -> Array:
    """The tensor as an array over its memory, which it must not outlive."""
    return np.frombuffer(memory_of(tensor), dtype).reshape(tensor.shape)


def memory_of(tensor: RawTensor) -> bytes | memoryview:
    """The memory of a tensor that holds no strings."""
    data = tensor.data.view if isinstance(tensor.data, LentMemory) else tensor.data
    assert isinstance(data, bytes | memoryview)
    return data


def view_of(array: Array) -> memoryview:
    """The bytes of an array."""
    return array.reshape(-1).view(np.uint8).data


def first_line(error: Exception) -> str:
    """The first line of a runtime's message, as long as a message of ours may be."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:500]
