"""The two state machines of a version: phases (detailed, ours) and states (coarse, the callers')."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """What callers see; named as in `modelhost.v1.VersionState`."""

    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    UNLOADING = "UNLOADING"
    UNLOADED = "UNLOADED"
    FAILED = "FAILED"
    EVICTED = "EVICTED"


class Phase(Enum):
    """Where a version really is. The value is the state that callers see."""

    def __new__(cls, state: State) -> Phase:
        member = object.__new__(cls)
        member._value_ = (len(cls.__members__), state)
        return member

    @property
    def state(self) -> State:
        """What callers see of this phase."""
        return self.value[1]  # type: ignore[no-any-return]

    # In: a load was accepted. Out: its turn comes (LOADING), it is unloaded first (DRAINING), no worker can be had for
    # it (FAILED; RECOVERING when it had been served before a restart), or it is to be loaded by its first prediction
    # only (EVICTED).
    WAITING = State.LOADING
    # In: a worker loads it. Out: AVAILABLE, FAILED; RECOVERING when the worker dies; DRAINING when it is unloaded;
    # EVICTED when its worker died, and there is no memory for it in the next.
    LOADING = State.LOADING
    # In: loaded. Out: EVICTED when it makes room, RECOVERING when the worker dies, DRAINING when it is unloaded.
    AVAILABLE = State.AVAILABLE
    # In: it made room for others. Out: RELOADING when it is wanted, DRAINING when it is unloaded.
    EVICTED = State.EVICTED
    # In: a prediction waits for a version that is EVICTED. Out: AVAILABLE; EVICTED when there is no memory for it;
    # FAILED when its source is broken; RECOVERING when the worker dies; DRAINING when it is unloaded.
    RELOADING = State.LOADING
    # In: its worker died, or it was served before and cannot be loaded now. Out: LOADING in the next worker, FAILED
    # when it is quarantined, DRAINING.
    RECOVERING = State.LOADING
    # In: it is to be unloaded; takes no new handles. Out: FREEING when the last handle is gone or time is up.
    DRAINING = State.UNLOADING
    # In: the worker frees it. Out: UNLOADED.
    FREEING = State.UNLOADING
    # In: freed; the store forgets the version. Out: none.
    UNLOADED = State.UNLOADED
    # In: could not be loaded, or was quarantined. Out: FREEING when it is unloaded. A new
    # load of its number puts another record in its place.
    FAILED = State.FAILED


TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    Phase.WAITING: frozenset({Phase.LOADING, Phase.EVICTED, Phase.RECOVERING, Phase.DRAINING, Phase.FAILED}),
    Phase.LOADING: frozenset({Phase.AVAILABLE, Phase.EVICTED, Phase.FAILED, Phase.RECOVERING, Phase.DRAINING}),
    Phase.AVAILABLE: frozenset({Phase.EVICTED, Phase.RECOVERING, Phase.DRAINING}),
    Phase.EVICTED: frozenset({Phase.RELOADING, Phase.DRAINING}),
    Phase.RELOADING: frozenset({Phase.AVAILABLE, Phase.EVICTED, Phase.FAILED, Phase.RECOVERING, Phase.DRAINING}),
    Phase.RECOVERING: frozenset({Phase.LOADING, Phase.FAILED, Phase.DRAINING}),
    Phase.DRAINING: frozenset({Phase.FREEING}),
    Phase.FREEING: frozenset({Phase.UNLOADED}),
    Phase.UNLOADED: frozenset(),
    Phase.FAILED: frozenset({Phase.FREEING}),
}

# Phases in which predictions are taken: at once, or after a reload that they wait for.
SERVED = frozenset({Phase.AVAILABLE, Phase.EVICTED, Phase.RELOADING})
# Phases in which a version is wanted: it is served, or on its way there.
WANTED = SERVED | {Phase.WAITING, Phase.LOADING, Phase.RECOVERING}
# Phases in which it is in memory, or on its way there.
IN_MEMORY = WANTED - {Phase.EVICTED}


class IllegalTransitionError(Exception):
    """A bug: a version was to skip a phase."""


def check_transition(current: Phase, target: Phase) -> None:
    """Guards every change of phase.

    Raises:
        IllegalTransitionError: there is no way from `current` to `target`.
    """
    if target not in TRANSITIONS[current]:
        raise IllegalTransitionError(f"{current.name} -> {target.name}")
