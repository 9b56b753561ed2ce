"""Tables of results: on the terminal, as Markdown, and as JSON with all that was measured."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from . import ROOT

_LIBRARIES = ("grpcio", "numpy", "protobuf", "keras")
_PLAIN_WIDTH = 120
console = Console()
if not console.is_terminal:
    console = Console(width=_PLAIN_WIDTH)


def machine() -> dict[str, Any]:
    """What was measured on, and with what."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="minutes"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average_before": round(os.getloadavg()[0], 2),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "tensorflow": _tensorflow(),
        **{library: version(library) for library in _LIBRARIES},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _tensorflow() -> str:
    try:
        return version("tensorflow-cpu")
    except ModuleNotFoundError:
        return version("tensorflow")


class Report:
    """The results of one benchmark. Make it before the measuring, so that it sees how busy the machine was."""

    def __init__(self, name: str, title: str, columns: Sequence[str]) -> None:
        self._name, self._title, self._columns = name, title, columns
        self._machine = machine()
        self._rows: list[Sequence[str]] = []
        self._notes: list[str] = []

    def row(self, *cells: object) -> None:
        """Adds a row; numbers are written with three digits."""
        self._rows.append([_cell(cell) for cell in cells])

    def note(self, text: str) -> None:
        """Adds a line below the table."""
        self._notes.append(text)

    def finish(self, measured: object) -> None:
        """Prints the table and writes it, and `measured` as JSON."""
        table = Table(title=self._title)
        for i, column in enumerate(self._columns):
            table.add_column(column, justify="left" if i == 0 else "right")
        for row in self._rows:
            table.add_row(*row)
        console.print(table)
        for note in self._notes:
            console.print(note, highlight=False)
        directory = ROOT / "benchmarks" / "results"
        directory.mkdir(exist_ok=True)
        content = {"machine": self._machine, "notes": self._notes, "measured": measured}
        (directory / f"{self._name}.json").write_text(json.dumps(content, indent=1) + "\n")
        (directory / f"{self._name}.md").write_text(self._markdown())
        console.print(f"written to benchmarks/results/{self._name}.md and .json", style="dim", highlight=False)

    def _markdown(self) -> str:
        def line(cells: Sequence[str]) -> str:
            return f"| {' | '.join(cells)} |"

        rule = ["---", *["---:"] * (len(self._columns) - 1)]
        table = [line(self._columns), line(rule), *map(line, self._rows)]
        where = ", ".join(f"{key} {value}" for key, value in self._machine.items())
        notes = [part for note in self._notes for part in (note, "")]
        return "\n".join([f"# {self._title}", "", *table, "", *notes, f"Measured: {where}.", ""])


def verdict(passed: bool) -> str:
    """PASS or FAIL."""
    return "PASS" if passed else "FAIL"


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
