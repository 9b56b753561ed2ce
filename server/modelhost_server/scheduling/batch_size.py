"""Learns how many predictions of a signature to run together, from how long batches take."""

from __future__ import annotations

from collections import deque

# A larger batch must gain this much for each prediction: answers of a batch come together, so that some come later.
_WORTH = 0.95
# As little as this is lost by a smaller one.
_NO_LOSS = 1.02
# Executions of one size before it is judged; of a new one, the first prepares things and does not count.
_ENOUGH = 5
# Full batches after which a larger size that did not pay is tried again: the machine may be less busy then.
_TRY_AGAIN = 1000
_REMEMBERED = 9


class _Size:
    """What is known of batches of one size: how long the last ones took, in nanoseconds."""

    __slots__ = ("_last", "count")

    def __init__(self) -> None:
        self.count = -1
        self._last: deque[int] = deque(maxlen=_REMEMBERED)

    def note(self, ns: int) -> None:
        self.count += 1
        if self.count > 0:
            self._last.append(ns)

    def forget(self) -> None:
        self.count = -1
        self._last.clear()

    @property
    def ns(self) -> int:
        """The median: on a busy machine, one in a hundred takes a hundred times as long as the others."""
        return sorted(self._last)[len(self._last) // 2]


class BatchSize:
    """The number of predictions in a batch that answers most in a given time: a power of two up to `most`.

    It is doubled for as long as that pays, and halved when that loses nothing.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.size = 1
        self._sizes: dict[int, _Size] = {}
        # Full batches until the next larger size is tried.
        self._patience = 0

    @property
    def goal(self) -> int:
        """The size that a batch should have now: the best one so far, or, once that is known, the next larger one, to
        try it.
        """
        here, larger = self._sizes.get(self.size), 2 * self.size
        if here is None or here.count < _ENOUGH or self._patience or larger > self._most:
            return self.size
        return larger

    def choose(self, waiting: int) -> int:
        """How many of those that wait to run together: a power of two, for engines prepare for each size anew."""
        goal = self.goal
        return goal if waiting >= goal else 1 << (waiting.bit_length() - 1)

    def limit(self, most: int) -> None:
        """Tries no larger ones than this."""
        self._most = min(self._most, max(1, most))

    def note_too_large(self, count: int) -> None:
        """Notes that there was no memory for a batch of so many predictions: for a while, they are smaller."""
        while self.size >= max(2, count):
            self.size //= 2
        self._patience = _TRY_AGAIN
        if larger := self._sizes.get(2 * self.size):
            larger.forget()

    def note(self, count: int, ns: int) -> None:
        """Notes that a batch of so many predictions took so long."""
        if count & (count - 1):
            return
        self._sizes.setdefault(count, _Size()).note(ns)
        if count == self.size and self._patience:
            self._patience -= 1
        if count >= self.size:
            self._judge()

    def _judge(self) -> None:
        here, larger, smaller = (self._sizes.get(n) for n in (self.size, 2 * self.size, self.size // 2))
        if here is None or here.count < _ENOUGH:
            return
        if not self._patience and larger is not None and larger.count >= _ENOUGH:
            if larger.ns <= 2 * here.ns * _WORTH:
                self.size *= 2
            else:
                self._patience = _TRY_AGAIN
                larger.forget()
        elif smaller is not None and smaller.count >= _ENOUGH and 2 * smaller.ns <= here.ns * _NO_LOSS:
            self.size //= 2
            self._patience = _TRY_AGAIN
