"""What follows from what the converter measured: pure functions of the candidates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..store.records import Candidate, Outcome
from .verdicts import Verdict

# A change is worth its while from here on, for calls that come alone.
_MIN_SPEEDUP = 1.2
# What calls side by side may lose by it: no more than what two measurements of the same differ by.
_MIN_SIDE_BY_SIDE = 0.95
# Calls that take less gain nothing from more threads: what else a call costs is more than what they could save.
_LEAST_NS_FOR_THREADS = 1_000_000


def judged(engine: str, found: dict[str, Any], alone_threads: int) -> Candidate:
    """What the converter's stage `judge` says of an engine, which it gave these threads for calls that come alone;
    outcome SLOWER when it is right, whatever its speed.
    """
    timings = tuple((int(batch), int(ours), int(theirs)) for batch, ours, theirs in found["timings"])
    difference = float(found["max_relative_difference"])
    if not found["accepted"]:
        return Candidate(engine, Outcome(found["outcome"]), found["reason"], 0.0, 0.0, difference, timings)
    speedup, side_by_side = float(found["speedup"]), float(found["side_by_side_speedup"])
    is_long = all(theirs >= _LEAST_NS_FOR_THREADS for _, _, theirs in timings)
    alone = alone_threads if is_long and float(found["alone_gain"]) >= _MIN_SPEEDUP else 0
    return Candidate(engine, Outcome.SLOWER, "", speedup, side_by_side, difference, timings, alone)


def with_winner(tried: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The candidates, the fastest of those that are right marked as chosen if that is worth a change."""
    told = [replace(c, reason=_why_not(c) or speed(c)) if c.outcome is Outcome.SLOWER else c for c in tried]
    worth = [c for c in told if c.outcome is Outcome.SLOWER and not _why_not(c)]
    best = max(worth, key=lambda c: math.sqrt(c.speedup * (c.side_by_side_speedup or c.speedup)), default=None)
    return tuple(replace(c, outcome=Outcome.CHOSEN) if c is best else c for c in told)


def _why_not(candidate: Candidate) -> str:
    """Why an engine that is right is not worth a change; "" when it is."""
    if candidate.speedup < _MIN_SPEEDUP:
        return f"{candidate.speedup:.2f} times tensorflow's speed; a change is made from {_MIN_SPEEDUP} times on"
    if any(theirs > ours for _, ours, theirs in candidate.timings):
        return f"slower than tensorflow at some batch sizes ({candidate.speedup:.1f} times as fast over all)"
    if 0 < candidate.side_by_side_speedup < _MIN_SIDE_BY_SIDE:
        return f"{speed(candidate)}: slower than tensorflow when the scope has as many calls under way as it may"
    return ""


def speed(candidate: Candidate) -> str:
    """How fast it is, in words."""
    alone = f"{candidate.speedup:.1f} times as fast as tensorflow"
    if candidate.side_by_side_speedup:
        alone += f", {candidate.side_by_side_speedup:.2f} times with calls side by side"
    if candidate.alone_threads:
        alone += f"; calls that come alone gain more from {candidate.alone_threads} threads, and have them"
    return alone


def failed(verdict: Verdict, why: str) -> Verdict:
    """The verdict, once the engine that was chosen has failed."""
    return Verdict(
        tuple(
            replace(c, outcome=Outcome.FAILED, reason=why) if c.outcome is Outcome.CHOSEN else c
            for c in verdict.candidates
        )
    )


def explanation(candidates: Sequence[Candidate]) -> str:
    """What was tried and what came of it, in one line."""
    return "; ".join(f"{c.engine} {c.outcome.value.lower()}: {c.reason}" for c in candidates)
