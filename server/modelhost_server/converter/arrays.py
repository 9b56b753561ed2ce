"""Tensors as numpy arrays and back, in converter processes only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ..tensors import DTYPE_NAME, STRING, RawTensor

_NUMBER = {name: number for number, name in DTYPE_NAME.items()}


def numpy_dtype(dtype: int) -> np.dtype[Any]:
    """The dtype of numpy for one of TensorFlow's; strings are objects."""
    if dtype == STRING:
        return np.dtype(object)
    name = DTYPE_NAME[dtype]
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def to_array(dtype: int, shape: Sequence[int], data: Any) -> NDArray[Any]:
    """The array of a tensor, over its memory where that is possible."""
    if dtype == STRING:
        array = np.empty(len(data), object)
        array[:] = data
        return array.reshape(shape)
    return np.frombuffer(data, numpy_dtype(dtype)).reshape(shape)


def to_tensor(array: NDArray[Any]) -> RawTensor:
    """The tensor of an array."""
    if array.dtype == object:
        return RawTensor(STRING, array.shape, list(array.flat))
    return RawTensor(_NUMBER[array.dtype.name], array.shape, array.tobytes())
