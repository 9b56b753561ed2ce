"""One prediction on its way through a scope's gate to its worker and back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..errors import ModelhostError, Reason
from ..scheduling.gate import Gate
from ..store.names import version_resource
from ..store.records import Version
from ..tensors import RawTensor, SignatureSpec
from ..workers.calls import Answer
from .checks import check_inputs, choose_outputs, choose_signature
from .keeper import ScopeKeeper


class Prediction(NamedTuple):
    """The outputs by name, and the version that computed them."""

    version: int
    outputs: dict[str, RawTensor]


class _Running:
    """What a prediction holds while a worker has it. It is given back when the worker answers, not when the caller
    leaves: an unload must wait for the worker.
    """

    __slots__ = ("_entered", "_gate", "_queue_ns", "_version", "future", "overrun")

    def __init__(self, version: Version, gate: Gate, queue_ns: int) -> None:
        self._version = version
        self._gate = gate
        self._queue_ns = queue_ns
        self._entered = time.monotonic_ns()
        self.future: asyncio.Future[list[RawTensor]] = asyncio.get_running_loop().create_future()
        self.overrun: asyncio.TimerHandle | None = None

    def on_answer(self, answer: Answer) -> None:
        self._gate.leave()
        if self.overrun is not None:
            self.overrun.cancel()
        statistics = self._version.statistics
        if isinstance(answer, ModelhostError):
            statistics.failure_count += 1
        else:
            statistics.success_count += 1
            statistics.queue_ns += self._queue_ns
            statistics.run_ns += time.monotonic_ns() - self._entered
        self._version.release()
        if self.future.done():
            return
        if isinstance(answer, ModelhostError):
            self.future.set_exception(answer)
        else:
            self.future.set_result(answer)


async def predict(
    keeper: ScopeKeeper,
    version: Version,
    signature: str,
    inputs: Mapping[str, RawTensor],
    output_filter: Sequence[str],
    deadline: float | None,
) -> Prediction:
    """Runs a signature of a version that the caller acquired; the handle is given back here.

    Args:
        keeper: of the version's scope.
        version: to run.
        signature: its name; see `choose_signature`.
        inputs: by name.
        output_filter: names of the outputs wanted; all when empty.
        deadline: on the event loop's clock; matters to scopes with an overrun grace only.

    Raises:
        ModelhostError: what `checks` raises; QUEUE_FULL, WORKER_UNAVAILABLE, WORKER_DIED, VERSION_LOADING, and
            what the model itself fails with.
    """
    gate = keeper.gate
    queue_ns = 0
    try:
        position, spec = choose_signature(version, signature)
        chosen = check_inputs(spec, inputs)
        wanted = choose_outputs(spec, output_filter)
        version.statistics.last_used = time.time()
        if not gate.try_enter():
            started = time.monotonic_ns()
            await gate.enter()
            queue_ns = time.monotonic_ns() - started
    except BaseException:
        version.release()
        raise
    worker = keeper.workers.pick(version.key)
    if worker is None:
        gate.leave()
        version.release()
        raise not_there(version)
    running = _Running(version, gate, queue_ns)
    try:
        worker.link.predict(version.key, position, wanted, chosen, running.on_answer)
    except Exception:
        # Nothing was sent, so no answer will give back what the prediction holds.
        gate.leave()
        version.release()
        raise
    grace = keeper.scope.config.overrun_grace
    if grace is not None and deadline is not None:
        running.overrun = asyncio.get_running_loop().call_at(deadline + grace, keeper.end_overrun, worker)
    return Prediction(version.number, named_outputs(spec, wanted, await running.future))


def named_outputs(spec: SignatureSpec, wanted: Sequence[int], answer: Sequence[RawTensor]) -> dict[str, RawTensor]:
    """The outputs of a signature that were wanted (all when empty) by name."""
    names = [spec.outputs[i].name for i in wanted] if wanted else [output.name for output in spec.outputs]
    return dict(zip(names, answer, strict=True))


def not_there(version: Version) -> ModelhostError:
    """Why a version that is AVAILABLE cannot be asked at this moment."""
    resource = version_resource(version.scope, version.model, version.number)
    return ModelhostError(
        Reason.WORKER_UNAVAILABLE, f"the worker of {resource} is being replaced", resource=resource, retry_after=0.5
    )
