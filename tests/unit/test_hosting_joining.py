"""What several predictions give makes one batch, and each gets back what it gave."""

from __future__ import annotations

import os
import tempfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelhost_server.hosting.joining import join, split
from modelhost_server.tensors import DTYPE_NAME, STRING, FileRange, Joined, Lease, LeasedBytes, RawTensor

DTYPES = sorted(DTYPE_NAME)


def numpy_dtype(dtype: int) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16) if DTYPE_NAME[dtype] == "bfloat16" else np.dtype(DTYPE_NAME[dtype])


def raw(array: np.ndarray, dtype: int) -> RawTensor:
    data = list(array.reshape(-1)) if dtype == STRING else array.tobytes()
    return RawTensor(dtype, array.shape, data)


def array(tensor: RawTensor) -> np.ndarray:
    if tensor.dtype == STRING:
        values = np.empty(len(tensor.data), object)
        values[:] = list(tensor.data)
        return values.reshape(tensor.shape)
    parts = tensor.data.parts if isinstance(tensor.data, Joined) else [tensor.data]
    data = b"".join(bytes(part.view if isinstance(part, LeasedBytes) else part) for part in parts)
    return np.frombuffer(data, numpy_dtype(tensor.dtype)).reshape(tensor.shape)


def made(dtype: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Any bytes at all; strings of all lengths."""
    noise = np.random.default_rng(seed)
    if dtype == STRING:
        values = np.empty(int(np.prod(shape)), object)
        values[:] = [noise.bytes(int(noise.integers(0, 9))) for _ in values]
        return values.reshape(shape)
    if DTYPE_NAME[dtype] == "bool":
        return noise.integers(0, 2, shape).astype(bool)
    size = numpy_dtype(dtype).itemsize
    return np.frombuffer(noise.bytes(int(np.prod(shape)) * size), numpy_dtype(dtype)).reshape(shape)


def equal(one: np.ndarray, other: np.ndarray) -> bool:
    """Bit for bit, for there are NaNs."""
    if one.dtype == object:
        return one.shape == other.shape and one.tolist() == other.tolist()
    return one.shape == other.shape and one.tobytes() == other.tobytes()


extents = st.lists(st.integers(0, 4), max_size=3).map(tuple)
counts = st.lists(st.integers(1, 4), min_size=1, max_size=6)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(DTYPES), extents), min_size=1, max_size=3), counts, st.integers(0, 5))
def test_what_is_joined_comes_apart_again(kinds, rows, missing):
    predictions = [
        [(place, made(dtype, (count, *rest), 100 * i + place)) for place, (dtype, rest) in enumerate(kinds)]
        for i, count in enumerate(rows)
    ]
    given_ = [[(place, raw(value, kinds[place][0])) for place, value in inputs] for inputs in predictions]
    total = sum(rows) + missing
    joined = join(given_, total)
    assert [place for place, _ in joined] == list(range(len(kinds)))
    for place, tensor in joined:
        expected = np.concatenate([inputs[place][1] for inputs in predictions])
        filled = np.concatenate([expected, *[expected[-1:]] * missing])
        assert equal(array(tensor), filled)
    # As if a model had answered its inputs.
    outputs = [raw(array(tensor), tensor.dtype) for _, tensor in joined]
    answers = split(outputs, rows, total)
    assert answers is not None
    for inputs, answer in zip(predictions, answers, strict=True):
        assert all(equal(array(got), gave) for got, (_, gave) in zip(answer, inputs, strict=True))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(DTYPES),
    st.integers(1, 3).flatmap(
        lambda rank: st.lists(
            st.tuples(st.integers(1, 3), st.lists(st.integers(0, 4), min_size=rank, max_size=rank)),
            min_size=1,
            max_size=4,
        )
    ),
    st.integers(0, 2),
)
def test_what_is_narrower_is_filled_up(dtype, shapes, missing):
    arrays = [made(dtype, (rows, *rest), i) for i, (rows, rest) in enumerate(shapes)]
    total = sum(a.shape[0] for a in arrays) + missing
    ((_, tensor),) = join([[(0, raw(a, dtype))] for a in arrays], total)
    widest = tuple(max(extents) for extents in zip(*(a.shape[1:] for a in arrays), strict=True))
    result = array(tensor)
    assert result.shape == (total, *widest)
    start = 0
    for each in arrays:
        expected = np.zeros((each.shape[0], *widest), object if dtype == STRING else numpy_dtype(dtype))
        if dtype == STRING:
            expected[...] = b""
        expected[tuple(slice(extent) for extent in each.shape)] = each
        assert equal(result[start : start + each.shape[0]], expected)
        start += each.shape[0]
    for filled in result[start:]:
        assert equal(filled, result[start - 1])


def test_zeros_and_nothing_else_are_what_is_filled_up_with():
    one, other = np.float32([[1, 2]]), np.float32([[3, 4, 5], [6, 7, 8]])
    ((_, tensor),) = join([[(0, raw(one, 1))], [(0, raw(other, 1))]], 4)
    assert array(tensor).tolist() == [[1, 2, 0], [3, 4, 5], [6, 7, 8], [6, 7, 8]]
    words = [np.array([[b"a"]], object), np.array([[b"b", b"c"]], object)]
    ((_, tensor),) = join([[(0, raw(each, STRING))] for each in words], 2)
    assert array(tensor).tolist() == [[b"a", b""], [b"b", b"c"]]


@pytest.mark.parametrize("shapes", [[(4,)], [()], [(2, 3)], [(3,), (2,)], [(2,)]])
def test_outputs_that_do_not_follow_the_rows_are_told(shapes):
    assert split([raw(np.zeros(shape, np.float32), 1) for shape in shapes], [1, 2], 3) is None


def test_an_answer_without_rows_is_empty():
    answers = split([raw(np.zeros((3, 2), np.float32), 1)], [0, 3], 3)
    assert answers is not None
    assert [array(answer[0]).shape for answer in answers] == [(0, 2), (3, 2)]


def test_parts_of_leased_memory_hold_the_lease_together():
    ended = []
    output = RawTensor(1, (2,), LeasedBytes(memoryview(np.float32([1, 2]).tobytes()), Lease(lambda: ended.append(1))))
    answers = split([output], [1, 1], 2)
    del output
    assert answers is not None
    assert array(answers[0][0]).tolist() == [1]
    del answers[0]
    assert not ended, "the other part is still looked at"
    assert array(answers[0][0]).tolist() == [2]
    answers.clear()
    assert ended


def test_inputs_in_files_are_joined_and_filled_up():
    values = np.float32([[1, 2], [3, 4]])
    with tempfile.TemporaryFile() as file:
        file.write(values.tobytes())
        file.flush()
        in_file = RawTensor(1, (2, 2), FileRange(os.dup(file.fileno()), 0, 16))
        ((_, tensor),) = join([[(0, raw(np.float32([[9, 9, 9]]), 1))], [(0, in_file)]], 4)
        assert array(tensor).tolist() == [[9, 9, 9], [1, 2, 0], [3, 4, 0], [3, 4, 0]]
        file.truncate(8)
        with pytest.raises(OSError, match="cut short"):
            join([[(0, raw(np.float32([[9, 9, 9]]), 1))], [(0, in_file)]], 4)
