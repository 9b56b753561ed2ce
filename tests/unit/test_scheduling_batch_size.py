"""BatchSize finds the number of predictions with which most is answered, whatever batches cost."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from modelhost_server.scheduling.batch_size import BatchSize

Cost = Callable[[int], float]


def learn(size: BatchSize, cost: Cost, waiting: int = 1000, batches: int = 500) -> int:
    """The size after so many batches that cost so many nanoseconds."""
    for _ in range(batches):
        count = size.choose(waiting)
        size.note(count, int(cost(count)))
    return size.size


def fixed_and_linear(count: int) -> float:
    return 100_000 + 1_000 * count


@pytest.mark.parametrize("most", [1, 2, 7, 64, 100, 128])
def test_a_fixed_cost_makes_it_as_large_as_allowed_and_never_larger(most):
    size, chosen = BatchSize(most), set()
    for _ in range(500):
        chosen.add(size.choose(1000))
        size.note(size.choose(1000), int(fixed_and_linear(size.choose(1000))))
    assert max(chosen) == size.size == 1 << (most.bit_length() - 1)


def test_it_stops_where_doubling_gains_less_than_a_twentieth():
    # Sixteen take 170 µs, twice eight 180; thirty-two take 330, twice sixteen 340.
    assert learn(BatchSize(1024), lambda n: 10_000 + 10_000 * n) == 16


def test_where_nothing_is_gained_predictions_run_one_by_one():
    assert learn(BatchSize(128), lambda n: 10_000 * n) == 1


def test_where_batches_are_dearer_predictions_run_one_by_one():
    assert learn(BatchSize(128), lambda n: 10_000 * n**1.5) == 1


def test_it_goes_back_when_larger_ones_stop_to_pay():
    size = BatchSize(128)
    assert learn(size, fixed_and_linear) == 128
    # Small batches are seen whenever few wait.
    cost: Cost = lambda n: 10_000 * n  # noqa: E731
    for waiting in (1, 2, 4, 8, 16, 32, 64, 128) * 200:
        count = size.choose(waiting)
        size.note(count, int(cost(count)))
    assert size.size == 1


def test_it_tries_again_after_a_while():
    size = BatchSize(128)
    assert learn(size, lambda n: 10_000 * n) == 1
    assert learn(size, fixed_and_linear, batches=10_000) == 128


def test_no_more_than_wait_are_chosen_and_always_a_power_of_two():
    size = BatchSize(128)
    learn(size, fixed_and_linear)
    assert [size.choose(n) for n in (1, 2, 3, 4, 5, 63, 64, 127, 128, 129)] == [1, 2, 2, 4, 4, 32, 64, 64, 128, 128]


def test_noise_leads_it_astray_by_one_step_at_most():
    noise = random.Random(7)
    for _ in range(20):
        noisy = learn(BatchSize(64), lambda n: fixed_and_linear(n) * noise.uniform(0.9, 1.1), batches=3000)
        assert noisy >= 32


def test_the_first_execution_of_a_size_does_not_count():
    size, seen = BatchSize(64), set()
    for _ in range(200):
        count = size.choose(1000)
        size.note(count, int(fixed_and_linear(count) if count in seen else 1e9))
        seen.add(count)
    assert size.size == 64


def test_a_limit_holds():
    size = BatchSize(128)
    size.limit(4)
    assert learn(size, fixed_and_linear) == 4


def test_a_size_that_found_no_memory_is_left_for_a_while():
    size = BatchSize(128)
    assert learn(size, fixed_and_linear) == 128
    size.note_too_large(128)
    assert size.choose(1000) == 64
    size.note_too_large(16)
    assert {size.choose(1000)} == {learn(size, fixed_and_linear, batches=500)} == {8}
    assert learn(size, fixed_and_linear, batches=10_000) == 128


def test_one_prediction_is_never_too_many():
    size = BatchSize(128)
    size.note_too_large(1)
    assert size.choose(1000) == 1


def test_odd_batches_say_nothing():
    size = BatchSize(128)
    for _ in range(100):
        size.note(3, 1)
    assert size.size == 1
