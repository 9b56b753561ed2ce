"""A pool of things that serve one call at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Pool(Generic[_T]):
    """Hands things out; who has waited longest gets the next one.

    Without that order, one of two busy threads was seen to wait for a second while the other ran call after call.
    """

    def __init__(self, items: Iterable[_T]) -> None:
        self._free = list(items)
        self._waiting: deque[Future[_T]] = deque()
        self._lock = threading.Lock()

    def take(self, suits: Callable[[_T], bool] = lambda _: True, when_none: Callable[[], None] = lambda: None) -> _T:
        """A free thing, one that suits if there is; `when_none` is called before waiting for one.

        Raises:
            Exception: what `fail` was called with.
        """
        with self._lock:
            if self._free:
                best = next((i for i, item in enumerate(self._free) if suits(item)), -1)
                return self._free.pop(best)
            turn: Future[_T] = Future()
            self._waiting.append(turn)
        when_none()
        return turn.result()

    def put(self, item: _T) -> None:
        """The thing is free, again or for the first time."""
        with self._lock:
            if not self._waiting:
                self._free.append(item)
                return
            turn = self._waiting.popleft()
        turn.set_result(item)

    def fail(self, error: Exception) -> None:
        """Those who wait get an error: nothing will be free."""
        with self._lock:
            turns, self._waiting = self._waiting, deque()
        for turn in turns:
            turn.set_exception(error)

    def clear(self) -> None:
        """Drops what is free."""
        with self._lock:
            self._free.clear()
