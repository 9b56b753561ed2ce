"""The workers of a scope that predictions go to."""

from __future__ import annotations

from collections.abc import Iterator

from ..workers.worker import Worker


class Serving:
    """A set of workers; what each holds is in its `loaded`."""

    def __init__(self) -> None:
        self._workers: list[Worker] = []

    def __iter__(self) -> Iterator[Worker]:
        return iter(tuple(self._workers))

    def __len__(self) -> int:
        return len(self._workers)

    def add(self, worker: Worker) -> None:
        """Lets a worker serve."""
        self._workers.append(worker)

    def remove(self, worker: Worker) -> None:
        """Lets a worker serve no more."""
        self._workers.remove(worker)

    def pick(self, key: int) -> Worker | None:
        """Of the workers that hold a version, the one with the fewest calls under way."""
        best, fewest = None, 0
        for worker in self._workers:
            if key in worker.loaded and (best is None or worker.link.under_way < fewest):
                best, fewest = worker, worker.link.under_way
        return best

    def holding(self, key: int) -> list[Worker]:
        """The workers that hold a version."""
        return [worker for worker in self._workers if key in worker.loaded]

    def has(self, key: int) -> bool:
        """Whether a worker holds a version, or is loading it."""
        return any(key in worker.loaded or key in worker.link.busy_keys() for worker in self._workers)
