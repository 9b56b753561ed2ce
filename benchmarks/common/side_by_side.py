"""What was measured of several systems under the same loads, and how modelhost compares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple, Protocol

from .cases import Case
from .report import Report
from .window import Result, Window, result

COLUMNS = (
    "case", "load", "system", "req/s", "p50 ms", "p99 ms", "CPU µs a call", "generator",
    "modelhost: req/s ÷", "p99 ÷",
)  # fmt: skip


class Named(Protocol):
    """A system; see `peers.systems`."""

    @property
    def name(self) -> str:
        """How tables call it."""

    @property
    def is_ours(self) -> bool:
        """Whether it is modelhost."""


class Load(NamedTuple):
    """So many callers who wait for their answers, or so many calls a second, whatever comes back."""

    callers: int = 0
    rate: int = 0

    def __str__(self) -> str:
        return f"{self.rate}/s" if self.rate else f"{self.callers} callers" if self.callers > 1 else "1 caller"


class Row(NamedTuple):
    """A system in one case under one load.

    Attributes:
        throughput: modelhost's calls a second over those of this system.
        p99: the same of the latencies that one of a hundred calls exceeds: below 1, modelhost is ahead.
        reason: why there is no result.
    """

    case: str
    load: str
    system: str
    result: Result | None
    throughput: float = math.nan
    p99: float = math.nan
    reason: str = ""


class SideBySide:
    """Windows by case and load, then by system. The first system is the one that others are compared with."""

    def __init__(self, systems: Sequence[Named]) -> None:
        self._systems = systems
        self._windows: dict[tuple[str, str], dict[str, list[Window]]] = {}
        self._reasons: dict[tuple[str, str, str], str] = {}
        self.failed: dict[str, str] = {}

    def add(self, system: Named, case: Case, load: Load, window: Window) -> None:
        """Takes what was measured."""
        by_system = self._windows.setdefault((case.name, str(load)), {})
        by_system.setdefault(system.name, []).append(window)

    def fail_one(self, system: Named, case: Case, load: Load, reason: str) -> None:
        """Takes why nothing was."""
        self._windows.setdefault((case.name, str(load)), {})
        self._reasons[case.name, str(load), system.name] = reason

    def fail(self, system: Named, reason: str) -> None:
        """Takes why a system cannot be measured at all."""
        self.failed[system.name] = reason

    def rows(self) -> list[Row]:
        """All that was measured, and what could not be."""
        rows = []
        for (case, load), by_system in self._windows.items():
            results = {
                name: result(windows)
                for name, windows in by_system.items()
                # One failure is enough: what else was measured of it is not to be trusted.
                if (case, load, name) not in self._reasons
            }
            ours = results.get(self._systems[0].name)
            for system in self._systems:
                if found := results.get(system.name):
                    ratios = (_over(ours.per_second, found.per_second), _over(ours.p99, found.p99)) if ours else ()
                    rows.append(Row(case, load, system.name, found, *ratios))
                elif reason := self._reasons.get((case, load, system.name)) or self.failed.get(system.name):
                    rows.append(Row(case, load, system.name, None, reason=reason))
        return rows

    def tell(self, report: Report) -> None:
        """Writes it into a report."""
        rows = self.rows()
        for row in rows:
            if row.result is None:
                report.row(row.case, row.load, row.system, "failed", *[""] * (len(COLUMNS) - 4))
                continue
            found, is_first = row.result, row.system == self._systems[0].name
            ratios = ("", "") if is_first or math.isnan(row.throughput) else (row.throughput, row.p99)
            report.row(
                row.case, row.load, row.system, found.per_second, found.p50, found.p99, found.server_cpu,
                f"{found.generator_cpu:.0%}", *ratios,
            )  # fmt: skip
        for system in self._systems:
            if not system.is_ours:
                self._tell_of(system.name, rows, report)
        for name, reason in self.failed.items():
            report.note(f"{name} could not be measured: {_line(reason)}.")
        for (case, load, name), reason in self._reasons.items():
            report.note(f"{case}, {load}, {name}: {_line(reason)}.")

    def _tell_of(self, name: str, rows: Sequence[Row], report: Report) -> None:
        compared = [row for row in rows if row.system == name and row.result]
        # Neither is a number where modelhost has no result, p99 also where both have left calls unanswered.
        compared = [row for row in compared if not math.isnan(row.throughput) and not math.isnan(row.p99)]
        closed = [row for row in compared if not row.load.endswith("/s")]
        if not closed:
            return
        behind = [
            *(f"{row.case}, {row.load} (req/s {row.throughput:.2f})" for row in closed if row.throughput < 1),
            *(f"{row.case}, {row.load} (p99 {row.p99:.2f})" for row in compared if row.p99 > 1),
        ]
        ahead = sum(row.throughput >= 1 for row in closed), sum(row.p99 <= 1 for row in compared)
        report.note(
            f"modelhost beside {name}: {median(row.throughput for row in closed):.2f} times the throughput (median), "
            f"ahead in {ahead[0]} of {len(closed)}; p99 {median(row.p99 for row in compared):.2f} times as long, "
            f"shorter in {ahead[1]} of {len(compared)}." + (f" Not ahead: {'; '.join(behind)}." if behind else "")
        )

    def measured(self) -> list[dict[str, Any]]:
        """The rows for JSON, which has no infinity."""
        return [
            _finite({**row._asdict(), "result": _finite(row.result._asdict()) if row.result else None})
            for row in self.rows()
        ]


def _over(ours: float, theirs: float) -> float:
    """A ratio; where they answered nothing, it is infinite."""
    return ours / theirs if theirs else math.inf


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


def _line(reason: str) -> str:
    """The last line: that is what errors say, after where they come from."""
    return (reason.strip().splitlines() or ["for no reason told"])[-1].rstrip(".")
