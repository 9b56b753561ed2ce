"""Whether predictions may run together is found out rightly, of models that are Python functions here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.hosting.joining import Inputs
from modelhost_server.hosting.variation import differ, varied
from modelhost_server.hosting.verification import CannotTellError, Example, why_not
from modelhost_server.tensors import DTYPE_NAME, ITEMSIZE, STRING, Joined, RawTensor

NUMBER = {name: number for number, name in DTYPE_NAME.items()}
Function = Callable[..., Any]


def raw(value: np.ndarray) -> RawTensor:
    if value.dtype == object:
        return RawTensor(STRING, value.shape, list(value.reshape(-1)))
    return RawTensor(NUMBER[value.dtype.name], value.shape, value.tobytes())


def array(tensor: RawTensor) -> np.ndarray:
    if tensor.dtype == STRING:
        return words(*tensor.data).reshape(tensor.shape)
    data = b"".join(map(bytes, tensor.data.parts)) if isinstance(tensor.data, Joined) else bytes(tensor.data)
    return np.frombuffer(data, DTYPE_NAME[tensor.dtype]).reshape(tensor.shape)


def words(*values: bytes) -> np.ndarray:
    result = np.empty(len(values), object)
    result[:] = values
    return result


class Model:
    """Runs a function of arrays; `runs` are the inputs it was run with."""

    def __init__(self, function: Function) -> None:
        self._function = function
        self.runs: list[list[np.ndarray]] = []

    async def run(self, inputs: Inputs) -> list[RawTensor]:
        arrays = [array(tensor) for _, tensor in inputs]
        self.runs.append(arrays)
        result = self._function(*arrays)
        return [raw(each) for each in (result if isinstance(result, tuple) else (result,))]

    async def example(self, *arrays: np.ndarray) -> Example:
        inputs = [(place, raw(each)) for place, each in enumerate(arrays)]
        return Example(inputs, await self.run(inputs))


async def verdict(function: Function, *predictions: Any) -> str:
    """Why not, after these predictions: of arrays, or of tuples of arrays."""
    model = Model(function)
    examples = [await model.example(*(p if isinstance(p, tuple) else (p,))) for p in predictions]
    return await why_not(examples, model.run, 1e-4)


def numbers(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


DIFFERENT = numbers([1, 2, 3]), numbers([-5, 0, 4], [1, 1, 1]), numbers([2, 9, -9])
EQUAL = (numbers([1, 2, 3]),) * 3
CONSTANT = (numbers([1, 1, 1]),) * 3
SINGLE = tuple(np.float32([value]) for value in (1, 2, 3))
SINGLE_DOWN = SINGLE[::-1]
PREDICTIONS = {
    "different": DIFFERENT, "equal": EQUAL, "constant": CONSTANT, "ascending": SINGLE, "descending": SINGLE_DOWN,
}  # fmt: skip

W = np.random.default_rng(1).normal(size=(3, 3)).astype(np.float32)
SAFE: dict[str, Function] = {
    "elementwise": lambda x: x * 2,
    "softmax of each": lambda x: np.exp(x) / np.exp(x).reshape(len(x), -1).sum(1).reshape(-1, *[1] * (x.ndim - 1)),
    "sum of each": lambda x: x.reshape(len(x), -1).sum(1),
    "two outputs": lambda x: (x, x > 0),
    "constant": np.zeros_like,
    "not a number": lambda x: x * np.float32(np.nan),
}
UNSAFE: dict[str, Function] = {
    "minus the mean of the batch": lambda x: x - x.mean(0, keepdims=True),
    "minus the mean of everything": lambda x: x - x.mean(),
    "over the largest of everything": lambda x: x / np.abs(x).max(),
    "running sum": lambda x: np.cumsum(x, 0, dtype=np.float32),
    "running maximum": lambda x: np.maximum.accumulate(x, 0),
    "sorted": lambda x: np.sort(x, 0),
    "in the other order": lambda x: x[::-1],
    "the number of the row added": lambda x: x + np.arange(len(x), dtype=np.float32).reshape(-1, *[1] * (x.ndim - 1)),
    "divided by the number of rows": lambda x: x / np.float32(len(x)),
    "a fixed extent": lambda x: np.zeros(1, np.float32),
    "the first row for all": lambda x: np.repeat(x[:1], len(x), 0),
    "a scalar": lambda x: np.float32(x.sum()),
    "one good output and one of the batch": lambda x: (x, x - x.mean()),
    "one for each pair": lambda x: x.reshape(len(x), -1).sum(1)[:, None] - x.reshape(len(x), -1).sum(1)[None],
    "twice the rows": lambda x: np.concatenate([x, x]),
}


@pytest.mark.parametrize("predictions", PREDICTIONS.values(), ids=PREDICTIONS)
@pytest.mark.parametrize("function", SAFE.values(), ids=SAFE)
async def test_models_that_look_at_each_row_may(function, predictions):
    assert await verdict(function, *predictions) == ""


@pytest.mark.parametrize("predictions", PREDICTIONS.values(), ids=PREDICTIONS)
@pytest.mark.parametrize("function", UNSAFE.values(), ids=UNSAFE)
async def test_models_that_look_at_the_batch_may_not(function, predictions):
    assert await verdict(function, *predictions)


async def test_random_answers_may_not():
    noise = np.random.default_rng(0)
    assert "other answers" in await verdict(lambda x: x + noise.normal(size=x.shape).astype(np.float32), *DIFFERENT)


async def test_answers_within_the_tolerance_may():
    assert await verdict(lambda x: x * np.float32(1 + 1e-6 * len(x)), *DIFFERENT) == ""
    assert await verdict(lambda x: x * np.float32(1 + 1e-2 * len(x)), *DIFFERENT)


async def test_text_of_one_length_does_not_hide_that_others_are_filled_up():
    def split(text: np.ndarray) -> np.ndarray:
        rows = [each.split() for each in text]
        longest = max(map(len, rows))
        return np.array([[len(word) for word in row] + [0] * (longest - len(row)) for row in rows], np.int32)

    texts = [words(b"one two three"), words(b"four five six"), words(b"seven eight nine")]
    assert await verdict(split, *texts)
    assert await verdict(lambda text: np.array([len(each) for each in text], np.int32), *texts) == ""


async def test_an_input_that_is_always_the_same_is_made_to_differ():
    def masked(x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        return x * (np.arange(lengths.max()).max() + 1).astype(np.float32)

    lengths = np.int32([5])
    predictions = [(numbers([i, 2]), lengths) for i in range(3)]
    assert await verdict(masked, *predictions)
    assert await verdict(lambda x, n: x * n[:, None].astype(np.float32), *predictions) == ""


async def test_a_batch_that_the_model_refuses_may_not():
    def one_row(x: np.ndarray) -> np.ndarray:
        if len(x) > 1:
            raise ModelhostError(Reason.MODEL_EXECUTION_FAILED, "cannot reshape")
        return x

    assert "cannot reshape" in await verdict(one_row, *SINGLE)


def refuses(*known: np.ndarray) -> Function:
    """A model that takes these rows only."""
    rows = {row.tobytes() for each in known for row in each}

    def run(x: np.ndarray) -> np.ndarray:
        if any(row.tobytes() not in rows for row in x):
            raise ModelhostError(Reason.MODEL_REJECTED_INPUT, "unknown")
        return x * 2

    return run


async def test_a_model_that_refuses_what_was_made_up_is_judged_by_what_came():
    assert await verdict(refuses(*DIFFERENT), *DIFFERENT) == ""
    first_two_equal = DIFFERENT[0], DIFFERENT[0], DIFFERENT[1]
    assert await verdict(refuses(*DIFFERENT), *first_two_equal) == ""


async def test_equal_predictions_of_such_a_model_say_nothing():
    with pytest.raises(CannotTellError):
        await verdict(refuses(*EQUAL), *EQUAL)


async def test_the_same_short_text_again_and_again_says_nothing():
    with pytest.raises(CannotTellError):
        await verdict(lambda x: x, words(b""), words(b""), words(b""))


async def test_answers_that_were_not_of_all_outputs_are_asked_for():
    model = Model(lambda x: (x, x - x.mean()))
    examples = [Example((await model.example(x)).inputs, None) for x in DIFFERENT]
    assert "other answers" in await why_not(examples, model.run, 1e-4)


@pytest.mark.parametrize("reason", [Reason.WORKER_DIED, Reason.QUEUE_FULL])
@pytest.mark.parametrize("good_runs", range(3))
async def test_a_run_that_fails_for_another_reason_says_nothing(reason, good_runs):
    model = Model(lambda x: x)
    examples = [await model.example(x) for x in DIFFERENT]
    model.runs.clear()

    async def run(inputs: Inputs) -> list[RawTensor]:
        if len(model.runs) == good_runs:
            raise ModelhostError(reason, "not now")
        return await model.run(inputs)

    with pytest.raises(ModelhostError, match="not now"):
        await why_not(examples, run, 1e-4)


# What is made up

FIXED = sorted(set(DTYPE_NAME) - {STRING})


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FIXED), st.integers(0, 9), st.integers(0, 2**32))
def test_made_up_numbers_are_of_the_same_extent_and_mostly_of_values_that_were_there(dtype, count, seed):
    data = np.random.default_rng(seed).bytes(count * ITEMSIZE[dtype])
    if DTYPE_NAME[dtype] == "bool":
        data = bytes(byte & 1 for byte in data)
    tensor = RawTensor(dtype, (count,), data)
    ((_, made),) = varied([(0, tensor)])
    assert (made.dtype, made.shape, len(made.data)) == (dtype, (count,), len(data))
    assert differ([(0, tensor)], [(0, made)]) == (made.data != data)
    size = ITEMSIZE[dtype]
    there = {data[i : i + size] for i in range(0, len(data), size)}
    if dtype not in (1, 2) and len(there) > 1:
        assert {made.data[i : i + size] for i in range(0, len(data), size)} < there, "the largest is gone"
    if DTYPE_NAME[dtype] == "bool":
        assert set(made.data) <= {0, 1}
    if dtype not in (1, 2) and count:
        assert made.data != data


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=6), max_size=6))
def test_made_up_strings_differ_unless_all_are_empty(values):
    tensor = RawTensor(STRING, (len(values),), values)
    ((_, made),) = varied([(0, tensor)])
    assert len(made.data) == len(values)
    assert differ([(0, tensor)], [(0, made)]) == (made.data != values) == any(values)


def test_of_large_inputs_the_beginning_is_changed():
    big = np.arange(3_000_000, dtype=np.float32).reshape(3, -1)
    for value in (big, big.astype(np.int16), big.astype(np.float64)):
        ((_, made),) = varied([(0, raw(value))])
        assert made.data[:1000] != value.tobytes()[:1000]
        assert made.data[-1000:] == value.tobytes()[-1000:]
        assert len(made.data) == value.nbytes
