"""Streams of messages over a link, bounded: who sends waits until what was sent before has been taken."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

# What may be under way in one direction of one stream; a message that is larger goes alone.
_WINDOW_BYTES = 1 << 20
# Taking is told in lumps, so that not every small message costs another.
_TELL_BYTES = _WINDOW_BYTES // 4


class Outflow:
    """The sender's end."""

    def __init__(self) -> None:
        self._under_way = 0
        self._room = asyncio.Event()
        self._room.set()

    async def take(self, size: int) -> None:
        """Waits until a message of that size may be sent."""
        await self._room.wait()
        self._under_way += size
        if self._under_way >= _WINDOW_BYTES:
            self._room.clear()

    def credit(self, size: int) -> None:
        """The other end has taken so many bytes."""
        self._under_way -= size
        if self._under_way < _WINDOW_BYTES:
            self._room.set()


class Inflow:
    """The receiver's end: an iterator of the messages, for one reader.

    Args:
        credit: tells the other end that so many bytes have been taken.
    """

    def __init__(self, credit: Callable[[int], None]) -> None:
        self._credit = credit
        self._messages: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._taken = 0
        self._ended = False
        self._error: Exception | None = None

    def put(self, message: bytes) -> None:
        """A message has come."""
        self._messages.append(message)
        self._news.set()

    def end(self, error: Exception | None = None) -> None:
        """No more will come; the reader gets those that are there, then the error, if there is one."""
        self._ended = True
        self._error = error
        self._news.set()

    @property
    def ended(self) -> bool:
        """Whether the end has come."""
        return self._ended

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._messages:
            if self._ended:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        message = self._messages.popleft()
        self._taken += len(message)
        if self._taken >= _TELL_BYTES:
            self._credit(self._taken)
            self._taken = 0
        return message
