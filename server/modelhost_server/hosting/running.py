"""Runs predictions in a worker: one alone, or several of one signature as a batch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Sequence

from ..errors import ModelhostError, Reason
from ..scheduling.lines import Waiting
from ..store.phases import Phase
from ..store.records import Loaded, Version
from ..tensors import FileRange, RawTensor
from ..workers.calls import Answer
from ..workers.worker import Worker
from .batching import Batching, BatchingState, Kind
from .joining import Inputs, join, split
from .keeper import ScopeKeeper
from .verification import OF_THE_MODEL, Example

# Predictions that a caller whose prediction failed in the model makes alone after that: one that the model refuses
# makes all of its batch run twice.
_ALONE = 50
# Callers of whom that is remembered.
_MOST_ALONE = 1000
_INTERNAL_CALLER = "modelhost"
# What one prediction may be to blame for, when its batch fails with it.
_OF_PREDICTIONS = (*OF_THE_MODEL, Reason.MEMORY_LIMIT)


class Running(Waiting):
    """A prediction on its way. It holds a handle on its version until the worker has answered, even if the caller has
    left: an unload must wait for the worker.
    """

    __slots__ = ("deadline", "failed_batch", "future", "inputs", "is_alone", "runner", "wanted")

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
        # Of shapes that the signature does not promise: it shares no batch.
        self.is_alone = False
        # That it was in before.
        self.failed_batch: _FailedBatch | None = None

    def refuse(self, error: Exception) -> None:
        """See Waiting."""
        self.runner.version.release()
        if not self.future.done():
            self.future.set_exception(error)

    def finish(self, answer: Answer, queue_ns: int, run_ns: int) -> None:
        """Hands over what came of it."""
        version = self.runner.version
        if self.caller != _INTERNAL_CALLER:
            examples = self.inputs[0][1].shape[0] if self.inputs and self.runner.is_batched else 1
            version.statistics.note(isinstance(answer, ModelhostError), queue_ns, run_ns, examples)
        if isinstance(answer, ModelhostError):
            self.refuse(answer)
            return
        version.release()
        if not self.future.done():
            self.future.set_result(answer)


class SignatureRunner:
    """Runs one signature of a version, as it is loaded now; see `scheduling.lines.Runner`."""

    def __init__(self, keeper: ScopeKeeper, version: Version, loaded: Loaded, position: int) -> None:
        self.key = version.key
        self.version = version
        self.spec = loaded.signatures[position]
        self.dtypes = self.spec.output_dtypes()
        self.is_batched = self.spec.is_batched
        options = version.options.batching
        self.batching = Batching(version.options, self.spec, loaded.is_pure)
        self.max_delay = options.max_delay if self.batching.state is not BatchingState.OFF else 0.0
        self.max_queue = options.max_queue
        self.queue_timeout = options.queue_timeout
        self.max_rows = self.batching.max_rows
        self.choose = self.batching.choose
        self.is_full = self.batching.is_full
        self._pad = options.pad_variable_length
        # One prediction alone is filled up, too.
        self.fills_up = bool(options.allowed_batch_sizes)
        self._keeper = keeper
        self._position = position
        # By caller: how many more predictions run alone.
        self._alone: dict[str, int] = {}

    def group(self, waiting: Waiting) -> Hashable:
        """See Runner."""
        assert isinstance(waiting, Running)
        if self.batching.state is not BatchingState.ON or waiting.is_alone or waiting.caller in self._alone:
            return None
        kind = _kind(waiting.inputs)
        if kind is None:
            return None
        waiting.rows = waiting.inputs[0][1].shape[0]
        positions, rest = kind
        return positions, None if self._pad else rest, tuple(waiting.wanted)

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
            if answer.reason in _OF_PREDICTIONS:
                if len(self._alone) >= _MOST_ALONE and caller not in self._alone:
                    del self._alone[next(iter(self._alone))]
                self._alone[caller] = _ALONE
            return
        if self._alone and caller in self._alone:
            self._alone[caller] -= 1
            if self._alone[caller] <= 0:
                del self._alone[caller]
        # Only where predictions wait: elsewhere nobody gains by them running together.
        if self.batching.wants_examples and running.since and caller != _INTERNAL_CALLER and not running.is_alone:
            kind = _kind(running.inputs)
            if kind is not None and not any(isinstance(tensor.data, FileRange) for _, tensor in running.inputs):
                outputs = None if running.wanted else answer
                self.batching.add_example(kind, Example(running.inputs, outputs), self.run_alone)


class _FailedBatch:
    """Predictions whose batch failed, and which run alone after that."""

    def __init__(self, runner: SignatureRunner, count: int, why: ModelhostError) -> None:
        self._runner = runner
        self._count = self._left = count
        self._why = why
        self._is_explained = False

    def note(self, answer: Answer) -> None:
        """Notes what came of one of them."""
        self._left -= 1
        self._is_explained = self._is_explained or isinstance(answer, ModelhostError)
        if self._left or self._is_explained:
            return
        batching, why = self._runner.batching, self._why
        if why.reason is Reason.MEMORY_LIMIT:
            batching.note_too_large(self._count)
        else:
            batching.turn_off(f"predictions together fail, and alone they do not: {why.message}")


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
            inputs = first.inputs
            if len(batch) > 1 or (self._runner.fills_up and self._runner.group(first) is not None):
                self._rows = self._runner.batching.rows_to_run(sum(running.rows for running in batch))
                if len(batch) > 1 or self._rows != first.rows:
                    inputs = join([running.inputs for running in batch], self._rows)
            dtypes = self._runner.spec.output_dtypes(first.wanted) if first.wanted else self._runner.dtypes
            self._worker.link.predict(self._runner.key, position, first.wanted, inputs, dtypes, self.on_answer)
        except (ModelhostError, OSError) as error:
            # Nothing was sent, so no answer will come.
            self._end(as_input_error(error), is_blamed=True)
            return
        grace = keeper.scope.config.overrun_grace
        if grace is not None:
            deadlines = [running.deadline for running in batch if running.deadline is not None]
            if len(deadlines) == len(batch):
                loop = asyncio.get_running_loop()
                self._overrun = loop.call_at(max(deadlines) + grace, keeper.end_overrun, self._worker)

    def on_answer(self, answer: Answer) -> None:
        # One of them may be to blame for what the model fails with; what else goes wrong is nobody's.
        self._end(answer, is_blamed=isinstance(answer, ModelhostError) and answer.reason in _OF_PREDICTIONS)

    def _end(self, answer: Answer, is_blamed: bool) -> None:
        ns = int((time.monotonic() - self._started) * 1e9)
        # Before all else, so that the worker goes on.
        self._keeper.scheduler.leave()
        if self._overrun is not None:
            self._overrun.cancel()
        batch, runner = self._batch, self._runner
        answers: Sequence[Answer] | None
        if len(batch) == 1 and (isinstance(answer, ModelhostError) or self._rows in (0, batch[0].rows)):
            runner.note_alone(batch[0], answer)
            answers = (answer,)
        elif isinstance(answer, ModelhostError):
            if is_blamed:
                self._run_each_alone(_FailedBatch(runner, len(batch), answer))
                return
            answers = [answer] * len(batch)
        else:
            answers = split(answer, [running.rows for running in batch], self._rows)
            if answers is None:
                runner.batching.turn_off("outputs of a batch were not of its extent")
                self._run_each_alone(None)
                return
        if batch[0].caller != _INTERNAL_CALLER:
            runner.version.statistics.run_count += 1
            runner.batching.note(len(batch), ns, len(batch) * _byte_count(batch[0].inputs))
        for running, given in zip(batch, answers, strict=True):
            if running.failed_batch is not None:
                running.failed_batch.note(given)
            running.finish(given, int((self._started - running.since) * 1e9) if running.since else 0, ns)

    def _run_each_alone(self, failed: _FailedBatch | None) -> None:
        for running in self._batch:
            running.failed_batch = failed
            if running.future.done():
                # The caller has left meanwhile.
                running.refuse(_LEFT)
            else:
                self._keeper.scheduler.submit_first(running)


_LEFT = ModelhostError(Reason.CANCELLED, "the caller has left")


def _byte_count(inputs: Inputs) -> int:
    return sum(len(tensor.data) for _, tensor in inputs)  # type: ignore[arg-type, misc]


def _kind(inputs: Inputs) -> Kind | None:
    """What predictions have in common that may share a batch; None for one that may share none."""
    # Inputs with default values may all be left out.
    rows = inputs[0][1].shape[0] if inputs else 0
    if not rows or any(tensor.shape[0] != rows for _, tensor in inputs):
        return None
    return tuple(position for position, _ in inputs), tuple(tuple(tensor.shape)[1:] for _, tensor in inputs)


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
    resource = version.resource
    return ModelhostError(
        Reason.WORKER_UNAVAILABLE, f"the worker of {resource} is being replaced", resource=resource, retry_after=0.5
    )
