"""What an idle server gives back."""

import asyncio

import pytest
from modelhost_server.hosting import upkeep

MB = 1 << 20


class Process:
    """A server's memory, some of it free, and the predictions asked for."""

    def __init__(self) -> None:
        self.held = 100 * MB
        self.free = 0
        self.predictions = 0
        self.given = 0
        self.looks: asyncio.Queue[None] = asyncio.Queue()

    def resident(self) -> dict[str, int]:
        self.looks.put_nowait(None)
        return {"anonymous": self.held}

    def give_back(self) -> None:
        self.given += 1
        self.held -= self.free
        self.free = 0

    def take(self, count: int, free: int) -> None:
        self.held += count
        self.free += free

    async def idle(self) -> None:
        """Until it has been looked at in several rounds, however long that takes: two or three looks each."""
        for _ in range(self.looks.qsize() + 10):
            await self.looks.get()


@pytest.fixture
async def process(monkeypatch):
    process = Process()
    monkeypatch.setattr(upkeep, "_IDLE_SECONDS", 0.01)
    monkeypatch.setattr(upkeep, "resident", process.resident)
    monkeypatch.setattr(upkeep, "give_back", process.give_back)
    task = asyncio.create_task(upkeep.give_back_when_idle(lambda: process.predictions))
    await process.idle()
    yield process
    task.cancel()


async def test_nothing_is_given_back_by_a_server_that_was_asked_for_nothing(process):
    process.take(5 * MB, free=5 * MB)
    await process.idle()
    assert process.given == 0


async def test_predictions_leave_something_once(process):
    process.predictions += 1
    await process.idle()
    await process.idle()
    assert process.given == 1


async def test_what_floods_of_other_calls_leave_is_given_back_each_time(process):
    for number in range(1, 4):
        process.take(9 * MB, free=9 * MB)
        await process.idle()
        assert (process.given, process.held) == (number, 100 * MB)


async def test_a_server_that_has_grown_for_good_does_not_try_for_ever(process):
    process.take(50 * MB, free=0)
    await process.idle()
    process.take(5 * MB, free=5 * MB)
    await process.idle()
    assert (process.given, process.held) == (1, 155 * MB)
