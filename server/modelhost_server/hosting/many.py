"""The same inputs through several versions of a scope: each on its way as in `prediction`, spread over the worker's
lanes, the inputs sent once a lane.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import ModelhostError, Reason
from ..scheduling.lines import Waiting
from ..store.phases import Phase
from ..store.records import Version
from ..tensors import RawTensor, SignatureSpec
from ..workers.calls import Answer, ManyRun
from .checks import check_inputs, choose_outputs, choose_signature
from .keeper import ScopeKeeper
from .postponed import postpone
from .prediction import Begun, Prediction, named_outputs
from .running import as_input_error, not_there

# What became of one target.
Outcome = Prediction | ModelhostError


class Target(NamedTuple):
    """What a caller asks of one model; see `Store.acquire`."""

    model: str
    version: int
    label: str
    signature: str


@dataclass(slots=True)
class _Run:
    """A version that runs, with a handle on it that is given back once."""

    version: Version
    spec: SignatureSpec
    wanted: list[int]
    run: ManyRun
    examples: int

    def finish(self, answer: Answer, queue_ns: int, run_ns: int) -> Outcome:
        self.version.release()
        self.version.statistics.run_count += 1
        self.version.statistics.note(isinstance(answer, ModelhostError), queue_ns, run_ns, self.examples)
        if isinstance(answer, ModelhostError):
            return answer
        return Prediction(self.version.number, named_outputs(self.spec, self.wanted, answer))


class _Share(Waiting):
    """What one lane runs of all that was asked for."""

    __slots__ = ("_entered", "_future", "_keeper", "_runs", "_tensors", "outcomes")

    def __init__(
        self, keeper: ScopeKeeper, runs: Mapping[int, _Run], tensors: Sequence[RawTensor], caller: str
    ) -> None:
        super().__init__(_SHARES, caller, 0)
        self._keeper = keeper
        self._runs = runs
        self._tensors = tensors
        self._entered = 0
        # By the place of the target.
        self.outcomes: dict[int, Outcome] = {}
        self._future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Runs all of it. What runs already goes on when the caller leaves."""
        try:
            self._keeper.scheduler.submit(self)
        except ModelhostError as error:
            self.refuse(error)
        try:
            await self._future
        except asyncio.CancelledError:
            if self._keeper.scheduler.withdraw(self):
                self.refuse(ModelhostError(Reason.CANCELLED, "the caller has left"))
            raise

    def refuse(self, error: Exception) -> None:
        """See Waiting."""
        assert isinstance(error, ModelhostError)
        self._finish(self._runs, [error] * len(self._runs))

    def send(self) -> None:
        """Sends it to a worker."""
        self._entered = time.monotonic_ns()
        # The worker that has the first of them: one that does not have all is about to have them, or to be replaced.
        pick = self._keeper.workers.pick
        worker = next((w for run in self._runs.values() if (w := pick(run.version.key)) is not None), None)
        there = {p: r for p, r in self._runs.items() if worker is not None and r.version.key in worker.loaded}
        missing = {p: r for p, r in self._runs.items() if p not in there}
        self._finish_some(missing, [not_there(run.version) for run in missing.values()])

        def on_answers(answers: Sequence[Answer]) -> None:
            self._keeper.scheduler.leave()
            self._finish(there, answers)

        if worker is None or not there:
            on_answers(())
            return
        try:
            dtypes = [run.spec.output_dtypes(run.wanted) for run in there.values()]
            worker.link.predict_many([run.run for run in there.values()], self._tensors, dtypes, on_answers)
        except (ModelhostError, OSError) as error:
            # Nothing was sent, so no answer will come.
            on_answers([as_input_error(error)] * len(there))

    def _finish(self, runs: Mapping[int, _Run], answers: Sequence[Answer]) -> None:
        self._finish_some(runs, answers)
        if not self._future.done():
            self._future.set_result(None)

    def _finish_some(self, runs: Mapping[int, _Run], answers: Sequence[Answer]) -> None:
        now = time.monotonic_ns()
        run_ns = (now - self._entered) // max(1, len(runs)) if self._entered else 0
        queue_ns = max(0, self._entered - int(self.since * 1e9)) if self.since else 0
        for (place, run), answer in zip(runs.items(), answers, strict=True):
            self.outcomes[place] = run.finish(answer, queue_ns, run_ns)


