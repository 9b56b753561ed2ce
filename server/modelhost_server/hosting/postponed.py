"""Predictions whose version has to be loaded again first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from ..errors import ForeignError, ModelhostError
from ..store.records import Version
from ..tensors import RawTensor
from .checks import NATIVE_CHECKS, Checks
from .keeper import ScopeKeeper
from .prediction import Begun, Prediction, begin


class Postponed(Begun):
    """A prediction that begins when its version is in memory. It holds a handle until then, so that its version is not
    evicted in between.
    """

    __slots__ = ("_holds", "_task", "_version")

    def __init__(
        self, keeper: ScopeKeeper, version: Version, start: Callable[[], Begun], deadline: float | None
    ) -> None:
        self._version = version
        self._holds = True
        self._task = asyncio.get_running_loop().create_task(self._run(keeper, start, deadline))
        # Not within the task, which may be cancelled before it has begun.
        self._task.add_done_callback(lambda _: self._release())

    async def _run(self, keeper: ScopeKeeper, start: Callable[[], Begun], deadline: float | None) -> Prediction:
        await keeper.reloading.wait(self._version, deadline)
        self._holds = False
        return await start().result()

    def _release(self) -> None:
        if self._holds:
            self._holds = False
            self._version.release()

    async def result(self) -> Prediction:
        """See Begun."""
        return await self._task

    def when_done(self, tell: Callable[[Prediction | ModelhostError | ForeignError], None]) -> None:
        """See Begun."""

        def done(task: asyncio.Task[Prediction]) -> None:
            if task.cancelled():
                return
            error = task.exception()
            tell(error if isinstance(error, ModelhostError | ForeignError) else task.result())

        self._task.add_done_callback(done)

    def cancel(self) -> None:
        """See Begun."""
        self._task.cancel()


def postpone(
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
    """Begins to run a signature of a version that is not in memory; see `prediction.begin`.

    Raises:
        ModelhostError, ForeignError: what `checks` raises, when it is known what the version takes: nothing is loaded
            for a prediction that is not right.
    """
    version.statistics.miss_count += 1
    if version.loaded is not None:
        try:
            _, spec = checks.choose_signature(version, signature)
            checks.check_inputs(spec, inputs)
            checks.choose_outputs(spec, output_filter)
        except BaseException:
            version.release()
            raise

    def start() -> Begun:
        return begin(
            keeper, version, signature, inputs, output_filter, deadline=deadline, caller=caller, priority=priority,
            checks=checks,
        )  # fmt: skip

    return Postponed(keeper, version, start, deadline)
