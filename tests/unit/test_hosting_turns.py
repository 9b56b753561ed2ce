"""Loads share their turns; what must be alone is."""

import asyncio

from modelhost_server.hosting.turns import Turns


async def enter(turns: Turns, log: list[str], name: str, alone: bool) -> None:
    async with turns.alone() if alone else turns.shared():
        log.append(f"+{name}")
        await asyncio.sleep(0.01)
        log.append(f"-{name}")


async def test_shared_turns_overlap():
    turns, log = Turns(), []
    await asyncio.gather(*(enter(turns, log, name, alone=False) for name in "ab"))
    assert log[:2] == ["+a", "+b"]


async def test_a_turn_alone_waits_for_those_before_it_and_keeps_later_ones_waiting():
    turns, log = Turns(), []
    await asyncio.gather(
        enter(turns, log, "a", alone=False), enter(turns, log, "b", alone=True), enter(turns, log, "c", alone=False)
    )
    assert log == ["+a", "-a", "+b", "-b", "+c", "-c"]


async def test_who_leaves_the_queue_holds_up_nobody():
    turns, log = Turns(), []
    async with turns.shared():
        waiting = asyncio.create_task(enter(turns, log, "b", alone=True))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(1):
        await enter(turns, log, "c", alone=True)
    assert log == ["+c", "-c"]
