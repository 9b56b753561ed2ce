"""Decides what a scope's workers run next: so many batches at a time, while so many predictions wait.

A prediction that is withdrawn while it waits (its deadline passed, its caller left) is never run.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from ..errors import ModelhostError, Reason
from .lines import Lines, Waiting

# What a caller who was refused is told to wait before the next try.
_RETRY_SECONDS = 0.1
_ABSENT = object()


class Scheduler:
    """Schedules the predictions of one scope. All methods are called on the event loop."""

    def __init__(self, scope: str, max_in_flight: int, max_queue: int) -> None:
        self._scope = scope
        self.max_in_flight = max_in_flight
        self.max_queue = max_queue
        self.in_flight = 0
        self.rejected_count = 0
        self._lines = Lines()
        # In this turn of the event loop.
        self._arrived: dict[Waiting, None] = {}
        # All that each caller has waiting, oldest first.
        self._by_caller: dict[str, dict[Waiting, None]] = {}
        self._by_version: Counter[int] = Counter()
        self._dispatching = False
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def queued(self) -> int:
        """Predictions that wait."""
        return len(self._lines) + len(self._arrived)

    def submit(self, waiting: Waiting) -> None:
        """Runs a prediction, when nothing is before it together with what else arrives in this turn of the event loop.

        Raises:
            ModelhostError: QUEUE_FULL, at once.
        """
        free = max(0, self.max_in_flight - self.in_flight)
        if self.queued - free >= self.max_queue or waiting.runner.max_queue:
            self._line_up()
            self._make_room(waiting, free)
        self._arrived[waiting] = None
        if len(self._arrived) == 1:
            asyncio.get_running_loop().call_soon(self._arrive)

    def _arrive(self) -> None:
        if len(self._arrived) == 1 and not self._lines and self.in_flight < self.max_in_flight:
            (waiting,) = self._arrived
            if not waiting.runner.max_delay:
                self._arrived = {}
                self.in_flight += 1
                waiting.runner.start((waiting,))
                return
        self._line_up()
        self._dispatch()

    def _line_up(self) -> None:
        """Puts what has arrived into the lines, where it is counted by callers and versions."""
        arrived, self._arrived = self._arrived, {}
        loop = asyncio.get_running_loop()
        for waiting in arrived:
            waiting.since = loop.time()
            if waiting.runner.queue_timeout:
                waiting.timer = loop.call_later(waiting.runner.queue_timeout, self._time_out, waiting)
            self._lines.add(waiting)
            self._by_caller.setdefault(waiting.caller, {})[waiting] = None
            self._by_version[waiting.runner.key] += 1

    def submit_first(self, waiting: Waiting) -> None:
        """Runs a prediction again that was run before: it is not refused, and keeps the lane that it had."""
        self.in_flight += 1
        waiting.runner.start((waiting,))

    def withdraw(self, waiting: Waiting) -> bool:
        """Takes out a prediction; False if it does not wait (any longer)."""
        if waiting.line is None:
            return self._arrived.pop(waiting, _ABSENT) is not _ABSENT
        self._lines.discard(waiting)
        self._uncount(waiting)
        return True

    def leave(self) -> None:
        """A batch has been run."""
        self.in_flight -= 1
        self._dispatch()

    def resize(self, max_in_flight: int, max_queue: int) -> None:
        """Takes new limits."""
        self.max_in_flight, self.max_queue = max_in_flight, max_queue
        self._dispatch()

    def _dispatch(self) -> None:
        # What is started may end at once, and come back here.
        if self._dispatching:
            return
        self._dispatching = True
        try:
            while self._lines and self.in_flight < self.max_in_flight:
                batch = self._lines.take(asyncio.get_running_loop().time())
                if not batch:
                    self._wait_for_more()
                    break
                for waiting in batch:
                    self._uncount(waiting)
                self.in_flight += 1
                batch[0].runner.start(batch)
        finally:
            self._dispatching = False

    def _wait_for_more(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_at(self._lines.ready_at(), self._dispatch)

    def _uncount(self, waiting: Waiting) -> None:
        if waiting.timer is not None:
            waiting.timer.cancel()
        theirs, key = self._by_caller[waiting.caller], waiting.runner.key
        del theirs[waiting]
        if not theirs:
            del self._by_caller[waiting.caller]
        self._by_version[key] -= 1
        if not self._by_version[key]:
            del self._by_version[key]

    # Refusing

    def _make_room(self, waiting: Waiting, free: int) -> None:
        """Raises ModelhostError, QUEUE_FULL, unless there is room, or another caller takes up more than its share."""
        limit = waiting.runner.max_queue
        if limit and self._by_version[waiting.runner.key] - free >= limit:
            self.rejected_count += 1
            raise self._full(f"{limit} predictions of this version wait already (batching.max_queue)", limit)
        if self.queued - free < self.max_queue:
            return
        self.rejected_count += 1
        full = self._full(f"{self.max_queue} predictions wait already (max_queue)", self.max_queue)
        if not self._by_caller:
            raise full
        most = max(self._by_caller.values(), key=len)
        newest = next(reversed(most))
        # Two more, or it would go back and forth between them.
        if len(most) < len(self._by_caller.get(waiting.caller, ())) + 2 or newest.priority > waiting.priority:
            raise full
        self.withdraw(newest)
        newest.refuse(full)

    def _full(self, text: str, limit: int) -> ModelhostError:
        return ModelhostError(
            Reason.QUEUE_FULL, f"scope '{self._scope}': {text}; try again later",
            retry_after=_RETRY_SECONDS, max_queue=limit,
        )  # fmt: skip

    def _time_out(self, waiting: Waiting) -> None:
        if self.withdraw(waiting):
            self.rejected_count += 1
            seconds = waiting.runner.queue_timeout
            waiting.refuse(
                ModelhostError(
                    Reason.QUEUE_FULL,
                    f"scope '{self._scope}': the prediction waited for {seconds:g} s (batching.queue_timeout) and was "
                    "not run; try again later",
                    retry_after=_RETRY_SECONDS,
                )
            )
