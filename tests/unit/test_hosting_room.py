"""Room is made by evicting one after the other, as far as what is measured says; without processes."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.hosting.admission import Budget, NoMemoryError
from modelhost_server.hosting.room import Room
from modelhost_server.store.phases import Phase
from modelhost_server.store.records import Loaded, LoadOptions, Version

MB = 1 << 20
LIMIT = 100 * MB


def version(key: int, size: int, last_used: float = 0.0, phase: Phase = Phase.AVAILABLE, handles: int = 0) -> Version:
    made = Version("s", f"m{key}", 1, key, "", "", LoadOptions(evictable=True))
    made.phase, made.handles = phase, handles
    made.statistics.last_used = last_used
    made.loaded = Loaded("tensorflow", "", (), (), size * MB, 0, 0, 0, (0, 0, ""))
    return made


class Scope:
    """Versions, and what a worker that holds them would have: `besides` for itself, of which each one that is evicted
    gives back what it is said to, and a new worker all.
    """

    def __init__(self, versions: Sequence[Version], besides: int = 10) -> None:
        self.versions = list(versions)
        self.besides = besides
        self.evicted: list[int] = []
        self.renewed = 0
        self.budget = Budget("scope 's'", lambda: LIMIT, self.measure, lambda: self.versions)
        self.room = Room(lambda v: v.phase is Phase.AVAILABLE, self.evict, self.give_back)

    async def measure(self) -> int:
        held = (v.loaded.private_bytes for v in self.versions if v.loaded and v.phase is Phase.AVAILABLE)
        return self.besides * MB + sum(held)

    async def evict(self, one: Version) -> None:
        assert not one.handles
        one.phase = Phase.EVICTED
        self.evicted.append(one.key)

    async def give_back(self, wanted: Version) -> bool:
        has_grown = self.besides > 10 and not any(v.phase is Phase.AVAILABLE for v in self.versions)
        if has_grown:
            self.besides, self.renewed = 10, self.renewed + 1
        return has_grown

    async def make(self, needed: int, phase: Phase = Phase.RELOADING, patience: float = 0.0) -> None:
        lack = NoMemoryError(Reason.MEMORY_LIMIT, "too little")
        lack.needed, lack.budget = needed * MB, self.budget
        wanted = version(99, needed, phase=phase)
        self.versions.append(wanted)
        await self.room.make(lack, wanted, time.monotonic() + patience)


async def test_the_one_that_was_not_used_for_the_longest_time_goes_and_no_more_than_needed() -> None:
    scope = Scope([version(1, 30, 2.0), version(2, 30, 1.0), version(3, 30, 3.0)])
    await scope.make(30)
    assert scope.evicted == [2]


async def test_what_a_large_one_gave_back_may_be_less_than_it_took() -> None:
    """What it took when it was loaded is what the engine took, too: measured after that, another one has to go."""
    scope = Scope([version(1, 30, 1.0), version(2, 30, 2.0), version(3, 20, 3.0)], besides=20)
    assert scope.versions[0].loaded is not None

    async def measure() -> int:
        return await Scope.measure(scope) + (20 * MB if 1 in scope.evicted else 0)

    scope.budget.measure = measure
    await scope.make(20)
    assert scope.evicted == [1, 2]


async def test_protection_is_waited_for_as_long_as_patience_lasts_and_then_it_is_thrashing() -> None:
    scope = Scope([version(1, 80)])
    scope.versions[0].protected_until = time.monotonic() + 0.05
    await scope.make(50, patience=1.0)
    assert scope.evicted == [1]
    scope = Scope([version(1, 80)])
    scope.versions[0].protected_until = time.monotonic() + 60
    with pytest.raises(ModelhostError) as caught:
        await scope.make(50, patience=1.0)
    assert caught.value.reason is Reason.THRASHING
    assert caught.value.retry_after is not None
    assert 50 < caught.value.retry_after <= 60
    assert not scope.evicted


async def test_a_new_load_is_told_of_the_limit_not_of_thrashing() -> None:
    scope = Scope([version(1, 80)])
    scope.versions[0].protected_until = time.monotonic() + 60
    with pytest.raises(NoMemoryError):
        await scope.make(50, phase=Phase.LOADING)


async def test_what_is_in_use_stays_and_the_caller_is_told_when_to_come_back() -> None:
    scope = Scope([version(1, 80, handles=1)])
    with pytest.raises(NoMemoryError) as caught:
        await scope.make(50)
    assert caught.value.retry_after is not None
    assert not scope.evicted


async def test_what_can_never_fit_evicts_nothing() -> None:
    scope = Scope([version(1, 30), version(2, 30)])
    with pytest.raises(NoMemoryError) as caught:
        await scope.make(150)
    assert caught.value.retry_after is None
    assert not scope.evicted


async def test_a_worker_that_has_grown_makes_way_when_it_holds_nothing_any_more() -> None:
    scope = Scope([version(1, 20)], besides=60)
    await scope.make(60)
    assert (scope.evicted, scope.renewed) == ([1], 1)


async def test_what_is_being_loaded_is_about_to_be_protected() -> None:
    scope = Scope([version(1, 80, phase=Phase.RELOADING)])
    scope.budget.reserved = 80 * MB
    with pytest.raises(ModelhostError) as caught:
        await scope.make(50)
    assert caught.value.reason is Reason.THRASHING
