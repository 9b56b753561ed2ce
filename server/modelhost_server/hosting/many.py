"""The same inputs through several versions of a scope: each on its way as in `prediction`, spread over the worker's
lanes, the inputs sent once a lane.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import ModelhostError
from ..store.records import Version
from ..tensors import RawTensor, SignatureSpec
from ..workers.calls import Answer, ManyRun
from .checks import check_inputs, choose_outputs, choose_signature
from .keeper import ScopeKeeper
from .prediction import Prediction, named_outputs, not_there

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

    def finish(self, answer: Answer, queue_ns: int, run_ns: int) -> Outcome:
        statistics = self.version.statistics
        self.version.release()
        if isinstance(answer, ModelhostError):
            statistics.failure_count += 1
            return answer
        statistics.success_count += 1
        statistics.queue_ns += queue_ns
        statistics.run_ns += run_ns
        return Prediction(self.version.number, named_outputs(self.spec, self.wanted, answer))


async def predict_many(
    keeper: ScopeKeeper,
    acquired: Sequence[tuple[Version, str] | ModelhostError],
    inputs: Mapping[str, RawTensor],
    output_filter: Sequence[str],
) -> list[Outcome]:
    """Runs several versions, each with a signature, on the same inputs.

    Args:
        keeper: of the scope.
        acquired: the versions, with a handle on each, which is given back here, and the signature's name; or why there
            is none.
        inputs: by name.
        output_filter: names of the outputs wanted; all when empty.

    Returns:
        What became of each, in order.
    """
    names = list(inputs)
    outcomes: list[Outcome | None] = []
    targets: dict[int, _Run] = {}
    for place, item in enumerate(acquired):
        outcomes.append(None)
        if isinstance(item, ModelhostError):
            outcomes[place] = item
            continue
        version, signature = item
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
        targets[place] = _Run(version, spec, wanted, ManyRun(version.key, position, wanted, places))
    lanes = max(1, min(keeper.gate.max_in_flight, len(targets)))
    # Every lane its share, in turn, so that models of different cost mix.
    shares = deque(dict(list(targets.items())[lane::lanes]) for lane in range(lanes))
    answered = []
    asked = time.monotonic_ns()
    try:
        while shares:
            await keeper.gate.enter()
            answered.append(_send(keeper, shares.popleft(), list(inputs.values()), time.monotonic_ns() - asked))
    except ModelhostError as error:
        for place, run in _all(shares):
            outcomes[place] = run.finish(error, 0, 0)
    except asyncio.CancelledError:
        for _, run in _all(shares):
            run.version.release()
        raise
    for future in answered:
        for place, outcome in (await future).items():
            outcomes[place] = outcome
    return [outcome for outcome in outcomes if outcome is not None]


def _all(shares: Iterable[Mapping[int, _Run]]) -> list[tuple[int, _Run]]:
    return [item for share in shares for item in share.items()]


def _send(
    keeper: ScopeKeeper, share: Mapping[int, _Run], tensors: Sequence[RawTensor], queue_ns: int
) -> asyncio.Future[dict[int, Outcome]]:
    """Sends a lane's share, for which the gate was entered. Handles and the place in the gate are given back when the
    worker answers, even if the caller has left by then.
    """
    entered = time.monotonic_ns()
    future: asyncio.Future[dict[int, Outcome]] = asyncio.get_running_loop().create_future()
    pick = keeper.workers.pick
    worker = next((picked for run in share.values() if (picked := pick(run.version.key)) is not None), None)
    there = {p: r for p, r in share.items() if worker is not None and r.version.key in worker.loaded}
    outcomes = {p: r.finish(not_there(r.version), 0, 0) for p, r in share.items() if p not in there}

    def on_answers(answers: Sequence[Answer]) -> None:
        keeper.gate.leave()
        each = (time.monotonic_ns() - entered) // max(1, len(there))
        for (place, run), answer in zip(there.items(), answers, strict=True):
            outcomes[place] = run.finish(answer, queue_ns, each)
        if not future.done():
            future.set_result(outcomes)

    if worker is None or not there:
        on_answers(())
        return future
    try:
        worker.link.predict_many([run.run for run in there.values()], tensors, on_answers)
    except ModelhostError as error:
        # Nothing was sent, so no answer will come.
        on_answers([error] * len(there))
    return future
