"""Which versions are to be hosted, and which are to go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelhost_server.repositories.policy import All, Latest, Specific, VersionPolicy, chosen, retry_delay, to_retire
from modelhost_server.store.phases import Phase

NUMBERS = st.sets(st.integers(1, 20), max_size=6)
PHASES = st.dictionaries(st.integers(1, 8), st.sampled_from(Phase), max_size=5)


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        (Latest(), {10}),
        (Latest(0), {10}),
        (Latest(2), {9, 10}),
        (Latest(9), {2, 9, 10}),
        (All(), {2, 9, 10}),
        (Specific(frozenset({2, 3})), {2}),
        (Specific(frozenset()), set()),
    ],
)
def test_a_policy_chooses_by_number(policy: VersionPolicy, wanted: set[int]) -> None:
    assert chosen(policy, [9, 2, 10]) == wanted


@given(NUMBERS, st.integers(1, 5))
def test_the_latest_are_the_highest(found: set[int], count: int) -> None:
    latest = chosen(Latest(count), found)
    assert len(latest) == min(count, len(found))
    assert all(number <= min(latest) for number in found - latest)


@pytest.mark.parametrize(
    ("wanted", "retired"),
    [
        ({2: None}, set()),
        ({2: Phase.LOADING}, set()),
        ({2: Phase.FAILED}, set()),
        ({2: Phase.AVAILABLE}, {1}),
        ({2: Phase.AVAILABLE, 3: Phase.LOADING}, set()),
        ({2: Phase.AVAILABLE, 3: Phase.FAILED}, {1}),
    ],
)
def test_what_serves_goes_when_its_successor_serves(wanted: dict[int, Phase | None], retired: set[int]) -> None:
    assert to_retire({1: Phase.AVAILABLE}, wanted, at_once=False) == retired


@given(PHASES, PHASES)
def test_what_is_wanted_is_never_retired(hosted: dict[int, Phase], wanted: dict[int, Phase | None]) -> None:
    for at_once in (False, True):
        assert not to_retire(hosted, wanted, at_once) & wanted.keys()
    assert to_retire(hosted, wanted, at_once=True) == hosted.keys() - wanted.keys()


def test_what_failed_is_in_nobodys_way() -> None:
    assert to_retire({1: Phase.AVAILABLE, 2: Phase.FAILED}, {3: Phase.LOADING}, at_once=False) == {2}


def test_tries_become_rarer() -> None:
    assert [retry_delay(failures) for failures in (1, 2, 3, 9, 10, 1000)] == [1, 2, 4, 256, 300, 300]
