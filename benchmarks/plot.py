"""Draws what `bench` has measured: throughput and p99 of each system, a picture for each case.

Usage: python -m benchmarks.plot RESULTS.json PICTURE.svg, by the Python of an environment that has matplotlib
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt

_WIDTH, _HEIGHT = 7.0, 3.2
_COLOURS = plt.get_cmap("tab10").colors


def draw(rows: list[dict[str, Any]], picture: Path) -> None:
    """A row of pictures for each case: calls a second on the left, p99 on the right, both logarithmic."""
    cases = list(dict.fromkeys(row["case"] for row in rows))
    systems = list(dict.fromkeys(row["system"] for row in rows))
    figure, grid = plt.subplots(len(cases), 2, figsize=(2 * _WIDTH, _HEIGHT * len(cases)), squeeze=False)
    for case, axes in zip(cases, grid, strict=True):
        of_case = [row for row in rows if row["case"] == case and row["result"]]
        loads = list(dict.fromkeys(row["load"] for row in of_case))
        for axis, measure, title in zip(axes, ("per_second", "p99"), ("calls a second", "p99, ms"), strict=True):
            for number, system in enumerate(systems):
                values = {row["load"]: row["result"][measure] for row in of_case if row["system"] == system}
                places = [i + 0.8 * (number / len(systems) - 0.5) for i in range(len(loads))]
                # No bar where calls were not answered in time, or there is nothing to show.
                heights = [values.get(load) or float("nan") for load in loads]
                axis.bar(places, heights, 0.8 / len(systems), align="edge", color=_COLOURS[number % 10], label=system)
            axis.set_yscale("log")
            axis.set_xticks(range(len(loads)), loads)
            axis.set_title(f"{case}: {title}", fontsize=10)
            axis.grid(axis="y", alpha=0.3)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=5, frameon=False)
    figure.tight_layout(rect=(0, 0.25 / len(cases), 1, 1))
    figure.savefig(picture)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text())["measured"], Path(sys.argv[2]))
