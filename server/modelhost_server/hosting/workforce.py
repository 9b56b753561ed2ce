"""The worker processes of one scope: those that serve, those that are to join them and those on their way out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path

from ..errors import ModelhostError, Reason
from ..memory import measure
from ..store.records import Scope
from ..workers.template import Templates, WorkerLostError
from ..workers.worker import Worker, WorkerEnd
from .blame import Blame
from .serving import Serving

logger = logging.getLogger(__name__)


_LITTLE_BYTES = 1 << 20


class WorkerState(Enum):
    """How a scope's workers are; named as in `modelhost.v1.WorkerState`."""

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
        on_count: told when another number of workers serves.
        on_death: told of a worker that served, or was joining, and ended unasked.
        on_demoted: told of a version that an engine failed; see `WorkerLink`.
    """

    def __init__(
        self, scope: Scope, templates: Templates, cache_dir: Path, on_count: Callable[[], None],
        on_death: Callable[[Worker, WorkerEnd], None], on_demoted: Callable[[int, str, str], None],
    ) -> None:  # fmt: skip
        self.serving = Serving()
        self.pick = self.serving.pick
        self.restarts = 0
        self.all: set[Worker] = set()
        self.closing = False
        self._scope = scope
        self._templates = templates
        self._cache_dir = cache_dir
        self._on_count = on_count
        self._on_death = on_death
        self._on_demoted = on_demoted
        # While nobody serves.
        self._state = WorkerState.IDLE
        # Those whose end is a loss.
        self._needed: set[Worker] = set()
        self._last_death = float("-inf")
        self._starting = asyncio.Lock()

    @property
    def state(self) -> WorkerState:
        """How the scope is served."""
        return WorkerState.READY if self.serving else self._state

    @property
    def lacking(self) -> int:
        """How many workers more are to serve."""
        return 0 if self.closing else max(0, self._scope.config.replicas - len(self.serving))

    async def ensure(self, blame: Blame, with_tensorflow: bool) -> list[Worker]:
        """The workers that serve; one is started if there is none.

        Those that run without TensorFlow, and hold nothing yet, make way for others with it: they are smaller than
        workers that open TensorFlow later.

        Raises:
            ModelhostError: WORKER_UNAVAILABLE.
        """
        async with self._starting:
            while True:
                if not any(worker.alive for worker in self.serving):
                    await self.pause(blame)
                    self._state = WorkerState.STARTING
                    self.promote(await self.start(with_tensorflow))
                for worker in self.serving:
                    light = not worker.with_tensorflow and not worker.loaded and not worker.link.under_way
                    if with_tensorflow and light and worker.alive:
                        new = await self.start(with_tensorflow)
                        self.dismiss(worker)
                        self.promote(new)
                        await worker.stop()
                # Each of them may have ended while others were waited for.
                if alive := [worker for worker in self.serving if worker.alive]:
                    return alive

    async def pause(self, blame: Blame) -> None:
        """Waits until the next worker may be started."""
        wait = self._last_death + blame.backoff() - asyncio.get_running_loop().time()
        if wait > 0:
            self._state = WorkerState.BACKOFF
            await asyncio.sleep(wait)

    async def start(self, with_tensorflow: bool) -> Worker:
        """A new worker that does not serve yet.

        Should it end at once, or its template, another one is started: whoever asks is not at fault. Only once, so that
        a worker that cannot live is told of.

        Raises:
            ModelhostError: WORKER_UNAVAILABLE.
        """
        with contextlib.suppress(WorkerLostError):
            return await self._start(with_tensorflow)
        return await self._start(with_tensorflow)

    async def _start(self, with_tensorflow: bool) -> Worker:
        self._check_open()
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
        try:
            worker.baseline = (await asyncio.to_thread(measure, worker.pid))["anonymous"]
        except OSError as error:
            await worker.stop()
            raise WorkerLostError(f"a new worker cannot be looked at ({error.strerror})") from None
        if self.closing:
            await worker.stop()
            self._check_open()
        if not worker.alive:
            raise WorkerLostError("a new worker ended at once")
        return worker

    def _check_open(self) -> None:
        if self.closing:
            raise ModelhostError(Reason.WORKER_UNAVAILABLE, f"scope '{self._scope.name}' is being closed")

    def need(self, worker: Worker) -> None:
        """Counts a worker's end as a death from now on."""
        self._needed.add(worker)

    def promote(self, worker: Worker) -> None:
        """Lets a worker serve."""
        self.need(worker)
        self.serving.add(worker)
        self._on_count()

    def dismiss(self, worker: Worker) -> None:
        """Lets a worker serve no more; it may go at any time."""
        self._needed.discard(worker)
        if worker in self.serving:
            self.serving.remove(worker)
            self._on_count()

    def note_failed_start(self) -> None:
        """Notes that no worker could be started."""
        self._last_death = asyncio.get_running_loop().time()

    def _on_end(self, worker: Worker, end: WorkerEnd) -> None:
        self.all.discard(worker)
        if worker not in self._needed or self.closing:
            return
        self.dismiss(worker)
        self._state = WorkerState.BACKOFF
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

    async def has_grown(self, worker: Worker) -> bool:
        """Whether a worker has more memory than it began with, by more than does not matter."""
        try:
            anonymous = (await asyncio.to_thread(measure, worker.pid))["anonymous"]
        except OSError:
            return False
        return anonymous > worker.baseline + _LITTLE_BYTES

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
