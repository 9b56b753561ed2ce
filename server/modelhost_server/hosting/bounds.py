"""How much memory a worker may take while it runs: by far more than its versions keep, so that only what went wrong, or
was asked for too much, ever feels it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from ..memory import bound, unbound
from ..store.records import Scope
from ..workers.worker import Worker

logger = logging.getLogger(__name__)

# What a worker may have for a while, such as during a load or for a large batch, by what it may keep.
_PEAK = 2
# What allocators, engines and the stacks of new threads may reserve, though they hardly touch it. What was reserved
# before a load does not count at all: with many models, that is most of it.
_RESERVED_BYTES = 256 << 20
_STACK_BYTES = 8 << 20
_ENGINE_THREADS_PER_CORE = 4


class Bounds:
    """Bounds workers of a scope.

    Args:
        scope: whose workers.
        limit: of the memory that versions may keep, in bytes; 0 for none.
    """

    def __init__(self, scope: Scope, limit: Callable[[], int]) -> None:
        self._scope = scope
        self._limit = limit

    def put_on(self, worker: Worker) -> None:
        """Has what a worker takes from now on, beyond its bound, fail rather than take the machine's memory: the
        engines tell of it as of any failure, and the worker goes on. What it has already is never too much.
        """
        limit = self._limit()
        threads = self._scope.config.max_in_flight + _ENGINE_THREADS_PER_CORE * (os.cpu_count() or 1)
        try:
            if limit:
                bound(worker.pid, worker.baseline + _PEAK * limit, _RESERVED_BYTES + threads * _STACK_BYTES)
            else:
                unbound(worker.pid)
        except ProcessLookupError:
            # It has ended, which others are told.
            return
        except OSError as error:
            logger.warning(
                "scope '%s': its limit of memory is kept by loads only, as a worker cannot be bounded (%s)",
                self._scope.name, error.strerror,
            )  # fmt: skip
