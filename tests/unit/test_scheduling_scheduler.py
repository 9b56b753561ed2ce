"""Scheduler: limits, who makes way, and what never runs; on a real event loop."""

from __future__ import annotations

import asyncio
import sys

import pytest
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.scheduling.scheduler import Scheduler
from support.scheduling import Item, Recorder

SECONDS = 30


async def turn() -> None:
    """Lets the event loop do what has been scheduled."""
    for _ in range(3):
        await asyncio.sleep(0)


async def until(condition) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def submit(scheduler: Scheduler, runner: Recorder, *names: str, **fields: int) -> list[Item]:
    items = [Item(runner, name, **fields) for name in names]
    for item in items:
        scheduler.submit(item)
    return items


def refusal(scheduler: Scheduler, item: Item) -> ModelhostError:
    with pytest.raises(ModelhostError) as raised:
        scheduler.submit(item)
    return raised.value


async def finish_all(scheduler: Scheduler, runner: Recorder, count: int) -> list[str]:
    """Ends what runs, batch by batch, until so many have been started."""
    await turn()
    while len(runner.order) < count or scheduler.in_flight:
        assert scheduler.in_flight, (runner.order, scheduler.queued)
        scheduler.leave()
        await turn()
    return runner.order


async def test_one_alone_runs_at_once():
    scheduler, runner = Scheduler("s", 1, 10), Recorder(most=8)
    submit(scheduler, runner, "a1")
    await turn()
    assert runner.batches == [["a1"]]
    assert (scheduler.in_flight, scheduler.queued) == (1, 0)


async def test_what_arrives_in_one_turn_runs_together():
    scheduler, runner = Scheduler("s", 1, 10), Recorder(most=8)
    submit(scheduler, runner, "a1", "b1", "c1")
    await turn()
    assert runner.batches == [["a1", "b1", "c1"]]
    assert scheduler.in_flight == 1, "a batch is one"


async def test_no_more_than_allowed_run_at_once():
    scheduler, runner = Scheduler("s", 2, 10), Recorder()
    submit(scheduler, runner, "a1", "a2", "a3", "a4")
    await turn()
    assert runner.order == ["a1", "a2"]
    assert scheduler.queued == 2
    scheduler.leave()
    assert runner.order == ["a1", "a2", "a3"]
    assert scheduler.in_flight == 2


async def test_what_waits_is_gathered_while_others_run():
    scheduler, runner = Scheduler("s", 1, 10), Recorder(most=8)
    submit(scheduler, runner, "a1")
    await turn()
    for name in ("b1", "c1", "d1"):
        submit(scheduler, runner, name)
        await turn()
    scheduler.leave()
    assert runner.batches == [["a1"], ["b1", "c1", "d1"]]


@pytest.mark.parametrize("spread", [True, False], ids=["in several turns", "in one turn"])
async def test_one_more_than_may_wait_is_refused_at_once(spread):
    scheduler, runner = Scheduler("s", 1, 2), Recorder()
    for name in ("a1", "b1", "c1"):
        submit(scheduler, runner, name)
        if spread:
            await turn()
    error = refusal(scheduler, Item(runner, "d1"))
    assert error.reason is Reason.QUEUE_FULL
    assert error.retry_after
    assert "max_queue" in error.message
    assert scheduler.rejected_count == 1
    assert await finish_all(scheduler, runner, 3) == ["a1", "b1", "c1"]


async def test_nothing_waits_where_nothing_may():
    scheduler, runner = Scheduler("s", 1, 0), Recorder()
    submit(scheduler, runner, "a1")
    refusal(scheduler, Item(runner, "b1"))
    await turn()
    refusal(scheduler, Item(runner, "b2"))
    scheduler.leave()
    submit(scheduler, runner, "b3")
    await turn()
    assert runner.order == ["a1", "b3"]


