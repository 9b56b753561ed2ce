"""Whether two answers are the same."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from modelhost_server.hosting.sameness import same
from modelhost_server.tensors import DTYPE_NAME, STRING, Lease, LeasedBytes, RawTensor

NUMBER = {name: number for number, name in DTYPE_NAME.items()}
FLOATS = ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]
WHOLE = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


def raw(name: str, values: object) -> RawTensor:
    dtype = ml_dtypes.bfloat16 if name == "bfloat16" else name
    array = np.array(values, dtype)
    return RawTensor(NUMBER[name], array.shape, array.tobytes())


def words(*values: bytes) -> RawTensor:
    return RawTensor(STRING, (len(values),), list(values))


@pytest.mark.parametrize("name", FLOATS + WHOLE)
def test_equal_answers_are_the_same(name):
    assert same([raw(name, [1, 0, 1])], [raw(name, [1, 0, 1])], 0.0)


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_that_differ_are_never_the_same(name):
    assert not same([raw(name, [1, 0])], [raw(name, [1, 1])], 1.0)


@pytest.mark.parametrize("name", FLOATS)
def test_floats_may_differ_by_the_tolerance_of_the_largest(name):
    assert same([raw(name, [100.0, 1.5])], [raw(name, [100.0, 1.0])], 0.01)
    assert not same([raw(name, [100.0, 3.0])], [raw(name, [100.0, 1.0])], 0.01)


@pytest.mark.parametrize("name", FLOATS)
def test_nan_is_nan_and_nothing_else(name):
    nan = raw(name, [np.nan, 1.0])
    assert same([nan], [raw(name, [np.nan, 1.0])], 0.0)
    # Other bits, and nan all the same.
    other = bytearray(nan.data)
    other[0] ^= 1
    assert same([nan._replace(data=bytes(other))], [nan], 0.0)
    assert not same([nan], [raw(name, [1.0, 1.0])], 0.5)
    assert not same([raw(name, [1.0, 1.0])], [nan], 0.5)


@pytest.mark.parametrize("name", FLOATS)
def test_infinity_is_infinity_of_the_same_sign(name):
    infinite = raw(name, [np.inf, 1.0])
    assert same([infinite], [raw(name, [np.inf, 1.0001])], 0.01)
    assert not same([infinite], [raw(name, [-np.inf, 1.0])], 0.5)
    assert not same([infinite], [raw(name, [1.0, 1.0])], 0.5)
    assert not same([raw(name, [1.0, 1.0])], [infinite], 0.5)


@pytest.mark.parametrize("name", FLOATS)
def test_signed_zeros_are_equal(name):
    assert same([raw(name, [-0.0])], [raw(name, [0.0])], 0.0)


def test_the_scale_is_that_of_the_output_not_of_the_answer():
    assert not same([raw("float32", [1.0]), raw("float32", [0.2])], [raw("float32", [1.0]), raw("float32", [0.1])], 0.1)


def test_strings_are_compared_one_by_one():
    assert same([words(b"a", b"\0b", b"")], [words(b"a", b"\0b", b"")], 0.0)
    assert not same([words(b"a", b"b")], [words(b"ab", b"")], 1.0)


def test_shapes_dtypes_and_the_number_of_outputs_count():
    value = raw("float32", [[1.0, 2.0]])
    assert not same([value], [value._replace(shape=(2, 1))], 1.0)
    assert not same([raw("int32", [0])], [raw("float32", [0])], 1.0)
    assert not same([value], [value, value], 1.0)
    assert same([], [], 0.0)
    assert same([raw("float32", np.zeros((0, 3)))], [raw("float32", np.zeros((0, 3)))], 0.0)


@pytest.mark.parametrize("name", ["float32", "complex64", "bfloat16"])
def test_of_large_outputs_every_column_is_looked_at(name):
    for column in range(4):
        one, other = np.zeros((5000, 4)), np.zeros((5000, 4))
        one[:, :] = other[:, :] = 1.0
        one[:, column] = 2.0
        assert not same([raw(name, one)], [raw(name, other)], 0.1)


def test_large_complex_numbers_are_compared_in_both_parts():
    one = np.ones(10_000, np.complex64)
    other = one + 1j
    assert not same([raw("complex64", one)], [raw("complex64", other)], 0.1)


def test_answers_in_leased_memory_are_compared_where_they_are():
    value = raw("float32", [1.0, 2.0])
    leased = value._replace(data=LeasedBytes(memoryview(value.data), Lease(lambda: None)))
    assert same([leased], [value], 0.0)
    assert same([value], [leased], 0.0)
