"""Arrays to tensors and back."""

from __future__ import annotations

import sys
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from modelhost import InternalError, InvalidInputError, UnsupportedError
from modelhost._tensors import from_message, to_message
from modelhost.v1 import tensor_pb2

NUMERIC = [
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
    "complex64",
    "complex128",
]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
NUMERIC_ARRAYS = st.sampled_from(NUMERIC).flatmap(lambda name: hnp.arrays(np.dtype(name), SHAPES))
STRINGS = hnp.arrays(np.dtype(object), SHAPES, elements=st.binary(max_size=8), fill=st.nothing())


@given(NUMERIC_ARRAYS)
def test_numbers_come_back_as_they_were(array: np.ndarray[Any, Any]) -> None:
    message = to_message(array, "x")
    back = from_message(tensor_pb2.Tensor.FromString(message.SerializeToString()))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    # Bytes, because NaN is not equal to itself.
    assert back.tobytes() == array.tobytes()
    assert message.dtype == tensor_pb2.DataType.Value(f"DATA_TYPE_{array.dtype.name.upper()}")
    assert len(message.raw) == array.nbytes


@given(NUMERIC_ARRAYS.filter(lambda array: array.dtype.itemsize > 1))
def test_byte_order_and_layout_do_not_matter(array: np.ndarray[Any, Any]) -> None:
    expected = to_message(array, "x")
    assert to_message(array.astype(array.dtype.newbyteorder(">")), "x") == expected
    assert to_message(np.asfortranarray(array).reshape(array.shape), "x") == expected
    assert to_message(array[..., ::-1][..., ::-1] if array.ndim else array, "x") == expected


@given(STRINGS)
def test_strings_come_back_as_bytes(array: np.ndarray[Any, Any]) -> None:
    back = from_message(to_message(array, "x"))
    assert back.dtype == object
    assert back.shape == array.shape
    assert back.tolist() == array.tolist()


@pytest.mark.parametrize(
    "array",
    [
        np.array(["é", ""]),
        np.array(["é".encode(), b""]),
        np.array(["é", b""], dtype=object),
        np.array([np.str_("é"), np.bytes_(b"")], dtype=object),
    ],
)
def test_text_travels_as_utf8(array: np.ndarray[Any, Any]) -> None:
    assert list(to_message(array, "x").strings.values) == ["é".encode(), b""]


def test_results_are_read_only_views() -> None:
    array = from_message(to_message(np.arange(3.0), "x"))
    assert not array.flags.writeable
    assert array.base is not None


def test_bfloat16() -> None:
    array = np.array([[1.5, -2.0]], dtype=ml_dtypes.bfloat16)
    message = to_message(array, "x")
    assert message.dtype == tensor_pb2.DATA_TYPE_BFLOAT16
    assert message.raw == b"\xc0\x3f\x00\xc0"
    back = from_message(message)
    assert back.dtype == ml_dtypes.bfloat16
    assert back.tolist() == [[1.5, -2.0]]


def test_bfloat16_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(UnsupportedError, match="pip install ml_dtypes"):
        from_message(tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_BFLOAT16, shape=[0], raw=b""))


@pytest.mark.parametrize(
    "array",
    [
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        np.zeros(1, np.longdouble),
        np.zeros(1, [("a", "i4")]),
        np.zeros(1, ml_dtypes.float8_e4m3fn),
    ],
)
def test_dtypes_that_cannot_travel(array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"input 'x'.*cannot be sent; expected one of .*float32.*string"):
        to_message(array, "x")


@pytest.mark.parametrize(("element", "got"), [(1, "int"), (None, "NoneType"), ("\ud800", "not Unicode text")])
def test_objects_that_are_no_strings(element: object, got: str) -> None:
    with pytest.raises(InvalidInputError, match=got):
        to_message(np.array([element], dtype=object), "x")


@pytest.mark.parametrize(
    "message",
    [
        tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[2], raw=b"\0" * 4),
        tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[1], raw=b"\0" * 3),
        tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_STRING, shape=[1]),
    ],
)
def test_answers_that_contradict_themselves(message: tensor_pb2.Tensor) -> None:
    with pytest.raises(InternalError, match="malformed tensor"):
        from_message(message)


def test_a_dtype_of_a_later_server() -> None:
    with pytest.raises(UnsupportedError, match="4711"):
        from_message(tensor_pb2.Tensor(dtype=4711))  # type: ignore[arg-type]
