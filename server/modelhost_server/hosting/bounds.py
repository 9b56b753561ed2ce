"""How much memory a worker may take while it runs: by far more than its versions keep, so that only what went wrong, or
was asked for too much, ever feels it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass

from ..memory import bound, used_by
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
    # The limit that the worker has, in bytes, 0 for none; and what it used when that was set.
    limit: int = 0
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
        engines tell of it as of any failure, and the worker goes on. What it uses when the limit changes is its own.
        """
        account = self._accounts.setdefault(worker, _Account())
        if not (self._limit() or account.limit):
            return
        try:
            self._put_on(worker, account)
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

    def look_after(self, workers: Collection[Worker]) -> list[Worker]:
        """Has the bounds leave room for the stacks of as many threads as there are by now. To be called every second.

        Args:
            workers: all that there are.

        Returns:
            Those that keep too much, and therefore had to refuse calls.
        """
        self._accounts = {worker: account for worker, account in self._accounts.items() if worker in workers}
        for worker in workers:
            self.put_on(worker)
        full = [worker for worker, account in self._accounts.items() if _is_full(worker, account)]
        for worker in full:
            # Told of again when it is still there after as many looks.
            self._accounts[worker].looks = 0
        return full

    def _put_on(self, worker: Worker, account: _Account) -> None:
        limit, used = self._limit(), used_by(worker.pid)
        if limit != account.limit:
            account.limit, account.granted = limit, used.anonymous
        if not limit:
            bound(worker.pid, None)
            return
        most = max(worker.baseline + _PEAK * limit, account.granted)
        bound(worker.pid, most + self._reserved(used.threads))
        if used.anonymous > most:
            account.looks += 1
        else:
            account.looks, account.refusals = 0, worker.link.refusals

    def _reserved(self, threads: int) -> int:
        config = self._scope.config
        # Some engines have threads for each call that runs beside others. They come one after the other.
        soon = 2 * config.max_in_flight + config.intra_op_threads + config.alone_threads
        soon += _ENGINE_THREADS_PER_CORE * len(os.sched_getaffinity(0))
        return _RESERVED_BYTES + (threads + soon) * _STACK_BYTES


def _is_full(worker: Worker, account: _Account) -> bool:
    return account.looks >= _LOOKS and worker.link.refusals > account.refusals
