"""What becomes of each prediction of a batch, whatever becomes of the batch. The worker is a function here."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.hosting.batching import BatchingState
from modelhost_server.hosting.prediction import Begun, begin, runner_of
from modelhost_server.hosting.verification import Example
from modelhost_server.scheduling.scheduler import Scheduler
from modelhost_server.store.phases import Phase
from modelhost_server.store.records import BatchingOptions, Loaded, LoadOptions, ScopeConfig, Version
from modelhost_server.tensors import FileRange, Joined, RawTensor, SignatureSpec, TensorSpec

FLOAT32 = 1
Function = Callable[[np.ndarray], np.ndarray]


def raw(*rows: float) -> RawTensor:
    return RawTensor(FLOAT32, (len(rows),), np.float32(rows).tobytes())


def values(tensor: RawTensor) -> list[float]:
    parts = tensor.data.parts if isinstance(tensor.data, Joined) else [tensor.data]
    return np.frombuffer(b"".join(bytes(part) for part in parts), "<f4").tolist()


class Link:
    """A worker that answers when it is told to."""

    def __init__(self, function: Function) -> None:
        self.function = function
        # What has been run, each the rows of its batch.
        self.runs: list[list[float]] = []
        self._waiting: list[tuple[list[float], Any]] = []

    def predict(
        self,
        key: int,
        signature: int,
        wanted: Sequence[int],
        inputs: Sequence[tuple[int, RawTensor]],
        dtypes: Sequence[int],
        on_answer: Any,
    ) -> None:
        ((_, tensor),) = inputs
        parts = tensor.data.parts if isinstance(tensor.data, Joined) else [tensor.data]
        for part in parts:
            if isinstance(part, FileRange):
                part.read_into(memoryview(bytearray(len(part))))
        self.runs.append(values(tensor))
        assert len(self.runs[-1]) == tensor.shape[0]
        self._waiting.append((self.runs[-1], on_answer))

    def answer_all(self) -> None:
        """Answers, until nothing more is sent."""
        while self._waiting:
            rows, on_answer = self._waiting.pop(0)
            try:
                outputs = self.function(np.float32(rows))
            except ModelhostError as error:
                on_answer(error)
            else:
                on_answer([RawTensor(FLOAT32, outputs.shape, outputs.tobytes())])


class Scope:
    """A scope with one version of one model, `y` of `x`."""

    def __init__(self, function: Function, **batching: Any) -> None:
        self.link = Link(function)
        self.worker: Any = SimpleNamespace(link=self.link)
        self.scheduler = Scheduler("s", 1, 1000)
        self.workers = SimpleNamespace(pick=lambda key: self.worker)
        self.scope = SimpleNamespace(config=ScopeConfig())
        spec = SignatureSpec(
            "serving_default", (TensorSpec("x", FLOAT32, (-1,), optional=True),), (TensorSpec("y", FLOAT32, (-1,)),)
        )
        options = LoadOptions(batching=BatchingOptions(**{"mode": "ON", "max_batch_size": 64, **batching}))
        self.version = Version("s", "m", 1, 7, "", "", options, phase=Phase.AVAILABLE)
        self.version.loaded = Loaded("tensorflow", "", (spec,), (), 0, 0, 0, 0, (0, 0, ""), is_pure=True)

    @property
    def batching(self) -> Any:
        return self.version.loaded.runners[0].batching

    def begin(self, x: RawTensor | None, caller: str = "c") -> Begun:
        self.version.handles += 1
        inputs = {} if x is None else {"x": x}
        return begin(self, self.version, "", inputs, (), caller=caller)  # type: ignore[arg-type]

    async def together(self, *inputs: RawTensor | None, instead: dict[int, RawTensor] | None = None) -> list[Begun]:
        """Begins them while another prediction runs, so that they make one batch; each of its own caller. `instead` of
        some, by their values, others are run.
        """
        blocker = self.begin(raw(0.5), "blocker")
        await asyncio.sleep(0)
        begun = [self.begin(x, f"caller-{i}") for i, x in enumerate(inputs)]
        for each in begun:
            for value, tensor in (instead or {}).items():
                if values(each._running.inputs[0][1]) == [value]:
                    each._running.inputs = [(0, tensor)]
        await asyncio.sleep(0)
        self.link.runs.clear()
        self.link.answer_all()
        await blocker.result()
        return begun


async def outcome(begun: Begun) -> Any:
    try:
        return values((await begun.result()).outputs["y"])
    except ModelhostError as error:
        return error.reason


async def outcomes(begun: Sequence[Begun]) -> list[Any]:
    async with asyncio.timeout(30):
        return [await outcome(each) for each in begun]


def refusing(bad: float) -> Function:
    def run(x: np.ndarray) -> np.ndarray:
        if bad in x:
            raise ModelhostError(Reason.MODEL_REJECTED_INPUT, "no")
        return x * 2

    return run


def double(x: np.ndarray) -> np.ndarray:
    return x * 2


async def test_a_batch_answers_each():
    scope = Scope(double)
    begun = await scope.together(raw(1), raw(2, 3), raw(4))
    assert await outcomes(begun) == [[2], [4, 6], [8]]
    assert scope.link.runs == [[1, 2, 3, 4]]
    assert (scope.batching.batch_count, scope.batching.prediction_count) == (2, 4)
    assert scope.version.handles == 0
    statistics = scope.version.statistics
    assert (statistics.success_count, statistics.failure_count) == (4, 0)


async def test_a_bad_one_fails_alone():
    scope = Scope(refusing(13))
    begun = await scope.together(raw(1), raw(13), raw(2))
    assert await outcomes(begun) == [[2], Reason.MODEL_REJECTED_INPUT, [4]]
    assert scope.link.runs == [[1, 13, 2], [1], [13], [2]]
    assert scope.version.handles == 0
    assert scope.scheduler.in_flight == 0
    statistics = scope.version.statistics
    assert (statistics.success_count, statistics.failure_count) == (3, 1)
    assert scope.batching.state is BatchingState.ON


async def test_a_caller_of_bad_ones_spoils_no_second_batch():
    scope = Scope(refusing(13))
    await outcomes(await scope.together(raw(1), raw(13), raw(2)))
    begun = await scope.together(raw(1), raw(13), raw(2))
    assert await outcomes(begun) == [[2], Reason.MODEL_REJECTED_INPUT, [4]]
    assert sorted(scope.link.runs) == [[1, 2], [13]]


async def test_such_a_caller_is_trusted_again_after_a_while():
    scope = Scope(refusing(13))
    await outcomes(await scope.together(raw(1), raw(13), raw(2)))
    for _ in range(50):
        await outcomes(await scope.together(raw(1), raw(3), raw(2)))
    await outcomes(await scope.together(raw(1), raw(3), raw(2)))
    assert scope.link.runs == [[1, 3, 2]]


async def test_callers_that_never_come_back_are_forgotten():
    scope = Scope(refusing(13))
    for number in range(3000):
        begun = scope.begin(raw(13), f"caller-{number}")
        await asyncio.sleep(0)
        scope.link.answer_all()
        assert await outcome(begun) is Reason.MODEL_REJECTED_INPUT
    assert len(scope.version.loaded.runners[0]._alone) <= 1000


async def test_a_batch_that_fails_though_none_is_bad_is_the_last_one():
    def small_only(x: np.ndarray) -> np.ndarray:
        if len(x) > 1:
            raise ModelhostError(Reason.MODEL_EXECUTION_FAILED, "cannot reshape")
        return x * 2

    scope = Scope(small_only)
    assert await outcomes(await scope.together(raw(1), raw(2))) == [[2], [4]]
    assert scope.batching.state is BatchingState.OFF
    assert "cannot reshape" in scope.batching.explanation
    assert await outcomes(await scope.together(raw(1), raw(2))) == [[2], [4]]
    assert scope.link.runs == [[1], [2]]


def hungry(most: int) -> Function:
    """Finds memory for so many examples."""

    def run(x: np.ndarray) -> np.ndarray:
        if len(x) > most:
            raise ModelhostError(Reason.MEMORY_LIMIT, "no more memory")
        return x * 2

    return run


async def test_those_of_a_batch_that_needs_too_much_memory_run_alone_and_later_ones_are_smaller():
    scope = Scope(hungry(1), max_batch_size=0)
    sizes: list[int] = []
    # Larger batches are tried after some of one.
    for _ in range(100):
        assert await outcomes(await scope.together(raw(1), raw(2))) == [[2], [4]]
        sizes += map(len, scope.link.runs)
    assert sizes.count(2) == 1
    assert scope.batching.state is BatchingState.ON


async def test_a_caller_that_needs_too_much_memory_fails_alone():
    scope = Scope(hungry(3))
    begun = await scope.together(raw(1), raw(*range(5)), raw(2))
    assert await outcomes(begun) == [[2], Reason.MEMORY_LIMIT, [4]]
    assert scope.batching.state is BatchingState.ON
    begun = await scope.together(raw(1), raw(*range(5)), raw(2))
    assert await outcomes(begun) == [[2], Reason.MEMORY_LIMIT, [4]]
    assert sorted(map(len, scope.link.runs)) == [2, 5]


async def test_outputs_of_another_extent_turn_it_off_and_everyone_is_answered():
    scope = Scope(np.unique)
    assert await outcomes(await scope.together(raw(1), raw(2))) == [[1], [2]]
    assert scope.batching.state is BatchingState.ON
    assert await outcomes(await scope.together(raw(5), raw(5))) == [[5], [5]]
    assert scope.link.runs == [[5, 5], [5], [5]]
    assert scope.batching.state is BatchingState.OFF


async def test_memory_that_cannot_be_read_costs_its_own_caller_only():
    scope = Scope(double)
    with tempfile.TemporaryFile() as file:
        file.truncate(4)
        gone = RawTensor(FLOAT32, (1,), FileRange(file.fileno(), 0, 4))
        file.truncate(0)
        begun = await scope.together(raw(1), raw(13), raw(2), instead={13: gone})
        assert await outcomes(begun) == [[2], Reason.INPUT_MALFORMED, [4]]
    assert scope.version.handles == 0
    assert scope.scheduler.in_flight == 0


async def test_a_worker_that_dies_fails_all_of_its_batch_and_runs_nothing_twice():
    def die(x: np.ndarray) -> np.ndarray:
        if len(x) > 1:
            raise ModelhostError(Reason.WORKER_DIED, "gone")
        return x

    scope = Scope(die)
    assert await outcomes(await scope.together(raw(1), raw(2))) == [Reason.WORKER_DIED] * 2
    assert scope.link.runs == [[1, 2]]
    assert scope.version.handles == 0
    assert scope.batching.state is BatchingState.ON


async def test_without_a_worker_all_that_wait_are_told():
    scope = Scope(double)
    blocker = scope.begin(raw(0.5))
    await asyncio.sleep(0)
    begun = [scope.begin(raw(i), f"caller-{i}") for i in range(1000)]
    await asyncio.sleep(0)
    scope.worker = None
    scope.link.answer_all()
    assert await outcome(blocker) == [1.0]
    assert await outcomes(begun) == [Reason.WORKER_UNAVAILABLE] * 1000
    assert (scope.version.handles, scope.scheduler.in_flight, scope.scheduler.queued) == (0, 0, 0)


async def test_those_who_left_are_not_run_again():
    scope = Scope(refusing(13))
    blocker = scope.begin(raw(0.5), "blocker")
    await asyncio.sleep(0)
    begun = [scope.begin(raw(x), f"caller-{x}") for x in (1, 13, 2)]
    await asyncio.sleep(0)
    scope.link.function, answer_later = double, scope.link.function
    rows, on_answer = scope.link._waiting.pop(0)
    on_answer([RawTensor(FLOAT32, (1,), np.float32(rows).tobytes())])
    await blocker.result()
    begun[0].cancel()
    scope.link.function = answer_later
    scope.link.answer_all()
    assert await outcomes(begun[1:]) == [Reason.MODEL_REJECTED_INPUT, [4]]
    assert scope.link.runs == [[0.5], [1, 13, 2], [13], [2]]
    assert scope.version.handles == 0


async def test_those_who_leave_while_they_wait_are_not_run():
    scope = Scope(double)
    blocker = scope.begin(raw(0.5), "blocker")
    await asyncio.sleep(0)
    begun = [scope.begin(raw(x), f"caller-{x}") for x in (1, 2, 3)]
    task = asyncio.create_task(begun[1].result())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    scope.link.answer_all()
    await blocker.result()
    assert await outcomes([begun[0], begun[2]]) == [[2], [6]]
    assert scope.link.runs == [[0.5], [1, 3]]
    assert scope.version.handles == 0


@pytest.mark.parametrize("x", [None, raw()], ids=["left out", "without rows"])
async def test_predictions_without_rows_run_alone(x):
    def run(rows: np.ndarray) -> np.ndarray:
        return rows * 2

    scope = Scope(run)
    scope.link.predict = lambda key, signature, wanted, inputs, dtypes, on_answer: on_answer([raw()])  # type: ignore[method-assign]
    begun = [scope.begin(x, f"caller-{i}") for i in range(3)]
    await asyncio.sleep(0)
    assert await outcomes(begun) == [[], [], []]
    assert scope.version.handles == 0


async def test_batches_and_single_ones_are_filled_up_to_the_sizes_allowed():
    scope = Scope(double, max_batch_size=0, allowed_batch_sizes=(2, 4))
    begun = await scope.together(raw(1), raw(2), raw(3), raw(4), raw(5))
    assert await outcomes(begun) == [[2], [4], [6], [8], [10]]
    assert scope.link.runs == [[1, 2, 3, 4], [5, 5]]
    (begun,) = await scope.together(raw(1, 2, 3, 4, 5))
    assert await outcome(begun) == [2, 4, 6, 8, 10]
    assert scope.link.runs == [[1, 2, 3, 4, 5]], "what is larger than the largest is as large as it is"


async def test_the_first_few_that_waited_tell_whether_all_may_run_together():
    scope = Scope(double, mode="", max_batch_size=0)
    for start in (1, 11):
        # Two turns of the event loop for each comparison.
        begun = await scope.together(*(raw(start + i) for i in range(4)))
        for _ in range(20):
            await asyncio.sleep(0)
            scope.link.answer_all()
        assert await outcomes(begun) == [[2.0 * (start + i)] for i in range(4)]
    assert scope.batching.state is BatchingState.ON
    statistics = scope.version.statistics
    assert statistics.success_count == 10, "comparisons are not counted"
    assert scope.batching.prediction_count == 10


async def test_the_mean_of_the_batch_turns_it_off():
    scope = Scope(lambda x: x - x.mean(), mode="", max_batch_size=0)
    begun = await scope.together(*(raw(i, i + 1) for i in range(4)))
    for _ in range(20):
        await asyncio.sleep(0)
        scope.link.answer_all()
    assert await outcomes(begun) == [[-0.5, 0.5]] * 4
    assert scope.batching.state is BatchingState.OFF
    assert "other answers" in scope.batching.explanation


async def test_a_comparison_that_cannot_be_made_now_says_nothing():
    scope = Scope(double, mode="", max_batch_size=0)
    begun = await scope.together(*(raw(i) for i in range(3)))
    # Before the comparison begins.
    scope.version.phase = Phase.DRAINING
    for _ in range(20):
        await asyncio.sleep(0)
        scope.link.answer_all()
    assert await outcomes(begun) == [[0], [2], [4]]
    assert scope.batching.state is BatchingState.VERIFYING
    assert scope.version.handles == 0


async def test_predictions_of_two_kinds_are_not_compared_with_one_another():
    scope = Scope(double, mode="", max_batch_size=0)
    runner = runner_of(scope, scope.version, 0)  # type: ignore[arg-type]
    examples = [Example([(0, raw(kind))], [raw(2 * kind)]) for kind in (1, 2, 1, 2)]
    for kind, example in zip((1, 2, 1, 2), examples, strict=True):
        runner.batching.add_example(((0,), ((kind,),)), example, runner.run_alone)
    assert runner.batching.wants_examples, "of no kind there were enough"
