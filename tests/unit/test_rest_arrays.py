"""Tensors between JSON and bytes."""

import json
import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from modelhost_server.rest.arrays import NUMPY, Unfit, array_json, flat_array, flattened, number_bytes
from modelhost_server.tensors import RawTensor

SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@st.composite
def tensors(draw):
    dtype = draw(st.sampled_from(sorted(NUMPY)))
    # hypothesis does not know bfloat16.
    made_as = np.dtype("float32") if dtype == 14 else NUMPY[dtype]
    array = draw(arrays.arrays(made_as, draw(SHAPES)))
    with np.errstate(over="ignore"):
        return dtype, array.astype(NUMPY[dtype])


@given(tensors())
def test_what_is_written_is_read_again(tensor):
    dtype, array = tensor
    written = array_json(flat_array(RawTensor(dtype, array.shape, array.tobytes())).reshape(array.shape))
    shape, values = flattened(json.loads(written))
    # Where there is no element, the extents behind are not seen.
    assert shape == list(array.shape[: len(shape)])
    assert (0 in shape) == (0 in array.shape)
    read = np.frombuffer(number_bytes(values, dtype), NUMPY[dtype])
    assert np.array_equal(read.astype("float64"), array.ravel().astype("float64"), equal_nan=array.dtype.kind in "fV")


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.float32(0.2), b"0.2"),
        (np.array([[1, 2.5]], np.float32), b"[[1.0,2.5]]"),
        (np.array([np.nan, np.inf, -np.inf, 1]), b"[NaN,Infinity,-Infinity,1.0]"),
        (np.array([2**63], np.uint64), b"[9223372036854775808]"),
        (np.array([[True], [False]]), b"[[true],[false]]"),
        (np.array([1.5, np.nan], ml_dtypes.bfloat16), b"[1.5,NaN]"),
        (np.zeros((2, 0, 3), np.int8), b"[[],[]]"),
        (np.arange(6, dtype=np.int16).reshape(2, 3).T, b"[[0,3],[1,4],[2,5]]"),
    ],
)
def test_how_arrays_are_written(array, text):
    assert array_json(np.asarray(array)) == text


@pytest.mark.parametrize("value", [[[1], [2, 3]], [[1], 2], [1, [2]], [[[1]], [[]]]])
def test_lists_that_are_no_tensor(value):
    with pytest.raises(Unfit):
        flattened(value)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1.0], 3), ([True], 3), (["1"], 3), ([None], 1), ([2**31], 3), ([-1], 4), ([256], 4), ([-129], 6),
        ([2**64], 23), ([1], 10), ([True, 1], 10), ([True], 1),
        ([1e39], 1), ([2**24], 1), ([2**53], 2), ([65520.0], 19), ([256], 14),
    ],
)  # fmt: skip
def test_numbers_that_do_not_fit(values, dtype):
    with pytest.raises(Unfit):
        number_bytes(values, dtype)


@pytest.mark.parametrize("dtype", [1, 2, 14, 19])
def test_the_largest_number_fits_as_it_is_written(dtype):
    largest = np.array([ml_dtypes.finfo(NUMPY[dtype]).max], NUMPY[dtype])
    assert number_bytes(json.loads(array_json(largest)), dtype) == largest.tobytes()


def test_a_number_that_no_float_can_hold():
    with pytest.raises(Unfit):
        number_bytes([10**400], 2, is_exact=False)


def test_what_need_not_be_exact_is_rounded():
    assert np.frombuffer(number_bytes([2**24 + 1], 1, is_exact=False), "<f4")[0] == 2**24


def test_infinity_is_a_number_of_every_floating_type():
    for dtype in (1, 2, 14, 19):
        read = np.frombuffer(number_bytes([math.inf, -math.inf, math.nan, 1], dtype), NUMPY[dtype]).astype("float64")
        assert read.tolist()[:2] == [math.inf, -math.inf]
        assert math.isnan(read[2])
