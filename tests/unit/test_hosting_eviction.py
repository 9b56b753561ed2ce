"""Which versions are evicted: decided by a pure function, so tried on many."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelhost_server.hosting.eviction import Held, Obstacle, Refusal, choose, protection

NOW = 100.0


def held(key: int, size: int, last_used: float = 0.0, in_use: bool = False, protected_until: float = 0.0) -> Held:
    return Held(key, size, last_used, in_use, protected_until)


def keys(chosen: list[Held] | Refusal) -> list[int]:
    assert isinstance(chosen, list)
    return [one.key for one in chosen]


def test_what_was_used_last_stays() -> None:
    assert keys(choose(15, [held(1, 10, 3.0), held(2, 10, 1.0), held(3, 10, 2.0)], NOW)) == [2, 3]


def test_small_ones_stay_when_a_large_one_has_to_go_anyway() -> None:
    assert keys(choose(90, [held(1, 5, 1.0), held(2, 5, 2.0), held(3, 90, 3.0)], NOW)) == [3]


def test_what_is_in_use_or_protected_stays_however_old() -> None:
    there = [held(1, 10, 1.0, in_use=True), held(2, 10, 2.0, protected_until=NOW + 1), held(3, 10, 3.0)]
    assert keys(choose(10, there, NOW)) == [3]
    assert choose(11, there, NOW) == Refusal(Obstacle.PROTECTED, NOW + 1)
    assert choose(21, there, NOW) == Refusal(Obstacle.IN_USE)
    assert choose(31, there, NOW) == Refusal(Obstacle.TOO_LITTLE)


def test_a_refusal_tells_when_enough_of_the_protections_have_ended() -> None:
    there = [held(n, 10, 0.0, protected_until=NOW + n) for n in (3, 1, 2)]
    assert choose(10, there, NOW) == Refusal(Obstacle.PROTECTED, NOW + 1)
    assert choose(20, there, NOW) == Refusal(Obstacle.PROTECTED, NOW + 2)


@pytest.mark.parametrize("seconds", [0.0, 0.01, 1.0, 30.0])
def test_at_most_a_fifth_of_the_time_goes_into_loading(seconds: float) -> None:
    assert seconds <= (seconds + protection(seconds)) / 5


versions = st.lists(
    st.builds(
        Held, st.integers(), st.integers(1, 100), st.floats(0, 99), st.booleans(), st.sampled_from([0.0, 99.0, 101.0])
    ),
    max_size=7,
)


@given(st.integers(1, 300), versions)
def test_enough_is_chosen_and_nothing_that_could_stay(missing: int, there: list[Held]) -> None:
    chosen = choose(missing, there, NOW)
    free = [one for one in there if not one.in_use and one.protected_until <= NOW]
    if isinstance(chosen, Refusal):
        assert sum(one.size for one in free) < missing
        assert (chosen.obstacle is Obstacle.TOO_LITTLE) == (sum(one.size for one in there) < missing)
        return
    assert all(any(one is other for other in free) for one in chosen)
    assert sum(one.size for one in chosen) >= missing
    assert not any(sum(one.size for one in some) >= missing for some in itertools.combinations(chosen, len(chosen) - 1))
    # Nobody went who was used later than all that stayed and would have been enough in the place.
    stayed = [one for one in free if not any(one is other for other in chosen)]
    oldest = max((one.last_used for one in chosen), default=0.0)
    assert sum(one.size for one in stayed if one.last_used < oldest) < missing
