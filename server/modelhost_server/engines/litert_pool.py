"""The interpreters of one file."""

from __future__ import annotations

import threading
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


class InstancePool:
    """Up to `limit` interpreters of a file.

    There is one until calls overlap. Then the maker makes another, so that no caller pays for it: the call that found
    none free waits for whichever is free first. One that failed is not used again: LiteRT's interpreters have been seen
    to answer wrongly after a failure.
    """

    def __init__(self, first: Instance, path: Path, threads: int, limit: int) -> None:
        self._path = path
        self._threads = threads
        self._limit = limit
        self._count = 1
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._pool = Pool([first])

    @contextmanager
    def lease(self, shapes: Shapes) -> Iterator[Instance]:
        """An interpreter, one prepared for these shapes if there is. An error within means that it failed."""
        instance = self._pool.take(lambda instance: instance.shapes == shapes, self._grow)
        try:
            yield instance
        except BaseException:
            self._count_down()
            self._grow()
            raise
        self._pool.put(instance)

    def close(self) -> None:
        """Drops all; no lease may be open."""
        self._closed.set()
        self._pool.clear()

    def _grow(self) -> None:
        with self._lock:
            if self._count == self._limit:
                return
            self._count += 1
        optimised_maker.make(self._add)

    def _count_down(self) -> int:
        with self._lock:
            self._count -= 1
            return self._count

    def _add(self) -> None:
        if self._closed.is_set():
            return
        try:
            instance = new_instance(self._path, self._threads)
        except Exception as error:
            if not self._count_down():
                self._pool.fail(error)
            return
        self._pool.put(instance)
        if self._closed.is_set():
            self._pool.clear()
