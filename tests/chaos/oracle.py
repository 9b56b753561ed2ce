"""What was acknowledged of a model, what is uncertain, and so what may be answered."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

STABLE, CANARY, DEFAULT = "stable", "canary", ""


class History:
    """What something was set to: the last value that is certain, and those since that may count."""

    def __init__(self) -> None:
        self._values: list[int | None] = [None]
        self.certain = 0

    def attempt(self, value: int | None) -> None:
        """It is about to be set; from now on it may be this."""
        self._values.append(value)

    def confirm(self, value: int | None) -> None:
        """It is this, and nothing that it was before."""
        self._values.append(value)
        self.certain = len(self._values) - 1

    def since(self, mark: int) -> set[int | None]:
        """What it may have been since `certain` was `mark`."""
        return set(self._values[mark:])


@dataclass(frozen=True)
class Source:
    """What a version was loaded from, and how, to load it again."""

    path: Path
    engine: str | None = None
    evictable: bool = False
    is_uploaded: bool = False
    labels: tuple[str, ...] = ()
    # Those before it go once it is there.
    replaces: bool = False


class Mark(NamedTuple):
    """When a question was asked, and what was certain then."""

    began: float
    way: str
    certain: int


@dataclass
class Model:
    """A hosted model; changed by one thread, asked by many."""

    scope: str
    name: str
    number: int
    live: dict[int, Source] = field(default_factory=dict)
    # Loads and unloads that nobody knows the outcome of, or that are under way.
    maybe: dict[int, Source] = field(default_factory=dict)
    # When the unload of a version was acknowledged.
    gone: dict[int, float] = field(default_factory=dict)
    labels: dict[str, History] = field(default_factory=lambda: {STABLE: History(), CANARY: History()})
    # Callers in other processes know names only.
    is_known: bool = True
    may_be_missing: bool = False

    @property
    def full_name(self) -> str:
        """Its name with its scope."""
        return f"{self.scope}/{self.name}"

    def stable(self) -> int | None:
        """The version with the label, once nothing is under way."""
        (value,) = self.labels[STABLE].since(self.labels[STABLE].certain)
        return value

    def mark(self, way: str) -> Mark:
        """A question is about to be asked."""
        return Mark(time.monotonic(), way, self.labels[way].certain if way in self.labels else 0)

    def wrong(self, mark: Mark, version: int) -> str:
        """Why a version must not have answered; empty when it may."""
        if not self.is_known:
            return ""
        if mark.way in self.labels:
            allowed = self.labels[mark.way].since(mark.certain)
            return "" if version in allowed else f"the label was on {allowed}"
        if mark.way and version != int(mark.way):
            return "another version was asked for"
        if self.gone.get(version, mark.began) < mark.began:
            return "it had been unloaded"
        return ""

    def excuses(self, mark: Mark, reason: str) -> bool:
        """Whether a question may fail for this reason: what was asked for may not have been there."""
        if self.may_be_missing and reason in ("SCOPE_NOT_FOUND", "MODEL_NOT_FOUND", "LABEL_NOT_FOUND"):
            return True
        if mark.way in self.labels:
            # It goes with its version, or by itself.
            is_going = self.is_known and None in self.labels[mark.way].since(mark.certain)
            return is_going and reason in ("LABEL_NOT_FOUND", "VERSION_UNLOADING")
        if mark.way:
            is_there = int(mark.way) in self.live and int(mark.way) not in self.maybe
            return reason in ("VERSION_NOT_FOUND", "VERSION_UNLOADING") and not is_there
        # Where all others are missing, a version that failed to load is what there is, until it is unloaded.
        return self.may_be_missing and reason in ("VERSION_NOT_FOUND", "VERSION_UNLOADING", "VERSION_FAILED")