class _Shares:
    """Runs shares; to the scheduler they are one more model, whose predictions never run together."""

    key = 0
    max_delay = 0.0
    max_queue = 0
    queue_timeout = 0.0
    max_rows = 1

    def group(self, waiting: Waiting) -> Hashable:
        """See Runner."""
        return None

    def choose(self, waiting: int) -> int:
        """See Runner."""
        return 1

    def is_full(self, waiting: int, rows: int) -> bool:
        """See Runner."""
        return True

    def start(self, batch: Sequence[Waiting]) -> None:
        """See Runner."""
        for share in batch:
            assert isinstance(share, _Share)
            share.send()


_SHARES = _Shares()


async def predict_many(
    keeper: ScopeKeeper,
    acquired: Sequence[tuple[Version, str] | ModelhostError],
    inputs: Mapping[str, RawTensor],
    output_filter: Sequence[str],
    caller: str = "",
) -> list[Outcome]:
    """Runs several versions, each with a signature, on the same inputs. Those that have to be loaded again run by
    themselves, each as soon as it is there: all of them together may not fit into memory.

    Args:
        keeper: of the scope.
        acquired: the versions, with a handle on each, which is given back here, and the signature's name; or why there
            is none.
        inputs: by name.
        output_filter: names of the outputs wanted; all when empty.
        caller: callers take turns.

    Returns:
        What became of each, in order.
    """
    names = list(inputs)
    outcomes: list[Outcome | None] = []
    targets: dict[int, _Run] = {}
    postponed: dict[int, Begun] = {}
    for place, item in enumerate(acquired):
        outcomes.append(None)
        if isinstance(item, ModelhostError):
            outcomes[place] = item
            continue
        version, signature = item
        if version.phase is not Phase.AVAILABLE:
            try:
                postponed[place] = postpone(keeper, version, signature, inputs, output_filter, caller=caller)
            except ModelhostError as error:
                outcomes[place] = error
            continue
        version.statistics.hit_count += 1
        try:
            position, spec = choose_signature(version, signature)
            chosen = check_inputs(spec, inputs)
            wanted = choose_outputs(spec, output_filter)
        except ModelhostError as error:
            version.release()
            outcomes[place] = error
            continue
        version.statistics.last_used = time.time()
        places = [(i, names.index(spec.inputs[i].name)) for i, _ in chosen]
        examples = chosen[0][1].shape[0] if chosen and spec.is_batched else 1
        targets[place] = _Run(version, spec, wanted, ManyRun(version.key, position, wanted, places), examples)
    lanes = max(1, min(keeper.scheduler.max_in_flight, len(targets)))
    # Every lane its share, in turn, so that models of different cost mix.
    shares = [
        _Share(keeper, dict(list(targets.items())[lane::lanes]), list(inputs.values()), caller)
        for lane in range(lanes if targets else 0)
    ]
    results, _ = await asyncio.gather(
        asyncio.gather(*(_outcome(begun) for begun in postponed.values())),
        asyncio.gather(*(share.run() for share in shares)),
    )
    for place, outcome in zip(postponed, results, strict=True):
        outcomes[place] = outcome
    for share in shares:
        for place, outcome in share.outcomes.items():
            outcomes[place] = outcome
    return [outcome for outcome in outcomes if outcome is not None]


async def _outcome(begun: Begun) -> Outcome:
    try:
        return await begun.result()
    except ModelhostError as error:
        return error
