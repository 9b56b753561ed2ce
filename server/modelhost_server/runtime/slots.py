"""A version's place in a worker: the model in it can be changed for another while calls run."""

from __future__ import annotations

import threading

from ..engines.base import LoadedModel

_SMOOTHING = 0.2
_QUICK_SECONDS = 0.0001


class Use:
    """A model, and the count of the runs that use it. It is closed when it is retired and nothing runs."""

    __slots__ = ("_count", "_lock", "_retired", "model", "seconds")

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        # That a run takes, smoothed.
        self.seconds = 1.0
        self._count = 0
        self._retired = False
        self._lock = threading.Lock()

    def begin(self) -> bool:
        """Counts a run; False when the model has been retired meanwhile."""
        with self._lock:
            if self._retired:
                return False
            self._count += 1
            return True

    def end(self) -> None:
        """Counts the run's end."""
        with self._lock:
            self._count -= 1
            last = self._retired and self._count == 0
        if last:
            self.model.close()

    def note(self, seconds: float) -> None:
        """Notes how long a run took."""
        self.seconds += _SMOOTHING * (seconds - self.seconds)

    def retire(self) -> None:
        """Takes no more runs; closes the model now or after the last one."""
        with self._lock:
            self._retired = True
            idle = self._count == 0
        if idle:
            self.model.close()


class Slots:
    """The models of a worker, by the keys that the server gave them."""

    def __init__(self) -> None:
        self._uses: dict[int, Use] = {}

    def acquire(self, key: int) -> Use:
        """The model in a slot, for one run; call `end` on it."""
        while not (use := self._uses[key]).begin():
            pass
        return use

    def is_quick(self, key: int) -> bool:
        """Whether a run of a model is likely to take less time than it takes to wake up a thread."""
        use = self._uses.get(key)
        return use is not None and use.seconds < _QUICK_SECONDS

    def put(self, key: int, model: LoadedModel) -> None:
        """Puts a model into a slot, in the place of the one that is there."""
        old = self._uses.get(key)
        self._uses[key] = Use(model)
        if old is not None:
            old.retire()

    def remove(self, key: int) -> None:
        """Empties a slot."""
        if (use := self._uses.pop(key, None)) is not None:
            use.retire()

    def shared_bytes(self, key: int) -> int:
        """What a model shares with others now, in bytes; 0 when its slot is empty."""
        use = self._uses.get(key)
        return use.model.shared_bytes() if use is not None else 0
