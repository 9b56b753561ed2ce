"""Predictions that wait, in an order that is fair: priorities first; then models take turns, within a model the groups
that may run together, and within a group the callers. What one caller has sent is run in the order it came.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


class Runner(Protocol):
    """Runs one signature of a version."""

    @property
    def key(self) -> int:
        """The version's."""

    @property
    def max_delay(self) -> float:
        """Seconds that a prediction waits for others to fill its batch."""

    @property
    def max_queue(self) -> int:
        """Predictions of the version that may wait; 0 when only the scope's limit counts."""

    @property
    def queue_timeout(self) -> float:
        """Seconds after which a prediction that still waits is refused; 0 for never."""

    @property
    def max_rows(self) -> int:
        """Examples in a batch at most."""

    def group(self, waiting: Waiting) -> Hashable:
        """What predictions have in common that may run together; None for one that runs alone. Sets its `rows`."""

    def choose(self, waiting: int) -> int:
        """How many of so many predictions that wait to run together."""

    def is_full(self, waiting: int, rows: int) -> bool:
        """Whether so many predictions need not wait for others."""

    def start(self, batch: Sequence[Waiting]) -> None:
        """Runs predictions of one group together."""


class Waiting:
    """A prediction that waits for its turn. `rows` is how many examples it has."""

    __slots__ = ("caller", "line", "priority", "rows", "runner", "since", "timer")

    def __init__(self, runner: Runner, caller: str, priority: int) -> None:
        self.runner: Runner = runner
        # Of no consequence to one that runs alone.
        self.rows = 0
        self.caller = caller
        self.priority = priority
        self.line: Line | None = None
        # On the event loop's clock.
        self.since = 0.0
        # Goes off when it has waited for too long.
        self.timer: asyncio.TimerHandle | None = None

    def refuse(self, error: Exception) -> None:
        """Tells whoever waits that it will not run."""
        raise NotImplementedError


class Rotation(Generic[_K, _V]):
    """Things that take turns."""

    def __init__(self) -> None:
        self._items: OrderedDict[_K, _V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: _K, make: Callable[[], _V]) -> _V:
        """The thing of this name; a new one is the last to have its turn."""
        item = self._items.get(key)
        if item is None:
            item = self._items[key] = make()
        return item

    def peek(self) -> _V:
        """Whose turn it is."""
        return next(iter(self._items.values()))

    def turn(self) -> _V:
        """Whose turn it is; it will be the last to have the next one."""
        key, item = next(iter(self._items.items()))
        self._items.move_to_end(key)
        return item

    def remove(self, key: _K) -> None:
        """Takes a thing out."""
        del self._items[key]

    def values(self) -> Iterator[_V]:
        """All, in the order of their turns."""
        return iter(self._items.values())


class Line:
    """Predictions that may run together, or (`group` is None) only one by one. Callers take turns."""

    def __init__(self, runner: Runner, group: Hashable) -> None:
        self.runner = runner
        self.group = group
        self.count = 0
        self.rows = 0
        self._callers: Rotation[str, dict[Waiting, None]] = Rotation()

    def add(self, waiting: Waiting) -> None:
        """Puts a prediction behind those of its caller."""
        waiting.line = self
        self.count += 1
        self.rows += waiting.rows
        self._callers.get(waiting.caller, dict)[waiting] = None

    def discard(self, waiting: Waiting) -> None:
        """Takes a prediction out."""
        theirs = self._callers.get(waiting.caller, dict)
        del theirs[waiting]
        if not theirs:
            self._callers.remove(waiting.caller)
        waiting.line = None
        self.count -= 1
        self.rows -= waiting.rows

    def ready_at(self) -> float:
        """When a batch of it is due, on the event loop's clock."""
        delay = self.runner.max_delay
        if not delay or self.group is None or self.runner.is_full(self.count, self.rows):
            return 0.0
        return min(next(iter(theirs)).since for theirs in self._callers.values()) + delay

    def take(self) -> list[Waiting]:
        """The next batch."""
        size = 1 if self.group is None else self.runner.choose(self.count)
        room = self.runner.max_rows
        batch: list[Waiting] = []
        while len(batch) < size and self.count:
            waiting = next(iter(self._callers.peek()))
            room -= waiting.rows
            if batch and room < 0:
                # Whoever has no room now begins the next batch.
                break
            self._callers.turn()
            batch.append(waiting)
            self.discard(waiting)
        return batch


class Lines:
    """All predictions of a scope that wait."""

    def __init__(self) -> None:
        self._levels: dict[int, Rotation[int, Rotation[Hashable, Line]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, waiting: Waiting) -> None:
        """Puts a prediction into its line."""
        runner, group = waiting.runner, waiting.runner.group(waiting)
        models = self._levels.setdefault(waiting.priority, Rotation())
        lines = models.get(runner.key, Rotation)
        # By the runner, too: a version has several signatures, and another runner of each once it is loaded anew.
        line = lines.get((runner, group), lambda: Line(runner, group))
        line.add(waiting)
        self._count += 1

    def discard(self, waiting: Waiting) -> None:
        """Takes out a prediction that waits."""
        line = waiting.line
        assert line is not None
        line.discard(waiting)
        self._count -= 1
        if not line.count:
            self._drop(waiting.priority, line)

    def take(self, now: float) -> list[Waiting]:
        """The next batch; empty when all wait for others to join them."""
        for level in sorted(self._levels, reverse=True):
            models = self._levels[level]
            for _ in range(len(models)):
                lines = models.turn()
                for _ in range(len(lines)):
                    line = lines.turn()
                    if line.ready_at() <= now:
                        batch = line.take()
                        self._count -= len(batch)
                        if not line.count:
                            self._drop(level, line)
                        return batch
        return []

    def ready_at(self) -> float:
        """When the next batch is due, on the event loop's clock."""
        return min(line.ready_at() for line in self._all())

    def _all(self) -> Iterator[Line]:
        for models in self._levels.values():
            for lines in models.values():
                yield from lines.values()

    def _drop(self, level: int, line: Line) -> None:
        models = self._levels[level]
        lines = models.get(line.runner.key, Rotation)
        lines.remove((line.runner, line.group))
        if not lines:
            models.remove(line.runner.key)
        if not models:
            del self._levels[level]
