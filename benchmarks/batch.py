"""Many models at once: a hundred small ones in one LoadModels call, and the memory of ten MobileNetV2s on LiteRT."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import modelhost
import numpy as np
import psutil
import typer
from rich.console import Console
from rich.progress import Progress

from .common import ROOT
from .common.building import built
from .common.inputs import pictures
from .common.models import INPUT, TINY, model_path
from .common.report import Report, verdict
from .common.servers import Server

SCOPE = "many"
# How many times as fast one call must be as a call for each model.
SPEED_BOUND = 2.0
# Proportional set size of all of modelhost's processes with the MobileNetV2s.
PSS_BOUND_MB = 450
ENGINE: Literal["litert"] = "litert"
ONE_CALL, ONE_BY_ONE = "one LoadModels call", "one LoadModel call after the other"
# What is converted is kept for the next time.
_CONVERTED = ROOT / ".cache" / "bench-batch"
_ALSO = ["benchmarks.common.inputs", "benchmarks.common.zoo_build"]
console = Console(stderr=True, style="dim", highlight=False)

Loader = Callable[[modelhost.Client, list[modelhost.LoadSpec]], None]


def main(
    small: Annotated[int, typer.Option(help="Small models to load.")] = 100,
    mobilenets: Annotated[int, typer.Option(help="MobileNetV2s to load.")] = 10,
    rounds: Annotated[int, typer.Option(help="Loads of each kind.")] = 3,
) -> None:
    """Measure loading many models at once, and what many models take."""
    report = Report("batch", "Many models", ("", "cache", "measured", "bound", ""))
    measured: dict[str, Any] = {}
    passed = _speed(report, _specs("small", small, "tensorflow"), rounds, measured)
    passed &= _memory(report, _specs("mobilenet", mobilenets, ENGINE), measured)
    report.note(
        f"{verdict(passed)}. Seconds are medians of {rounds} loads, each into a new scope of a new server with engine "
        "tensorflow, the ways in turns. PSS: private memory and a fair share of what is shared, of all processes of a "
        f"server that finds the models converted, once each has answered."
    )
    report.finish(measured)
    raise typer.Exit(not passed)


def _specs(kind: str, count: int, engine: Literal["tensorflow", "litert"]) -> list[modelhost.LoadSpec]:
    console.print(f"building {count} models, unless that has been done: {kind}")
    folder = built("benchmarks.common.batch_build", kind, str(count), also=_ALSO)
    return [
        modelhost.LoadSpec(model=f"{SCOPE}/{kind}-{number}", source=folder / str(number), engine=engine)
        for number in range(count)
    ]


def _speed(report: Report, specs: list[modelhost.LoadSpec], rounds: int, measured: dict[str, Any]) -> bool:
    ways: dict[str, Loader] = {ONE_CALL: _in_one_call, ONE_BY_ONE: _one_by_one}
    seconds: dict[str, dict[str, list[float]]] = {cache: {way: [] for way in ways} for cache in ("cold", "warm")}
    for number in range(rounds):
        for way, load in ways.items():
            with tempfile.TemporaryDirectory() as cache:
                for state, by_way in seconds.items():
                    taken = _timed(Path(cache), specs, load)
                    console.print(f"round {number + 1}/{rounds}: {way}, {state} cache: {taken:.1f} s")
                    by_way[way].append(taken)
    measured["load_seconds"] = seconds
    passed = True
    for state, by_way in seconds.items():
        for way, results in by_way.items():
            report.row(f"{len(specs)} small models, {way}", state, f"{median(results):.2f} s", "", "")
        gain = median(b / a for a, b in zip(by_way[ONE_CALL], by_way[ONE_BY_ONE], strict=True))
        good = gain >= SPEED_BOUND
        passed &= good
        report.row("one call is faster", state, f"{gain:.2f} times", f"{SPEED_BOUND:g} times", verdict(good))
    return passed


def _timed(cache: Path, specs: list[modelhost.LoadSpec], load: Loader) -> float:
    with _server(cache) as server, modelhost.Client(server.address) as client:
        # The process that workers with TensorFlow come from is there once, for all loads that follow.
        client.load(TINY, model_path(TINY), engine="tensorflow")
        client.create_scope(SCOPE)
        started = time.monotonic()
        load(client, specs)
        return time.monotonic() - started


def _in_one_call(client: modelhost.Client, specs: list[modelhost.LoadSpec]) -> None:
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("loading", total=len(specs))
        for update in client.load_many(specs):
            if update.error is not None:
                raise update.error
            progress.update(bar, completed=update.finished)


def _one_by_one(client: modelhost.Client, specs: list[modelhost.LoadSpec]) -> None:
    for spec in specs:
        client.load(spec.model, spec.source, engine=spec.engine)


def _memory(report: Report, specs: list[modelhost.LoadSpec], measured: dict[str, Any]) -> bool:
    x = {INPUT: pictures(np.random.default_rng(0), 1)}
    megabytes: dict[str, float] = {}
    for number in range(2):
        with _server(_CONVERTED) as server, modelhost.Client(server.address) as client:
            client.create_scope(SCOPE)
            if number:
                megabytes["before"] = _pss(server.pid)
            started = time.monotonic()
            _in_one_call(client, specs)
            seconds = time.monotonic() - started
            console.print(f"{len(specs)} MobileNetV2s on {ENGINE}: loaded in {seconds:.1f} s")
            if number:
                megabytes["loaded"] = _pss(server.pid)
                for spec in specs:
                    client.predict(spec.model, x)
                megabytes["used"] = _pss(server.pid)
    what = f"{len(specs)} MobileNetV2s on {ENGINE}"
    passed = megabytes["used"] < PSS_BOUND_MB
    report.row(f"{what}: load, one LoadModels call", "warm", f"{seconds:.2f} s", "", "")
    report.row("PSS before", "", f"{megabytes['before']:.0f} MB", "", "")
    report.row(f"PSS with {what}", "", f"{megabytes['loaded']:.0f} MB", "", "")
    report.row("PSS once each has answered", "", f"{megabytes['used']:.0f} MB", f"{PSS_BOUND_MB} MB", verdict(passed))
    measured["pss_mb"], measured["mobilenet_load_seconds"] = megabytes, seconds
    return passed


def _server(cache: Path) -> Server:
    return Server("modelhost_server", "--listen", "127.0.0.1:0", "--cache-dir", str(cache))


def _pss(pid: int) -> float:
    """Megabytes of a server and all its processes."""
    server = psutil.Process(pid)
    return sum(process.memory_full_info().pss for process in (server, *server.children(recursive=True))) / 1e6


if __name__ == "__main__":
    typer.run(main)
