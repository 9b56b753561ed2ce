"""The worker processes of one scope: the one that serves, those that take its place and those on their way out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path

from ..memory import measure
from ..store.records import Scope
from ..workers.template import Templates
from ..workers.worker import Worker, WorkerEnd
from .blame import Blame

logger = logging.getLogger(__name__)


class WorkerState(Enum):
    """How a scope's worker is; named as in `modelhost.v1.WorkerState`."""

    IDLE = "IDLE"
    STARTING = "STARTING"
    READY = "READY"
    BACKOFF = "BACKOFF"


class Workforce:
    """Starts, counts and ends a scope's workers.

    Args:
        scope: whose workers.
        templates: start them.
        cache_dir: for what engines prepare once.
        on_death: told of a worker that served and ended unasked.
        on_demoted: told of a version that an engine failed; see `WorkerLink`.
    """

    def __init__(
        self, scope: Scope, templates: Templates, cache_dir: Path,
        on_death: Callable[[Worker, WorkerEnd], None], on_demoted: Callable[[int, str, str], None],
    ) -> None:  # fmt: skip
        self.current: Worker | None = None
        self.state = WorkerState.IDLE
        self.restarts = 0
        # Anonymous memory of the current worker before its first load.
        self.baseline = 0
        self.all: set[Worker] = set()
        self.closing = False
        self._scope = scope
        self._templates = templates
        self._cache_dir = cache_dir
        self._on_death = on_death
        self._on_demoted = on_demoted
        self._last_death = float("-inf")
        self._starting = asyncio.Lock()

    def pick(self, key: int) -> Worker | None:
        """The worker that serves the version with this key; None when there is none at the moment."""
        worker = self.current
        return worker if worker is not None and key in worker.loaded else None

    async def ensure(self, blame: Blame, with_tensorflow: bool) -> Worker:
        """The worker that serves; started if there is none.

        One that runs without TensorFlow, and holds nothing yet, makes way for one with it: that is smaller than one
        that opens TensorFlow later.

        Raises:
            ModelhostError: WORKER_UNAVAILABLE.
        """
        async with self._starting:
            worker = self.current
            if worker is not None and worker.alive:
                if worker.with_tensorflow or not with_tensorflow or worker.loaded or worker.link.busy_keys():
                    return worker
                new, baseline = await self.start(with_tensorflow)
                self.promote(new, baseline)
                await worker.stop()
                return new
            wait = self._last_death + blame.backoff() - asyncio.get_running_loop().time()
            if wait > 0:
                self.state = WorkerState.BACKOFF
                await asyncio.sleep(wait)
            self.state = WorkerState.STARTING
            new, baseline = await self.start(with_tensorflow)
            self.promote(new, baseline)
            return new

    async def start(self, with_tensorflow: bool) -> tuple[Worker, int]:
        """A new worker that does not serve yet, and its anonymous memory.

        Raises:
            ModelhostError: WORKER_UNAVAILABLE.
        """
        config = self._scope.config
        worker = await self._templates.get(with_tensorflow).start_worker(
            f"scope '{self._scope.name}'",
            {
                "intra_op_threads": config.intra_op_threads,
                "inter_op_threads": config.inter_op_threads,
                "max_in_flight": config.max_in_flight,
                "cache_dir": str(self._cache_dir),
                "engines": ["tensorflow"] if with_tensorflow else [],
            },
        )
        worker.with_tensorflow = with_tensorflow
        worker.link.on_demoted = self._on_demoted
        self.all.add(worker)
        worker.ended.add_done_callback(lambda ended: self._on_end(worker, ended.result()))
        return worker, (await asyncio.to_thread(measure, worker.pid))["anonymous"]

    def promote(self, worker: Worker, baseline: int) -> None:
        """Lets a worker serve."""
        self.current, self.baseline, self.state = worker, baseline, WorkerState.READY

    def note_failed_start(self) -> None:
        """Notes that no worker could be started."""
        self._last_death = asyncio.get_running_loop().time()

    def _on_end(self, worker: Worker, end: WorkerEnd) -> None:
        self.all.discard(worker)
        if worker is not self.current or self.closing:
            return
        self.current, self.state = None, WorkerState.BACKOFF
        self.restarts += 1
        self._last_death = asyncio.get_running_loop().time()
        self._on_death(worker, end)

    async def retire(self, worker: Worker, seconds: float) -> None:
        """Ends a worker that no longer serves, after its calls or these seconds."""
        try:
            await asyncio.wait_for(worker.link.idle(), seconds)
        except TimeoutError:
            logger.warning("scope '%s': a replaced worker's calls did not end in time; killing it", self._scope.name)
        await worker.stop()

    async def memory(self) -> Mapping[str, int]:
        """What the workers hold together, in bytes; see `memory.measure`."""
        total: Counter[str] = Counter()
        for worker in list(self.all):
            with contextlib.suppress(OSError):
                total.update(await asyncio.to_thread(measure, worker.pid))
        return total

    async def close(self) -> None:
        """Ends all workers."""
        self.closing = True
        await asyncio.gather(*(worker.stop() for worker in list(self.all)))