@pytest.mark.parametrize("spread", [True, False], ids=["in several turns", "in one turn"])
async def test_a_caller_with_more_than_its_share_makes_way(spread):
    scheduler, runner = Scheduler("s", 1, 4), Recorder()
    flood = submit(scheduler, runner, *(f"a{i}" for i in range(5)))
    if spread:
        await turn()
    other = submit(scheduler, runner, "b1", "b2")
    assert [item.name for item in flood if item.error] == ["a3", "a4"], "the newest first"
    assert all(item.error.reason is Reason.QUEUE_FULL for item in flood if item.error)
    # Now both have the same: neither makes way for the other.
    assert refusal(scheduler, Item(runner, "b3")).reason is Reason.QUEUE_FULL
    assert refusal(scheduler, Item(runner, "a5")).reason is Reason.QUEUE_FULL
    assert not any(item.error for item in other)
    assert scheduler.queued == (4 if spread else 5)
    order = await finish_all(scheduler, runner, 5)
    assert sorted(order) == ["a0", "a1", "a2", "b1", "b2"]
    assert scheduler.rejected_count == 4


async def test_nobody_makes_way_for_a_lower_priority():
    scheduler, runner = Scheduler("s", 1, 2), Recorder()
    submit(scheduler, runner, "a1", "a2", "a3", priority=1)
    await turn()
    refusal(scheduler, Item(runner, "b1", priority=0))
    submit(scheduler, runner, "b2", priority=2)
    assert (await finish_all(scheduler, runner, 3))[-2:] == ["b2", "a2"]


async def test_a_version_has_its_own_limit_and_others_do_not_count_for_it():
    scheduler = Scheduler("s", 1, 100)
    small, other = Recorder(1, max_queue=2), Recorder(2)
    # All in one turn of the event loop, too.
    submit(scheduler, other, *(f"a{i}" for i in range(20)))
    submit(scheduler, small, "b1", "b2", "b3")
    error = refusal(scheduler, Item(small, "c1"))
    assert "batching.max_queue" in error.message
    await turn()
    assert "batching.max_queue" in refusal(scheduler, Item(small, "c2")).message
    submit(scheduler, other, "c3")
    assert scheduler.rejected_count == 2


async def test_priorities_come_first():
    scheduler, runner = Scheduler("s", 1, 10), Recorder()
    submit(scheduler, runner, "x1")
    await turn()
    for name, priority in (("a1", 0), ("b1", 5), ("c1", -5), ("d1", 5)):
        submit(scheduler, runner, name, priority=priority)
    assert await finish_all(scheduler, runner, 5) == ["x1", "b1", "d1", "a1", "c1"]


async def test_what_is_withdrawn_never_runs():
    scheduler, runner = Scheduler("s", 1, 10), Recorder()
    (first,) = submit(scheduler, runner, "a1")
    assert scheduler.withdraw(first), "in the very turn in which it came"
    assert not scheduler.withdraw(first)
    (running,) = submit(scheduler, runner, "a2")
    await turn()
    assert not scheduler.withdraw(running)
    waiting = submit(scheduler, runner, "a3", "b1", "a4")
    await turn()
    assert scheduler.withdraw(waiting[0])
    assert not scheduler.withdraw(waiting[0])
    assert scheduler.queued == 2
    assert await finish_all(scheduler, runner, 3) == ["a2", "a4", "b1"]
    assert (scheduler.queued, scheduler.in_flight) == (0, 0)


async def test_a_withdrawn_one_makes_room():
    scheduler, runner = Scheduler("s", 1, 1), Recorder()
    _, waiting = submit(scheduler, runner, "a1", "b1")
    await turn()
    refusal(scheduler, Item(runner, "c1"))
    scheduler.withdraw(waiting)
    submit(scheduler, runner, "c2")
    assert await finish_all(scheduler, runner, 2) == ["a1", "c2"]


async def test_what_waits_too_long_is_refused_and_never_runs():
    scheduler, runner = Scheduler("s", 1, 10), Recorder(queue_timeout=0.01)
    _, waiting = submit(scheduler, runner, "a1", "b1")
    await until(lambda: waiting.error)
    assert waiting.error.reason is Reason.QUEUE_FULL
    assert waiting.error.retry_after
    assert "queue_timeout" in waiting.error.message
    assert scheduler.rejected_count == 1
    assert await finish_all(scheduler, runner, 1) == ["a1"]


async def test_what_runs_is_not_refused_when_the_time_to_wait_is_over():
    scheduler, runner = Scheduler("s", 1, 10), Recorder(queue_timeout=0.01)
    items = submit(scheduler, runner, "a1", "b1")
    await turn()
    scheduler.leave()
    await asyncio.sleep(0.03)
    assert not any(item.error for item in items)
    assert scheduler.rejected_count == 0


