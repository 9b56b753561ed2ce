"""Lines: whose turn it is among priorities, models, groups and callers."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from modelhost_server.scheduling.lines import Lines
from support.scheduling import Item, Recorder


def fill(runner: Recorder, *names: str, into: Lines | None = None, **fields: int) -> Lines:
    """Predictions of these names; the first letter is the caller's name."""
    lines = into if into is not None else Lines()
    for name in names:
        lines.add(Item(runner, name, **fields))
    return lines


def taken(lines: Lines, now: float = 0.0) -> list[list[str]]:
    """All batches, by the names in them."""
    batches = []
    while batch := lines.take(now):
        batches.append([item.name for item in batch])
    return batches


def test_what_one_caller_sent_runs_in_the_order_it_came():
    assert taken(fill(Recorder(), "a1", "a2", "a3")) == [["a1"], ["a2"], ["a3"]]


def test_callers_take_turns():
    lines = fill(Recorder(), "a1", "a2", "a3", "a4", "b1", "b2", "c1")
    assert taken(lines) == [["a1"], ["b1"], ["c1"], ["a2"], ["b2"], ["a3"], ["a4"]]


def test_callers_take_turns_within_batches_and_from_one_to_the_next():
    lines = fill(Recorder(most=4), "a1", "a2", "a3", "a4", "a5", "b1", "c1", "c2")
    assert taken(lines) == [["a1", "b1", "c1", "a2"], ["c2", "a3", "a4", "a5"]]


def test_models_take_turns_however_much_waits_for_one():
    busy, quiet = Recorder(1, most=2), Recorder(2, most=2)
    lines = fill(busy, *(f"a{i}" for i in range(6)))
    fill(quiet, "b1", "b2", "b3", into=lines)
    assert taken(lines) == [["a0", "a1"], ["b1", "b2"], ["a2", "a3"], ["b3"], ["a4", "a5"]]


def test_groups_of_a_model_take_turns_and_never_mix():
    by_digit = Recorder(most=8, kind=lambda name: name[-1])
    lines = fill(by_digit, "a1", "b1", "a2", "c1", "b2")
    assert taken(lines) == [["a1", "b1", "c1"], ["a2", "b2"]]


def test_what_has_no_group_runs_alone():
    alone = Recorder(most=8, kind=lambda name: None)
    assert taken(fill(alone, "a1", "b1", "a2")) == [["a1"], ["b1"], ["a2"]]


def test_two_signatures_of_a_version_never_mix():
    one, other = Recorder(1, most=8), Recorder(1, most=8)
    lines = fill(one, "a1", "a2")
    fill(other, "b1", "b2", into=lines)
    assert taken(lines) == [["a1", "a2"], ["b1", "b2"]]


def test_higher_priorities_come_first_and_never_mix_with_lower_ones():
    runner = Recorder(most=8)
    lines = fill(runner, "a1", "a2")
    fill(runner, "b1", into=lines, priority=-1)
    fill(runner, "c1", "c2", into=lines, priority=7)
    assert taken(lines) == [["c1", "c2"], ["a1", "a2"], ["b1"]]


def test_a_batch_has_no_more_rows_than_allowed():
    lines = fill(Recorder(most=99, max_rows=10), "a1", "b1", "c1", "a2", rows=4)
    assert taken(lines) == [["a1", "b1"], ["c1", "a2"]]


def test_one_that_has_no_room_left_begins_the_next_batch():
    runner, lines = Recorder(most=99, max_rows=10), Lines()
    for number in range(3):
        fill(runner, f"a{number}", f"b{number}", into=lines, rows=3)
    fill(runner, "c0", into=lines, rows=8)
    assert taken(lines) == [["a0", "b0"], ["c0"], ["a1", "b1", "a2"], ["b2"]]


def test_one_that_has_too_many_rows_itself_runs_alone():
    runner = Recorder(most=99, max_rows=10)
    lines = fill(runner, "a1", rows=1)
    fill(runner, "b1", into=lines, rows=11)
    fill(runner, "c1", into=lines, rows=1)
    assert sorted(map(sorted, taken(lines))) == [["a1"], ["b1"], ["c1"]]


def test_what_was_taken_out_does_not_run():
    lines, runner = Lines(), Recorder(most=8)
    items = [Item(runner, name) for name in ("a1", "a2", "b1")]
    for item in items:
        lines.add(item)
    lines.discard(items[0])
    assert len(lines) == 2
    assert taken(lines) == [["a2", "b1"]]
    assert len(lines) == 0


def test_a_batch_that_waits_for_more_lets_others_go_before_it():
    patient, quick = Recorder(1, most=4, max_delay=5.0), Recorder(2)
    lines = Lines()
    for since, name in ((100.0, "a1"), (101.0, "b1")):
        item = Item(patient, name)
        item.since = since
        lines.add(item)
    fill(quick, "c1", into=lines, priority=-1)
    assert taken(lines, now=104.9) == [["c1"]]
    assert lines.ready_at() == 105.0, "as the oldest one says"
    assert taken(lines, now=105.0) == [["a1", "b1"]]


def test_a_full_batch_waits_no_longer():
    patient = Recorder(most=2, max_delay=5.0)
    lines = fill(patient, "a1")
    assert lines.ready_at() == 5.0
    fill(patient, "b1", into=lines)
    assert lines.ready_at() == 0.0
    assert taken(lines, now=0.0) == [["a1", "b1"]]


def test_nothing_waits_for_others_that_runs_alone():
    lines = fill(Recorder(max_delay=5.0, kind=lambda name: None), "a1")
    assert taken(lines, now=0.0) == [["a1"]]


plans = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from("abcd"), st.integers(-1, 1), st.integers(1, 5), st.booleans()),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(plans, st.integers(1, 6), st.integers(1, 12), st.integers(0, 9))
def test_everything_runs_once_and_in_its_callers_order_or_was_taken_out(plan, most, max_rows, seed):
    runners = [Recorder(key, most=most, max_rows=max_rows) for key in range(4)]
    lines, items = Lines(), []
    for number, (key, caller, priority, rows, _) in enumerate(plan):
        items.append(Item(runners[key], f"{caller}{number}", priority=priority, rows=rows))
        lines.add(items[-1])
    kept = [item for item, (*_, leaves) in zip(items, plan, strict=True) if not leaves]
    leaving = [item for item in items if item not in kept]
    random.Random(seed).shuffle(leaving)
    for item in leaving:
        lines.discard(item)
    assert len(lines) == len(kept)
    ran = []
    while batch := lines.take(0.0):
        assert len({(item.runner, item.priority) for item in batch}) == 1
        assert len(batch) <= most
        assert len(batch) == 1 or sum(item.rows for item in batch) <= max_rows
        ran.extend(batch)
    assert len(lines) == 0
    assert set(ran) == set(kept)
    assert len(ran) == len(kept)
    assert [item.priority for item in ran] == sorted((item.priority for item in ran), reverse=True)
    for caller in "abcd":
        for runner in runners:
            for priority in (-1, 0, 1):
                theirs = [i for i in ran if (i.caller, i.runner, i.priority) == (caller, runner, priority)]
                assert theirs == [i for i in kept if i in theirs]
