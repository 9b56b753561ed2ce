"""One prediction: from a handle on a version and inputs by name to outputs by name."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..store.records import Version
from ..tensors import RawTensor, SignatureSpec
from .checks import check_inputs, choose_outputs, choose_signature
from .keeper import ScopeKeeper
from .running import Running, SignatureRunner


class Prediction(NamedTuple):
    """The outputs by name, and the version that computed them."""

    version: int
    outputs: dict[str, RawTensor]


async def predict(
    keeper: ScopeKeeper,
    version: Version,
    signature: str,
    inputs: Mapping[str, RawTensor],
    output_filter: Sequence[str],
    *,
    deadline: float | None = None,
    caller: str = "",
    priority: int = 0,
) -> Prediction:
    """Runs a signature of a version that the caller acquired; the handle is given back here.

    Args:
        keeper: of the version's scope.
        version: to run.
        signature: its name; see `choose_signature`.
        inputs: by name.
        output_filter: names of the outputs wanted; all when empty.
        deadline: on the event loop's clock; matters to scopes with an overrun grace only.
        caller: callers take turns.
        priority: higher ones come first.

    Raises:
        ModelhostError: what `checks` raises; QUEUE_FULL, WORKER_UNAVAILABLE, WORKER_DIED, VERSION_LOADING, and
            what the model itself fails with.
    """
    scheduler = keeper.scheduler
    try:
        position, spec = choose_signature(version, signature)
        chosen = check_inputs(spec, inputs)
        wanted = choose_outputs(spec, output_filter)
        version.statistics.last_used = time.time()
        running = Running(runner_of(keeper, version, position), chosen, wanted, deadline, caller, priority)
        scheduler.submit(running)
    except BaseException:
        version.release()
        raise
    try:
        outputs = await running.future
    except BaseException:
        # The caller has left. What runs already gives the handle back when it ends.
        if scheduler.withdraw(running):
            version.release()
        raise
    return Prediction(version.number, named_outputs(spec, wanted, outputs))


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
