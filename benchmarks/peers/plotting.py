"""Has a picture drawn by a process that has matplotlib, which is in an environment of its own as the peers are."""

from __future__ import annotations

import subprocess

from ..common import ROOT
from ..common.report import console
from .environment import NotInstalled, python_of

_RESULTS = ROOT / "benchmarks" / "results"


def plot(name: str) -> None:
    """Draws `results/NAME.svg` from `results/NAME.json`."""
    try:
        python = python_of("plot")
    except NotInstalled as error:
        console.print(f"no picture was drawn: {error}", style="red")
        return
    command = [python, "-m", "benchmarks.plot", str(_RESULTS / f"{name}.json"), str(_RESULTS / f"{name}.svg")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        console.print(f"no picture was drawn: {done.stderr[-2000:]}", style="red")
        return
    console.print(f"drawn to benchmarks/results/{name}.svg", style="dim", highlight=False)