async def test_nothing_refers_to_what_has_run_though_it_might_have_waited_for_an_hour():
    scheduler, runner = Scheduler("s", 1, 10), Recorder(queue_timeout=3600)
    items = submit(scheduler, runner, "a1", "b1", "c1")
    await turn()
    for item in items[1:]:
        before = sys.getrefcount(item)
        scheduler.leave()
        # The lines' dictionaries of waiting ones, the timer's arguments; what is left are this test's.
        assert sys.getrefcount(item) < before
        assert item.timer is None or item.timer.cancelled()


async def test_a_batch_waits_for_others_until_its_delay_is_over():
    scheduler, runner = Scheduler("s", 1, 10), Recorder(most=4, max_delay=0.02)
    submit(scheduler, runner, "a1")
    await turn()
    submit(scheduler, runner, "b1")
    await turn()
    assert runner.batches == []
    await until(lambda: runner.batches)
    assert runner.batches == [["a1", "b1"]]


async def test_a_full_batch_does_not_wait():
    scheduler, runner = Scheduler("s", 1, 10), Recorder(most=3, max_delay=3600)
    for name in ("a1", "b1", "c1", "d1"):
        submit(scheduler, runner, name)
        await turn()
    assert runner.batches == [["a1", "b1", "c1"]]
    assert scheduler.queued == 1


async def test_the_oldest_decides_when_a_delay_is_over_whatever_the_model():
    scheduler = Scheduler("s", 4, 10)
    patient, quick = Recorder(1, most=4, max_delay=3600), Recorder(2, most=4, max_delay=0.02)
    submit(scheduler, patient, "a1")
    await turn()
    submit(scheduler, quick, "b1")
    await until(lambda: quick.batches)
    assert patient.batches == []


async def test_one_that_waits_for_others_can_be_withdrawn():
    scheduler, runner = Scheduler("s", 1, 10), Recorder(most=4, max_delay=0.5)
    (item,) = submit(scheduler, runner, "a1")
    await turn()
    assert scheduler.withdraw(item)
    await asyncio.sleep(0.55)
    assert runner.batches == []
    submit(scheduler, runner, "b1")
    await until(lambda: runner.batches == [["b1"]])


async def test_one_that_is_run_again_is_never_refused():
    scheduler, runner = Scheduler("s", 1, 0), Recorder()
    (item,) = submit(scheduler, runner, "a1")
    await turn()
    scheduler.leave()
    scheduler.submit_first(item)
    assert runner.order == ["a1", "a1"]
    assert scheduler.in_flight == 1


async def test_larger_limits_take_effect_at_once():
    scheduler, runner = Scheduler("s", 1, 2), Recorder()
    submit(scheduler, runner, "a1", "b1", "c1")
    await turn()
    refusal(scheduler, Item(runner, "d1"))
    scheduler.resize(2, 5)
    assert runner.order == ["a1", "b1"]
    submit(scheduler, runner, "d2", "e1")
    await turn()
    assert scheduler.queued == 3


async def test_smaller_limits_let_run_what_runs():
    scheduler, runner = Scheduler("s", 3, 10), Recorder()
    submit(scheduler, runner, "a1", "b1", "c1", "d1")
    await turn()
    scheduler.resize(1, 10)
    scheduler.leave()
    scheduler.leave()
    assert runner.order == ["a1", "b1", "c1"]
    scheduler.leave()
    assert runner.order == ["a1", "b1", "c1", "d1"]


async def test_thousands_that_fail_at_once_do_not_nest():
    # As when there is no worker: each ends while it is being started.
    scheduler = Scheduler("s", 1, 100_000)
    failing = Recorder(on_start=lambda runner: scheduler.leave())
    first = Recorder(2)
    submit(scheduler, first, "x")
    await turn()
    submit(scheduler, failing, *(f"a{i}" for i in range(20_000)))
    await turn()
    assert scheduler.queued == 20_000
    scheduler.leave()
    assert len(failing.order) == 20_000
    assert (scheduler.queued, scheduler.in_flight) == (0, 0)


async def test_a_flood_of_one_caller_delays_another_by_one_turn():
    scheduler, runner = Scheduler("s", 1, 1000), Recorder()
    submit(scheduler, runner, *(f"a{i}" for i in range(200)))
    await turn()
    submit(scheduler, runner, "b1")
    await turn()
    order = await finish_all(scheduler, runner, 201)
    assert order.index("b1") <= 2
