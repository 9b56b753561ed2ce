"""One prediction: from a handle on a version and inputs by name to outputs by name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ..errors import ForeignError, ModelhostError
from ..scheduling.scheduler import Scheduler
from ..store.records import Version
from ..tensors import RawTensor, SignatureSpec
from .checks import NATIVE_CHECKS, Checks
from .keeper import ScopeKeeper
from .running import Running, SignatureRunner


class Prediction(NamedTuple):
    """The outputs by name, and the version that computed them."""

    version: int
    outputs: dict[str, RawTensor]


class Begun:
    """A prediction that has begun."""

    __slots__ = ()

    async def result(self) -> Prediction:
        """What comes of it. A caller that is cancelled meanwhile has cancelled the prediction.

        Raises:
            ModelhostError: QUEUE_FULL, WORKER_UNAVAILABLE, WORKER_DIED, what the model itself fails with, and for a
                version that is EVICTED what `Reloading.wait` raises.
            ForeignError: what the protocol's checks raise of a version of which they know only now what it takes.
        """
        raise NotImplementedError

    def when_done(self, tell: Callable[[Prediction | ModelhostError | ForeignError], None]) -> None:
        """Tells what came of it, unless it is cancelled."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Nobody waits for it any longer: it is not run, unless it is running already."""
        raise NotImplementedError


class Submitted(Begun):
    """A prediction that waits for its turn, or runs."""

    __slots__ = ("_running", "_scheduler", "_spec", "_wanted")

    def __init__(self, running: Running, scheduler: Scheduler, spec: SignatureSpec, wanted: Sequence[int]) -> None:
        self._running = running
        self._scheduler = scheduler
        self._spec = spec
        self._wanted = wanted

    async def result(self) -> Prediction:
        """See Begun."""
        try:
            outputs = await self._running.future
        except asyncio.CancelledError:
            self.cancel()
            raise
        return self._prediction(outputs)

    def when_done(self, tell: Callable[[Prediction | ModelhostError | ForeignError], None]) -> None:
        """See Begun."""

        def done(future: asyncio.Future[Sequence[RawTensor]]) -> None:
            if future.cancelled():
                return
            error = future.exception()
            tell(error if isinstance(error, ModelhostError) else self._prediction(future.result()))

        self._running.future.add_done_callback(done)

    def cancel(self) -> None:
        """See Begun."""
        self._running.future.cancel()
        # What runs gives the handle back when it ends.
        if self._scheduler.withdraw(self._running):
            self._running.runner.version.release()

    def _prediction(self, outputs: Sequence[RawTensor]) -> Prediction:
        return Prediction(self._running.runner.version.number, named_outputs(self._spec, self._wanted, outputs))


def begin(
    keeper: ScopeKeeper,
    version: Version,
    signature: str,
    inputs: Mapping[str, RawTensor],
    output_filter: Sequence[str],
    *,
    deadline: float | None = None,
    caller: str = "",
    priority: int = 0,
    checks: Checks = NATIVE_CHECKS,
) -> Begun:
    """Begins to run a signature of a version in memory that the caller acquired; the handle is given back here.

    Args:
        keeper: of the version's scope.
        version: to run.
        signature: its name; see `choose_signature`.
        inputs: by name.
        output_filter: names of the outputs wanted; all when empty.
        deadline: on the event loop's clock; matters to scopes with an overrun grace only.
        caller: callers take turns.
        priority: higher ones come first.
        checks: what signature, inputs and outputs must be.

    Raises:
        ModelhostError, ForeignError: what `checks` raises, and QUEUE_FULL.
    """
    try:
        position, spec = checks.choose_signature(version, signature)
        chosen = checks.check_inputs(spec, inputs)
        wanted = checks.choose_outputs(spec, output_filter)
        version.statistics.last_used = time.time()
        running = Running(runner_of(keeper, version, position), chosen, wanted, deadline, caller, priority)
        running.is_alone = not (checks.keeps_shapes or spec.accepts_shapes(chosen))
        keeper.scheduler.submit(running)
    except BaseException:
        version.release()
        raise
    return Submitted(running, keeper.scheduler, spec, wanted)


def runner_of(keeper: ScopeKeeper, version: Version, position: int) -> SignatureRunner:
    """What runs a signature of a version as it is loaded now."""
    loaded = version.loaded
    assert loaded is not None, "only loaded versions are acquired"
    runner = loaded.runners.get(position)
    if runner is None:
        runner = loaded.runners[position] = SignatureRunner(keeper, version, loaded, position)
    return runner


def named_outputs(spec: SignatureSpec, wanted: Sequence[int], answer: Sequence[RawTensor]) -> dict[str, RawTensor]:
    """The outputs of a signature that were wanted (all when empty) by name."""
    names = [spec.outputs[i].name for i in wanted] if wanted else [output.name for output in spec.outputs]
    return dict(zip(names, answer, strict=True))
