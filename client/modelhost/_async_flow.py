"""What goes out on a stream of predictions: read no faster than it is answered, sent as much at a time as there is."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from ._errors import InvalidRequestError

# What one message holds at most: a message costs much more than a small prediction in it.
_MAX_PREDICTIONS = 64
_MAX_BYTES = 1 << 20


class AsyncFlow:
    """Joins the reader of requests, the sender and the reader of answers, each of which runs by itself.

    Every number is changed by one of them only, so that none needs a lock.
    """

    def __init__(self, in_flight: int) -> None:
        if in_flight < 1:
            raise InvalidRequestError(
                f"in_flight: expected a number greater than 0; got {in_flight}", reason="INVALID_REQUEST"
            )
        self._in_flight = in_flight
        # Room is told of by the quarter: to wake the reader of requests for each would make messages of one.
        self._least_news = -(-in_flight // 4)
        self._sent = 0
        self._answered = 0
        self._told = 0
        self._outgoing: deque[bytes] = deque()
        self._has_room = asyncio.Event()
        self._has_outgoing = asyncio.Event()
        self._ended = False
        self._stopped = False

    # For the reader of requests

    def put(self, request: bytes) -> None:
        """Has a PredictStreamRequest of one prediction sent."""
        self._sent += 1
        self._outgoing.append(request)
        if not self._has_outgoing.is_set():
            self._has_outgoing.set()

    async def room(self) -> bool:
        """Waits until there is room for one more prediction; False when the stream has stopped."""
        while self._sent - self._told >= self._in_flight and not self._stopped:
            self._has_room.clear()
            # It may have been told of just before.
            if self._sent - self._told >= self._in_flight and not self._stopped:
                await self._has_room.wait()
        return not self._stopped

    def end(self) -> None:
        """There are no more requests."""
        self._ended = True
        self._has_outgoing.set()

    # For the sender

    async def messages(self) -> AsyncIterator[bytes]:
        """PredictStreamRequests, until the requests end or the stream stops."""
        while not self._stopped:
            await self._has_outgoing.wait()
            self._has_outgoing.clear()
            # Asked for first, because more may be put while this sends.
            ended = self._ended
            while self._outgoing and not self._stopped:
                yield self._packed()
            if ended:
                return

    def _packed(self) -> bytes:
        packed = [self._outgoing.popleft()]
        size = len(packed[0])
        while self._outgoing and len(packed) < _MAX_PREDICTIONS:
            size += len(self._outgoing[0])
            if size > _MAX_BYTES:
                break
            packed.append(self._outgoing.popleft())
        return b"".join(packed) if len(packed) > 1 else packed[0]

    # For the reader of answers

    @property
    def under_way(self) -> int:
        """Predictions sent and not answered."""
        return self._sent - self._answered

    @property
    def answered(self) -> int:
        """Answers taken."""
        return self._answered

    def taken(self) -> None:
        """One more answer has been taken."""
        self._answered += 1
        if self._answered - self._told >= self._least_news:
            self._told = self._answered
            if not self._has_room.is_set():
                self._has_room.set()

    def stop(self) -> None:
        """Nobody takes answers any more."""
        self._stopped = True
        self._has_room.set()
        self._has_outgoing.set()
