"""The predictions that callers ask for: each finds its version, and begins at once or when that is in memory again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import ModelhostError
from ..store.phases import Phase
from ..store.records import Version
from ..store.store import Store
from ..tensors import RawTensor
from .checks import NATIVE_CHECKS, Checks
from .draining import Draining
from .keepers import Keepers
from .many import Outcome, Target, predict_many
from .postponed import postpone
from .prediction import Begun, begin


class Predictions:
    """Begins predictions.

    Attributes:
        count: of those asked for so far.
    """

    def __init__(self, store: Store, keepers: Keepers, draining: Draining) -> None:
        self._store = store
        self._keepers = keepers
        self._draining = draining
        self.count = 0

    def begin(
        self,
        scope: str,
        model: str,
        version: int,
        label: str,
        signature: str,
        inputs: Mapping[str, RawTensor],
        output_filter: Sequence[str] = (),
        *,
        deadline: float | None = None,
        caller: str = "",
        priority: int = 0,
        checks: Checks = NATIVE_CHECKS,
    ) -> Begun:
        """Begins to run a signature of a version.

        Raises:
            ModelhostError, ForeignError: SERVER_DRAINING, RATE_LIMIT, and what `Store.acquire` and `prediction.begin`
                raise.
        """
        self._draining.check_accepting()
        self.count += 1
        acquired = self._store.acquire(scope, model, version, label)
        keeper = self._keepers.of(acquired.scope)
        if keeper.scope.config.caller_rate_limit:
            try:
                keeper.take_turn(caller)
            except ModelhostError:
                acquired.release()
                raise
        if acquired.phase is Phase.AVAILABLE:
            acquired.statistics.hit_count += 1
            start = begin
        else:
            start = postpone
        return start(
            keeper, acquired, signature, inputs, output_filter,
            deadline=deadline, caller=caller, priority=priority, checks=checks,
        )  # fmt: skip

    async def many(
        self,
        scope: str,
        targets: Sequence[Target],
        inputs: Mapping[str, RawTensor],
        output_filter: Sequence[str] = (),
        caller: str = "",
    ) -> list[Outcome]:
        """Runs several models of a scope on the same inputs; what became of each, in order.

        Raises:
            ModelhostError: SERVER_DRAINING, SCOPE_NOT_FOUND, RATE_LIMIT.
        """
        self._draining.check_accepting()
        name = self._store.scope(scope).name
        for _ in targets:
            self._keepers.of(name).take_turn(caller)
        acquired: list[tuple[Version, str] | ModelhostError] = []
        for target in targets:
            try:
                version = self._store.acquire(name, target.model, target.version, target.label)
            except ModelhostError as error:
                acquired.append(error)
            else:
                acquired.append((version, target.signature))
        return await predict_many(self._keepers.of(name), acquired, inputs, output_filter, caller)
