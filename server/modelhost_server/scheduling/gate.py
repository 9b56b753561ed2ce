"""The gate before a scope's workers: a bounded number of predictions run, a bounded number wait, first come first
served. A prediction that is cancelled while it waits (its deadline passed, its caller left) is never run.
"""

from __future__ import annotations

import asyncio
from collections import deque

from ..errors import ModelhostError, Reason

# What a caller who was refused is told to wait before the next try.
_RETRY_SECONDS = 0.1


class Gate:
    """Admits predictions of one scope. All methods are called on the event loop."""

    def __init__(self, scope: str, max_in_flight: int, max_queue: int) -> None:
        self._scope = scope
        self.max_in_flight = max_in_flight
        self.max_queue = max_queue
        self.in_flight = 0
        self.rejected_count = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def queued(self) -> int:
        """Predictions that wait."""
        return sum(not waiter.done() for waiter in self._waiting)

    def try_enter(self) -> bool:
        """Enters when there is room and nobody waits: the way without an await."""
        if self.in_flight < self.max_in_flight and not self._waiting:
            self.in_flight += 1
            return True
        return False

    async def enter(self) -> None:
        """Waits for a turn.

        Raises:
            ModelhostError: QUEUE_FULL, at once.
        """
        if self.try_enter():
            return
        if len(self._waiting) >= self.max_queue and self.queued >= self.max_queue:
            self.rejected_count += 1
            raise ModelhostError(
                Reason.QUEUE_FULL,
                f"scope '{self._scope}': {self.max_queue} predictions wait already (max_queue); try again later",
                retry_after=_RETRY_SECONDS,
                max_queue=self.max_queue,
            )
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            # The turn may have come in the same moment; it is the next one's then.
            if waiter.done() and not waiter.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Gives a turn back."""
        self.in_flight -= 1
        self._admit()

    def resize(self, max_in_flight: int, max_queue: int) -> None:
        """Takes new limits."""
        self.max_in_flight, self.max_queue = max_in_flight, max_queue
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self.in_flight < self.max_in_flight:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self.in_flight += 1
                waiter.set_result(None)
