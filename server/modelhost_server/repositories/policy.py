"""Which of the versions in a directory are to be hosted, and which hosted ones are to go. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ..store.phases import SERVED, Phase

_SETTLED = SERVED | {Phase.FAILED}


@dataclass(frozen=True, slots=True)
class Latest:
    """The versions with the highest numbers."""

    count: int = 1


@dataclass(frozen=True, slots=True)
class All:
    """Every version."""


@dataclass(frozen=True, slots=True)
class Specific:
    """These versions, where they are there."""

    numbers: frozenset[int]


VersionPolicy = Latest | All | Specific


def policy_of(message: Any) -> VersionPolicy:
    """What a message of TensorFlow Serving's or of Triton's says, which are alike: the latest, unless it says more."""
    match message.WhichOneof("policy_choice"):
        case "all":
            return All()
        case "specific":
            return Specific(frozenset(message.specific.versions))
        case _:
            return Latest(max(1, message.latest.num_versions))


def chosen(policy: VersionPolicy, found: Collection[int]) -> set[int]:
    """Of the versions found, those that are to be hosted."""
    match policy:
        case Latest(count):
            return set(sorted(found, reverse=True)[: max(1, count)])
        case All():
            return set(found)
        case Specific(numbers):
            return set(found) & numbers


def to_retire(hosted: Mapping[int, Phase], wanted: Mapping[int, Phase | None], at_once: bool) -> set[int]:
    """Of the hosted versions, those that are to go now: none that serves goes before what comes in its place serves.

    Args:
        hosted: the phases of the versions that may be retired, by number.
        wanted: the phases of the versions that are to be hosted; None for one that is not there yet.
        at_once: nothing comes in their place, or what comes needs their memory.
    """
    others = hosted.keys() - wanted.keys()
    phases = set(wanted.values())
    if at_once or (phases & SERVED and phases <= _SETTLED):
        return others
    return {number for number in others if hosted[number] is Phase.FAILED}


def retry_delay(failures: int) -> float:
    """Seconds before the next try, after this many in a row have failed: from one second to five minutes."""
    return float(min(2 ** min(failures - 1, 16), 300))
