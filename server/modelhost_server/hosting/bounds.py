"""How much memory a worker may take while it runs: by far more than its versions keep, so that only what went wrong, or
was asked for too much, ever feels it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass

from ..memory import Used, bound, used_by
from ..store.records import Scope
from ..workers.worker import Worker

logger = logging.getLogger(__name__)

# What a worker may have for a while, such as during a load or for a large batch, by what it may keep.
_PEAK = 2
# Allocators and engines map memory that they hardly use, and each thread a stack.
_RESERVED_BYTES = 256 << 20
_STACK_BYTES = 8 << 20
_ENGINE_THREADS_PER_CORE = 4
# A worker that had too much at so many looks in a row has had the time to give back what it does not use.
_LOOKS = 10


@dataclass(slots=True)
class _Account:
    # What the worker had when its limit was changed.
    granted: int = 0
    # Looks in a row at which it had more than it may for a while, and the calls it had refused before these.
    looks: int = 0
    refusals: int = 0


class Bounds:
    """Bounds the workers of a scope.

    Args:
        scope: whose workers.
        limit: of the memory that versions may keep, in bytes; 0 for none.
    """

    def __init__(self, scope: Scope, limit: Callable[[], int]) -> None:
        self._scope = scope
        self._limit = limit
        self._accounts: dict[Worker, _Account] = {}
        self._is_warned = False

    def put_on(self, worker: Worker) -> None:
        """Has what a worker takes from now on, beyond its bound, fail rather than take the machine's memory: the
        engines tell of it as of any failure, and the worker goes on.
        """
        if self._limit():
            self._try(worker, self._bound)

    def change(self, workers: Collection[Worker]) -> None:
        """Has workers take a new limit. What they use already is never too much."""
        for worker in workers:
            self._try(worker, self._change)

    def look_after(self, workers: Collection[Worker]) -> list[Worker]:
        """Has the bounds leave room for the stacks of as many threads as there are by now. To be called every second.

        Returns:
            Those that keep too much, and therefore had to refuse calls.
        """
        self._accounts = {worker: account for worker, account in self._accounts.items() if worker in workers}
        if not self._limit():
            return []
        for worker in workers:
            self._try(worker, self._look_at)
        full = [worker for worker, account in self._accounts.items() if _is_full(worker, account)]
        for worker in full:
            # Told of again when it is still there after as many looks.
            self._accounts[worker].looks = 0
        return full

    def _look_at(self, worker: Worker) -> None:
        used, account = self._bound(worker), self._account(worker)
        if used.anonymous > self._most(worker):
            account.looks += 1
        else:
            account.looks, account.refusals = 0, worker.link.refusals

    def _change(self, worker: Worker) -> None:
        self._account(worker).granted = used_by(worker.pid).anonymous
        if self._limit():
            self._bound(worker)
        else:
            bound(worker.pid, None)

    def _account(self, worker: Worker) -> _Account:
        return self._accounts.setdefault(worker, _Account())

    def _most(self, worker: Worker) -> int:
        return max(worker.baseline + _PEAK * self._limit(), self._account(worker).granted)

    def _bound(self, worker: Worker) -> Used:
        used, config = used_by(worker.pid), self._scope.config
        # Interpreters, each with threads of its own, are made when calls overlap.
        soon = config.max_in_flight * max(config.intra_op_threads, config.alone_threads)
        threads = used.threads + soon + _ENGINE_THREADS_PER_CORE * (os.cpu_count() or 1)
        bound(worker.pid, self._most(worker) + _RESERVED_BYTES + threads * _STACK_BYTES)
        return used

    def _try(self, worker: Worker, action: Callable[[Worker], object]) -> None:
        try:
            action(worker)
        except ProcessLookupError:
            # It has ended, which others are told.
            return
        except OSError as error:
            if not self._is_warned:
                logger.warning(
                    "scope '%s': its limit of memory is kept by loads only, as worker %d cannot be bounded (%s)",
                    self._scope.name, worker.pid, error.strerror,
                )  # fmt: skip
            self._is_warned = True


def _is_full(worker: Worker, account: _Account) -> bool:
    return account.looks >= _LOOKS and worker.link.refusals > account.refusals
