"""The measurement behind the choice of TensorFlow's C API: ways to run a SavedModel, in one process, without a server.

Each is measured in a process of its own, since TensorFlow takes its threads once a process; they take turns, round by
round, and the median round counts.
"""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median
from typing import Annotated, Any

import typer

from .common import ROOT
from .common.models import MOBILENET, TINY
from .common.report import Report, console
from .engine_ways import WAYS

MODELS = (TINY, MOBILENET)
INTRA_OP_THREADS = (1, 2)
LANES = (1, 2)


def main(
    seconds: Annotated[float, typer.Option(help="Of each measurement.")] = 2.0,
    rounds: Annotated[int, typer.Option(help="Measurements of each kind.")] = 3,
) -> None:
    """Measure the ways to run a SavedModel in a process."""
    columns = ("model", "way", "intra-op", "lanes", "calls/s", "p50 µs", "p99 µs", "CPU µs a call", "/ signature")
    report = Report("engine", "Ways to run a SavedModel in a process", columns)
    cases = [(model, intra, lanes) for model in MODELS for intra in INTRA_OP_THREADS for lanes in LANES]
    measured: dict[str, list[dict[str, float]]] = {}
    for number in range(rounds):
        for case in cases:
            for way in WAYS:
                console.print(f"round {number + 1}/{rounds}: {_key(way, *case)}", style="dim")
                measured.setdefault(_key(way, *case), []).append(_measure(way, *case, seconds))
    for model, intra, lanes in cases:
        rates: dict[str, float] = {}
        for way in WAYS:
            results = measured[_key(way, model, intra, lanes)]
            middle = sorted(results, key=lambda result: result["per_second"])[len(results) // 2]
            rates[way] = median(result["per_second"] for result in results)
            share = rates[way] / next(iter(rates.values()))
            report.row(
                model, way, intra, lanes, middle["per_second"], middle["p50"], middle["p99"], middle["cpu"], share
            )
    report.note("Lanes are threads that call at the same time; the last column compares calls/s with the first way's.")
    report.note(f"Median of {rounds} rounds of {seconds:g} s.")
    report.finish(measured)


def _key(way: str, model: str, intra: int, lanes: int) -> str:
    return f"{model}, intra-op {intra}, {lanes} lanes, {way}"


def _measure(way: str, model: str, intra: int, lanes: int, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.engine_ways", way, model, str(intra), str(lanes), str(seconds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{way} failed:\n{done.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    typer.run(main)
