"""Nested lists of TensorFlow Serving's JSON as tensors: numbers, text, and bytes in base64."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ForeignError
from ..services.tensorflow_serving.errors import invalid
from ..tensors import MAX_RANK, STRING, RawTensor
from .arrays import NUMPY, Unfit, flattened, number_bytes

_BASE64 = "b64"


def dense(value: Any, dtype: int) -> RawTensor:
    """The tensor of nested lists.

    Raises:
        Unfit: they are not all right.
    """
    shape, values = flattened(value)
    if len(shape) > MAX_RANK:
        raise Unfit
    if dtype == STRING:
        return RawTensor(STRING, shape, [_string(item) for item in values])
    if dtype not in NUMPY:
        if values:
            raise Unfit
        return RawTensor(dtype, shape, b"")
    return RawTensor(dtype, shape, number_bytes(values, dtype))


def have_shape(values: Sequence[Any], dtype: int, shape: Sequence[int]) -> bool:
    """Whether each is a tensor of this shape."""
    try:
        return dense(values, dtype).shape == [len(values), *shape]
    except (Unfit, ForeignError):
        return False


def is_base64(value: Any) -> bool:
    """Whether a value is an object that stands for bytes: {"b64": …}."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get(_BASE64), str)


def _string(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if not is_base64(value):
        raise Unfit
    return from_base64(value)


def from_base64(value: Mapping[str, str]) -> bytes:
    """The bytes of a base64 object, {"b64": …}, in either alphabet, with padding or without.

    Raises:
        ForeignError: they are not encoded so.
    """
    text = value[_BASE64].rstrip("=")
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid("Unable to base64 decode") from None
