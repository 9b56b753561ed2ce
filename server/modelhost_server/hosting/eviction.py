"""Which versions are evicted to make room. Pure functions of what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from typing import NamedTuple

# A load that took so long is worth that many times as long in memory: of the time, a fifth goes into loading at most.
_WORTH = 4.0
_LEAST_SECONDS = 0.1


class Held(NamedTuple):
    """A version in memory that may be evicted: its size in bytes, when it was used last, whether predictions use it
    now, and until when it is protected, having just been loaded (on the clock of `now`).
    """

    key: int
    size: int
    last_used: float
    in_use: bool = False
    protected_until: float = 0.0


class Obstacle(Enum):
    """Why room cannot be made now."""

    # All that may be evicted together is not enough.
    TOO_LITTLE = auto()
    # Enough could be evicted, but has just been loaded.
    PROTECTED = auto()
    # Enough could be evicted, but is in use.
    IN_USE = auto()


class Refusal(NamedTuple):
    """Why room cannot be made now, and when it may be worth another try."""

    obstacle: Obstacle
    until: float = 0.0


def choose(missing: int, held: Sequence[Held], now: float) -> list[Held] | Refusal:
    """What is to be evicted so that this many bytes become free: what has not been used for the longest time, and no
    more than it takes.
    """
    idle = sorted((one for one in held if not one.in_use), key=lambda one: one.last_used)
    chosen: list[Held] = []
    total = 0
    for one in idle:
        if total < missing and one.protected_until <= now:
            chosen.append(one)
            total += one.size
    if total >= missing:
        # The last one may be so large that those before it can stay.
        for one in chosen[::-1]:
            if total - one.size >= missing:
                chosen.remove(one)
                total -= one.size
        return chosen
    if sum(one.size for one in held) < missing:
        return Refusal(Obstacle.TOO_LITTLE)
    total = 0
    for one in sorted(idle, key=lambda one: one.protected_until):
        total += one.size
        if total >= missing:
            return Refusal(Obstacle.PROTECTED, one.protected_until)
    return Refusal(Obstacle.IN_USE)


def protection(load_seconds: float) -> float:
    """For how many seconds a version is not evicted for others after a load that took so long."""
    return max(_LEAST_SECONDS, _WORTH * load_seconds)
