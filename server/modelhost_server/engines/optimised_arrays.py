"""Tensors as numpy arrays and back, without copies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..tensors import DTYPE_NAME, LentMemory, RawTensor

Array = np.ndarray[Any, np.dtype[Any]]

# numpy's dtypes by DataType number, of those that numpy has.
NUMPY_DTYPE: Mapping[int, np.dtype[Any]] = {
    number: np.dtype(name) for number, name in DTYPE_NAME.items() if name not in ("string", "bfloat16")
}


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
