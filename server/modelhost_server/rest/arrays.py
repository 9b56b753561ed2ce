"""Numbers between nested JSON lists and tensors. Lists take a few passes of compiled code; what is wrong with them is
looked for value by value, by whoever asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import ml_dtypes
import numpy as np
import orjson

from ..tensors import RawTensor, output_bytes

_BOOL = 10

# TensorFlow's numbers of data types whose values JSON can hold.
NUMPY: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"), 2: np.dtype("<f8"), 3: np.dtype("<i4"), 4: np.dtype("u1"), 5: np.dtype("<i2"),
    6: np.dtype("i1"), 9: np.dtype("<i8"), _BOOL: np.dtype("?"), 14: np.dtype(ml_dtypes.bfloat16), 17: np.dtype("<u2"),
    19: np.dtype("<f2"), 22: np.dtype("<u4"), 23: np.dtype("<u8"),
}  # fmt: skip


class Unfit(ValueError):
    """Values, or the lists that they are in, do not make a tensor of the data type."""


def flattened(value: Any) -> tuple[list[int], list[Any]]:
    """The shape of nested lists and the values in them, one after the other.

    Raises:
        Unfit: lists beside one another are of several sizes, or have other values beside them.
    """
    shape: list[int] = []
    level = [value]
    while level and type(level[0]) is list:
        size = len(level[0])
        if set(map(type, level)) != {list} or set(map(len, level)) != {size}:
            raise Unfit
        shape.append(size)
        level = level[0] if len(level) == 1 else list(chain.from_iterable(level))
    if list in set(map(type, level)):
        raise Unfit
    return shape, level


def number_bytes(values: Sequence[Any], dtype: int, is_exact: bool = True) -> bytes:
    """Numbers, or booleans, as a tensor of that type has them.

    Raises:
        Unfit: one is of another kind, out of range, or, when `is_exact`, a whole number that has more digits than the
            floating-point type.
    """
    kinds = set(map(type, values))
    target = NUMPY[dtype]
    if dtype == _BOOL:
        if not kinds <= {bool}:
            raise Unfit
    elif target.kind in "iu":
        limits = np.iinfo(target)
        if not kinds <= {int} or (values and not limits.min <= min(values) <= max(values) <= limits.max):
            raise Unfit
    else:
        return _float_bytes(values, kinds, target, is_exact)
    return np.array(values, target).tobytes()


def fits(values: Sequence[Any], dtype: int) -> bool:
    """Whether `number_bytes` takes them."""
    try:
        number_bytes(values, dtype)
    except Unfit:
        return False
    return True


def _float_bytes(values: Sequence[Any], kinds: set[type], target: np.dtype[Any], is_exact: bool) -> bytes:
    if not kinds <= {float, int}:
        raise Unfit
    most = 2 ** (ml_dtypes.finfo(target).nmant + 1) - 1  # type: ignore[no-untyped-call]
    if is_exact and int in kinds and any(type(value) is int and not -most <= value <= most for value in values):
        raise Unfit
    try:
        wide = np.array(values, np.float64)
    except OverflowError:
        raise Unfit from None
    with np.errstate(over="ignore"):
        narrow = wide.astype(target)
    # The largest number is written with fewer digits than it has, and then is a little larger than it is.
    if np.any(np.isinf(narrow) & np.isfinite(wide)):
        raise Unfit
    return narrow.tobytes()


def flat_array(tensor: RawTensor) -> np.ndarray[Any, np.dtype[Any]]:
    """The numbers of a tensor, as they lie in memory."""
    return np.frombuffer(output_bytes(tensor), NUMPY[tensor.dtype])


def array_json(array: np.ndarray[Any, np.dtype[Any]]) -> bytes:
    """An array as nested lists. Values that are no numbers are NaN, Infinity and -Infinity, which Python and JavaScript
    programs know though JSON does not.
    """
    if array.dtype == ml_dtypes.bfloat16:
        array = array.astype(np.float32)
    # orjson takes neither arrays without dimensions nor those that lie otherwise.
    written = orjson.dumps(np.ascontiguousarray(array).reshape(array.shape or 1), option=orjson.OPT_SERIALIZE_NUMPY)
    if array.dtype.kind == "f" and not (finite := np.isfinite(array)).all():
        # orjson writes null for them, and nothing else of an array is called so.
        parts = written.split(b"null")
        words = [*map(_word, array[~finite].tolist()), b""]
        written = b"".join(chain.from_iterable(zip(parts, words, strict=True)))
    return written if array.shape else written[1:-1]


def _word(value: float) -> bytes:
    if value != value:
        return b"NaN"
    return b"Infinity" if value > 0 else b"-Infinity"
