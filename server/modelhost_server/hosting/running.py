"""Runs predictions in a worker: one alone, or several of one signature as a batch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Sequence

from ..errors import ModelhostError, Reason
from ..scheduling.lines import Waiting
from ..store.names import version_resource
from ..store.phases import Phase
from ..store.records import Loaded, Version
from ..tensors import FileRange, RawTensor
from ..workers.calls import Answer
from ..workers.worker import Worker
from .batching import Batching, BatchingState
from .joining import Inputs, join, split
from .keeper import ScopeKeeper
from .verification import Example

# Predictions that a caller whose prediction failed in the model makes alone after that: one that the model refuses
# makes all of its batch run twice.
_ALONE = 50
_INTERNAL_CALLER = "modelhost"


class Running(Waiting):
    """A prediction on its way. It holds a handle on its version until the worker has answered, even if the caller has
    left: an unload must wait for the worker.
    """

    __slots__ = ("deadline", "future", "inputs", "runner", "wanted")

    def __init__(
        self, runner: SignatureRunner, inputs: Inputs, wanted: Sequence[int], deadline: float | None, caller: str,
        priority: int,
    ) -> None:  # fmt: skip
        super().__init__(runner, caller, priority)
        self.runner: SignatureRunner = runner
        self.inputs = inputs
        self.wanted = wanted
        self.deadline = deadline
        self.future: asyncio.Future[Sequence[RawTensor]] = asyncio.get_running_loop().create_future()

    def refuse(self, error: Exception) -> None:
        """See Waiting."""
        self.runner.version.release()
        if not self.future.done():
            self.future.set_exception(error)

    def finish(self, answer: Answer, queue_ns: int, run_ns: int) -> None:
        """Hands over what came of it."""
        version = self.runner.version
        statistics = version.statistics
        if isinstance(answer, ModelhostError):
            statistics.failure_count += 1
            self.refuse(answer)
            return
        statistics.success_count += 1
        statistics.queue_ns += queue_ns
        statistics.run_ns += run_ns
        version.release()
        if not self.future.done():
            self.future.set_result(answer)


class SignatureRunner:
    """Runs one signature of a version, as it is loaded now; see `scheduling.lines.Runner`."""

    def __init__(self, keeper: ScopeKeeper, version: Version, loaded: Loaded, position: int) -> None:
        self.key = version.key
        self.version = version
        self.spec = loaded.signatures[position]
        options = version.options.batching
        self.batching = Batching(version.options, self.spec, loaded.is_pure)
        self.max_delay = options.max_delay if self.batching.state is not BatchingState.OFF else 0.0
        self.max_queue = options.max_queue
        self.queue_timeout = options.queue_timeout
        self.max_rows = self.batching.max_rows
        self.choose = self.batching.choose
        self.is_full = self.batching.is_full
        self._pad = options.pad_variable_length
        self._keeper = keeper
        self._position = position
        # By caller: how many more predictions run alone.
        self._alone: dict[str, int] = {}

    def group(self, waiting: Waiting) -> Hashable:
        """See Runner."""
        assert isinstance(waiting, Running)
        if self.batching.state is not BatchingState.ON or waiting.caller in self._alone:
            return None
        inputs = waiting.inputs
        waiting.rows = rows = inputs[0][1].shape[0]
        if not rows or any(tensor.shape[0] != rows for _, tensor in inputs):
            return None
        rest = None if self._pad else tuple(tuple(tensor.shape)[1:] for _, tensor in inputs)
        return rest, tuple(position for position, _ in inputs), tuple(waiting.wanted)

    def start(self, batch: Sequence[Waiting]) -> None:
        """See Runner."""
        worker = self._keeper.workers.pick(self.key)
        if worker is None:
            for waiting in batch:
                waiting.refuse(not_there(self.version))
            self._keeper.scheduler.leave()
            return
        _Execution(self, batch, worker).send(self._position, self._keeper)  # type: ignore[arg-type]

    async def run_alone(self, inputs: Inputs) -> Sequence[RawTensor]:
        """Runs the signature once, for the server itself.

        Raises:
            ModelhostError: what predictions fail with.
        """
        if self.version.phase is not Phase.AVAILABLE:
            raise not_there(self.version)
        self.version.handles += 1
        running = Running(self, inputs, (), None, _INTERNAL_CALLER, 0)
        self._alone[_INTERNAL_CALLER] = 1
        try:
            self._keeper.scheduler.submit(running)
        except ModelhostError:
            self.version.release()
            raise
        return await running.future

    def note_alone(self, running: Running, answer: Answer) -> None:
        """Notes a prediction that ran alone."""
        caller = running.caller
        if isinstance(answer, ModelhostError):
            if answer.reason in _OF_THE_MODEL:
                self._alone[caller] = _ALONE
            return
        if self._alone and caller in self._alone:
            self._alone[caller] -= 1
            if self._alone[caller] <= 0:
                del self._alone[caller]
        # Only where predictions wait: elsewhere nobody gains by them running together.
        if self.batching.wants_examples and running.since and caller != _INTERNAL_CALLER and _is_example(running):
            self.batching.add_example(Example(running.inputs, answer), self.run_alone)


class _Execution:
    """Predictions that a worker runs as one."""

    __slots__ = ("_batch", "_keeper", "_overrun", "_rows", "_runner", "_started", "_worker")

    def __init__(self, runner: SignatureRunner, batch: Sequence[Running], worker: Worker) -> None:
        self._runner = runner
        self._batch = batch
        self._worker = worker
        self._rows = 0
        self._started = time.monotonic()
        self._overrun: asyncio.TimerHandle | None = None

    def send(self, position: int, keeper: ScopeKeeper) -> None:
        self._keeper = keeper
        batch = self._batch
        first = batch[0]
        try:
            if len(batch) == 1:
                inputs = first.inputs
            else:
                self._rows = self._runner.batching.rows_to_run(sum(running.rows for running in batch))
                inputs = join([running.inputs for running in batch], self._rows)
            self._worker.link.predict(self._runner.key, position, first.wanted, inputs, self.on_answer)
        except (ModelhostError, OSError) as error:
            # Nothing was sent, so no answer will come.
            self.on_answer(as_input_error(error))
            return
        grace = keeper.scope.config.overrun_grace
        if grace is not None:
            deadlines = [running.deadline for running in batch if running.deadline is not None]
            if len(deadlines) == len(batch):
                loop = asyncio.get_running_loop()
                self._overrun = loop.call_at(max(deadlines) + grace, keeper.end_overrun, self._worker)

    def on_answer(self, answer: Answer) -> None:
        # First of all, so that the worker goes on.
        self._keeper.scheduler.leave()
        if self._overrun is not None:
            self._overrun.cancel()
        seconds = time.monotonic() - self._started
        batch, runner = self._batch, self._runner
        if len(batch) == 1:
            runner.note_alone(batch[0], answer)
            answers: Sequence[Answer] | None = (answer,)
        elif isinstance(answer, ModelhostError):
            # One of them may be to blame; what is not the model's is nobody's.
            answers = None if answer.reason in _OF_THE_MODEL else [answer] * len(batch)
        else:
            answers = split(answer, [running.rows for running in batch], self._rows)
            if answers is None:
                runner.batching.turn_off("outputs of a batch were not of its extent")
        if answers is None:
            for running in batch:
                self._keeper.scheduler.submit_first(running)
            return
        ns = int(seconds * 1e9)
        runner.batching.note(len(batch), ns, len(batch) * _byte_count(batch[0].inputs))
        for running, given in zip(batch, answers, strict=True):
            running.finish(given, int((self._started - running.since) * 1e9) if running.since else 0, ns)


_OF_THE_MODEL = (Reason.MODEL_REJECTED_INPUT, Reason.MODEL_EXECUTION_FAILED, Reason.INTERNAL)


def _byte_count(inputs: Inputs) -> int:
    return sum(len(tensor.data) for _, tensor in inputs)  # type: ignore[arg-type, misc]


def _is_example(running: Running) -> bool:
    return not running.wanted and all(
        tensor.shape and tensor.shape[0] and not isinstance(tensor.data, FileRange) for _, tensor in running.inputs
    )


def as_input_error(error: ModelhostError | OSError) -> ModelhostError:
    """What a caller is told when inputs could not be sent."""
    if isinstance(error, ModelhostError):
        return error
    return ModelhostError(
        Reason.INPUT_MALFORMED, f"an input's shared memory cannot be read ({error.strerror}): the region is smaller "
        "than when it was registered; register it again",
    )  # fmt: skip


def not_there(version: Version) -> ModelhostError:
    """Why a version that is AVAILABLE cannot be asked at this moment."""
    resource = version_resource(version.scope, version.model, version.number)
    return ModelhostError(
        Reason.WORKER_UNAVAILABLE, f"the worker of {resource} is being replaced", resource=resource, retry_after=0.5
    )
