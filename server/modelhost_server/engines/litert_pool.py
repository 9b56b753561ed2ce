"""The interpreters of one file."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import optimised_maker
from .litert_interpreter import Instance, Shapes, ShapesRefused
from .optimised_pool import Pool


def new_instance(path: Path, threads: int) -> Instance:
    """An interpreter; one whose `shapes` are None if it could not be prepared for those that the file has."""
    instance = Instance(path, threads)
    try:
        instance.pack()
    except ShapesRefused:
        # The file has 1 for each open extent, which need not fit. Not the same one again: see InstancePool.
        instance = Instance(path, threads)
    return instance


# Callers who call one after the other leave gaps, too. A call that ran with more threads in such a gap, beside one that
# came just after it, cost eight callers of ResNet50 a third of their throughput.
_CALM_SECONDS = 1.0


class Running:
    """Counts the calls that run in this process, of all models, and knows when they last overlapped.

    Args:
        calm_seconds: so long after an overlap, calls come alone.
    """

    def __init__(self, calm_seconds: float = _CALM_SECONDS) -> None:
        self._calm_seconds = calm_seconds
        self._count = 0
        self._overlapped = float("-inf")
        self._lock = threading.Lock()

    def begin(self) -> bool:
        """Counts a call; tells whether it is one that comes alone."""
        with self._lock:
            self._count += 1
            now = time.monotonic()
            if self._count > 1:
                self._overlapped = now
            return now >= self._overlapped + self._calm_seconds

    def end(self) -> None:
        """Counts a call less."""
        with self._lock:
            self._count -= 1


class InstancePool:
    """Up to `limit` interpreters of a file, and one more for calls that come alone, if that has threads of its own.

    There is one until calls overlap. Then the maker makes another, so that no caller pays for it: the call that found
    none free waits for whichever is free first. One that failed is not used again: LiteRT's interpreters have been seen
    to answer wrongly after a failure.

    Args:
        first: the interpreter that there is.
        path: of the file.
        threads: of each interpreter.
        limit: see above.
        running: counts the calls.
        is_wide: `first` has more threads, and is for calls that come alone. Until all others are made it serves as they
            do.
    """

    def __init__(
        self, first: Instance, path: Path, threads: int, limit: int, running: Running, is_wide: bool = False
    ) -> None:
        self._path = path
        self._threads = threads
        self._limit = limit
        self._running = running
        self._wide = first if is_wide else None
        # The wide one, while it waits for a call that comes alone.
        self._reserved: Instance | None = None
        # The ordinary ones: those there are or are being made, and those there are.
        self._count = self._made = 0 if is_wide else 1
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._pool = Pool([first])

    @contextmanager
    def lease(self, shapes: Shapes) -> Iterator[Instance]:
        """An interpreter, one prepared for these shapes if there is. An error within means that it failed."""
        is_alone = self._running.begin()
        try:
            instance = self._take(shapes, is_alone)
            try:
                yield instance
            except BaseException:
                self._lose(instance)
                self._grow()
                raise
            self._put(instance)
        finally:
            self._running.end()

    def close(self) -> None:
        """Drops all; no lease may be open."""
        self._closed.set()
        self._pool.clear()
        self._reserved = None

    def _take(self, shapes: Shapes, is_alone: bool) -> Instance:
        with self._lock:
            if is_alone and self._reserved is not None:
                reserved, self._reserved = self._reserved, None
                return reserved
        wanted = self._wide if is_alone else None

        def suits(instance: Instance) -> bool:
            return instance is wanted if wanted is not None else instance.shapes == shapes

        instance = self._pool.take(suits, self._grow)
        if instance is self._wide and not is_alone:
            self._grow()
        return instance

    def _put(self, instance: Instance) -> None:
        with self._lock:
            if instance is self._wide and self._made == self._limit:
                self._reserved = instance
                return
        self._pool.put(instance)

    def _lose(self, instance: Instance) -> None:
        with self._lock:
            if instance is self._wide:
                self._wide = None
            else:
                self._count -= 1
                self._made -= 1

    def _grow(self) -> None:
        with self._lock:
            if self._count == self._limit:
                return
            self._count += 1
        optimised_maker.make(self._add)

    def _add(self) -> None:
        if self._closed.is_set():
            return
        try:
            instance = new_instance(self._path, self._threads)
        except Exception as error:
            with self._lock:
                self._count -= 1
                is_last = not self._count and self._wide is None
            if is_last:
                self._pool.fail(error)
            return
        with self._lock:
            self._made += 1
        self._pool.put(instance)
        if self._closed.is_set():
            self._pool.clear()
