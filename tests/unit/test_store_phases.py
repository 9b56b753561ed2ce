"""Phases: what steps there are, and the helpers by which the other tests of the store take them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import pytest
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.store.operations import LoadRequest
from modelhost_server.store.phases import TRANSITIONS, WANTED, IllegalTransitionError, Phase, State
from modelhost_server.store.records import LoadOptions, Residence, ScopeConfig, Version
from modelhost_server.store.store import Store

BROKEN = ModelhostError(Reason.SOURCE_INVALID, "the source is broken")

# The steps that bring a new version into each phase.
WAY: dict[Phase, tuple[Phase, ...]] = {
    Phase.WAITING: (),
    Phase.LOADING: (Phase.LOADING,),
    Phase.AVAILABLE: (Phase.LOADING, Phase.AVAILABLE),
    Phase.EVICTED: (Phase.LOADING, Phase.AVAILABLE, Phase.EVICTED),
    Phase.RELOADING: (Phase.LOADING, Phase.AVAILABLE, Phase.EVICTED, Phase.RELOADING),
    Phase.RECOVERING: (Phase.LOADING, Phase.AVAILABLE, Phase.RECOVERING),
    Phase.DRAINING: (Phase.LOADING, Phase.AVAILABLE, Phase.DRAINING),
    Phase.FREEING: (Phase.LOADING, Phase.AVAILABLE, Phase.DRAINING, Phase.FREEING),
    Phase.UNLOADED: (Phase.LOADING, Phase.AVAILABLE, Phase.DRAINING, Phase.FREEING, Phase.UNLOADED),
    Phase.FAILED: (Phase.LOADING, Phase.FAILED),
}


def new_store(**kwargs: Any) -> Store:
    """A store with its default scope."""
    store = Store(**kwargs)
    store.create_scope("default", ScopeConfig())
    return store


def request(model: str = "m", **fields: Any) -> LoadRequest:
    """A load of the next version of a model, but for `fields`."""
    defaults: dict[str, Any] = {
        "scope": "default", "version": 0, "source": "/models/m", "path": "/models/m", "options": LoadOptions()
    }  # fmt: skip
    return LoadRequest(model=model, **defaults | fields)


def bring(store: Store, version: Version, *steps: Phase) -> Version:
    """Takes a version through these phases."""
    for step in steps:
        store.transition(version, step, BROKEN if step is Phase.FAILED else None)
    return version


def hosted(store: Store, phase: Phase = Phase.AVAILABLE, model: str = "m", **fields: Any) -> Version:
    """A version newly loaded and brought into a phase."""
    version, new = store.accept_load(request(model, **fields))
    assert new
    return bring(store, version, *WAY[phase])


@contextmanager
def refused(reason: Reason) -> Iterator[pytest.ExceptionInfo[ModelhostError]]:
    """Expects a refusal for this reason."""
    with pytest.raises(ModelhostError) as caught:
        yield caught
    assert caught.value.reason is reason


@pytest.mark.parametrize("phase", Phase)
def test_every_phase_can_be_reached(phase: Phase) -> None:
    assert hosted(new_store(), phase).phase is phase


@pytest.mark.parametrize(
    ("current", "target"), [(a, b) for a, b in product(Phase, Phase) if b not in TRANSITIONS[a]], ids=lambda p: p.name
)
def test_a_skipped_phase_is_refused_and_changes_nothing(current: Phase, target: Phase) -> None:
    store = new_store()
    version = hosted(store, current)
    revision = store.events.revision
    with pytest.raises(IllegalTransitionError):
        store.transition(version, target)
    assert version.phase is current
    assert store.events.revision == revision


def test_callers_see_states_change_only_as_promised() -> None:
    seen = {(a.state, b.state) for a, targets in TRANSITIONS.items() for b in targets if a.state is not b.state}
    assert seen == {
        (State.LOADING, State.AVAILABLE),
        (State.LOADING, State.UNLOADING),
        (State.LOADING, State.FAILED),
        (State.AVAILABLE, State.LOADING),  # Its worker died.
        (State.AVAILABLE, State.UNLOADING),
        (State.UNLOADING, State.UNLOADED),
        (State.FAILED, State.UNLOADING),
        (State.AVAILABLE, State.EVICTED),
        (State.EVICTED, State.LOADING),  # A prediction wants it.
        (State.LOADING, State.EVICTED),  # There is no memory for it now.
        (State.EVICTED, State.UNLOADING),
    }


def test_phases_of_one_state_are_not_one_phase() -> None:
    assert len({*Phase}) == 10
    assert Phase.DRAINING is not Phase.FREEING


def test_a_wanted_version_can_always_be_drained_and_then_only_go() -> None:
    assert all(Phase.DRAINING in TRANSITIONS[phase] for phase in WANTED)
    way, phase = [Phase.DRAINING], Phase.DRAINING
    while TRANSITIONS[phase]:
        (phase,) = TRANSITIONS[phase]
        way.append(phase)
    assert way == [Phase.DRAINING, Phase.FREEING, Phase.UNLOADED]


@pytest.mark.parametrize("phase", [Phase.EVICTED, Phase.RELOADING])
def test_an_evicted_version_is_served_as_before(phase: Phase) -> None:
    store = new_store()
    hosted(store, Phase.AVAILABLE, version=1, keep_older=True)
    version = hosted(store, phase, version=2, keep_older=True, labels=("stable",))
    model = store.model("", "m")
    assert model.serving is version
    assert store.acquire("", "m") is store.acquire("", "m", label="stable") is version
    assert version.handles == 2
    store.labels.add(version, ("canary",))
    assert model.labels == {"stable": 2, "canary": 2}


def test_why_there_was_no_memory_is_over_with_the_next_reload() -> None:
    store = new_store()
    version = hosted(store, Phase.RELOADING)
    store.transition(version, Phase.EVICTED, BROKEN)
    assert version.error is BROKEN
    bring(store, version, Phase.RELOADING, Phase.AVAILABLE)
    assert version.error is None
    assert version.statistics.eviction_count == 1


def test_a_scope_counts_what_is_gone_too() -> None:
    store = new_store()
    version = hosted(store, Phase.EVICTED)
    version.statistics.hit_count, version.statistics.miss_count = 3, 2
    bring(store, version, Phase.DRAINING, Phase.FREEING, Phase.UNLOADED)
    hosted(store, Phase.AVAILABLE).statistics.hit_count = 4
    assert store.scope("").residence() == Residence(hit_count=7, miss_count=2, eviction_count=1)


def test_the_cause_of_a_recovery_stays_when_the_version_is_available_again() -> None:
    store = new_store()
    version = hosted(store, Phase.AVAILABLE)
    assert version.error is None
    store.transition(version, Phase.RECOVERING, BROKEN)
    bring(store, version, Phase.LOADING, Phase.AVAILABLE)
    assert version.error is BROKEN
