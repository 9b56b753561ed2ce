"""TensorFlow Serving's answers in JSON: predictions by rows or by columns, classes with scores, values."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from ..services.tensorflow_serving.checks import DTYPE_NAME
from ..services.tensorflow_serving.errors import invalid
from ..tensors import STRING, RawTensor
from .arrays import NUMPY, array_json, flat_array

# A string output whose name ends so holds bytes, not text.
_BYTES_SUFFIX = "_bytes"


def predictions(outputs: Mapping[str, RawTensor]) -> bytes:
    """The answer to rows: one value an example, or one object where there are several outputs.

    Raises:
        ForeignError: the outputs are not of one batch, or of a type that JSON has nothing for.
    """
    _check_batch(outputs)
    if len(outputs) == 1:
        return orjson.dumps({"predictions": _whole(*next(iter(outputs.items())))})
    columns = [_rows(name, tensor) for name, tensor in outputs.items()]
    rows = zip(*columns, strict=True)
    return orjson.dumps({"predictions": [dict(zip(outputs, row, strict=True)) for row in rows]})


def outputs_document(outputs: Mapping[str, RawTensor]) -> bytes:
    """The answer to columns: the one output, or an object where there are several.

    Raises:
        ForeignError: an output is of a type that JSON has nothing for.
    """
    columns = {name: _whole(name, tensor) for name, tensor in outputs.items()}
    return orjson.dumps({"outputs": next(iter(columns.values())) if len(columns) == 1 else columns})


def _check_batch(outputs: Mapping[str, RawTensor]) -> None:
    batch_size = 0
    for name, tensor in outputs.items():
        if not tensor.shape:
            raise invalid(f"Tensor name: {name} has no shape information ")
        size = tensor.shape[0]
        if size < 1:
            raise invalid(f"Tensor name: {name} has invalid batch size: {size}")
        if batch_size not in (0, size):
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {size} expecting: {batch_size}")
        batch_size = size


def _whole(name: str, tensor: RawTensor) -> Any:
    if tensor.dtype == STRING:
        return nested(strings(tensor.data, name.endswith(_BYTES_SUFFIX)), tensor.shape)  # type: ignore[arg-type]
    return orjson.Fragment(array_json(_array(tensor)))


def _rows(name: str, tensor: RawTensor) -> list[Any]:
    if tensor.dtype == STRING:
        rows: list[Any] = _whole(name, tensor)
        return rows
    return [orjson.Fragment(array_json(row)) for row in _array(tensor)]


def _array(tensor: RawTensor) -> np.ndarray[Any, np.dtype[Any]]:
    if tensor.dtype not in NUMPY:
        raise invalid(f"Failed to write JSON value for tensor type: {DTYPE_NAME[tensor.dtype]}")
    return _shaped(flat_array(tensor), tensor.shape)


def strings(values: Iterable[bytes], as_bytes: bool = False) -> list[Any]:
    """Byte strings as text; what is no text, or is not meant to be, as base64 objects."""
    if not as_bytes:
        try:
            return [value.decode() for value in values]
        except UnicodeDecodeError:
            return [_text_or_base64(value) for value in values]
    return [_base64(value) for value in values]


def _text_or_base64(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return _base64(value)


def _base64(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}


def nested(values: Sequence[Any], shape: Sequence[int]) -> Any:
    """Values as lists in lists of this shape."""
    array = np.empty(len(values), object)
    array[:] = values
    return _shaped(array, shape).tolist()


def _shaped(array: np.ndarray[Any, np.dtype[Any]], shape: Sequence[int]) -> np.ndarray[Any, np.dtype[Any]]:
    try:
        return array.reshape(shape)
    except ValueError:
        # NumPy has fewer dimensions than TensorFlow.
        raise invalid(f"Failed to write JSON value for shape: [{','.join(map(str, shape))}]") from None


def classifications(classes: Sequence[Iterable[tuple[str, float]]]) -> bytes:
    """What `:classify` answers: for each example, its classes with their scores.

    Raises:
        ForeignError: there are none.
    """
    if not classes:
        raise invalid("Cannot convert empty ClassificationResults to JSON")
    return orjson.dumps({"results": [[[label, _float32(score)] for label, score in each] for each in classes]})


def regressions(values: Sequence[float]) -> bytes:
    """What `:regress` answers: for each example, its value.

    Raises:
        ForeignError: there are none.
    """
    if not values:
        raise invalid("Cannot convert empty RegressionResults to JSON")
    return orjson.dumps({"results": [_float32(value) for value in values]})


def _float32(value: float) -> orjson.Fragment:
    return orjson.Fragment(array_json(np.array(value, np.float32)))
