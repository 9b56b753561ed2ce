"""Whether loading into one scope slows down another: latencies of a model while its neighbour loads a ResNet50.

Calls come at a fixed rate, answered or not, well below what the machine can do; so a server that stalls shows.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import modelhost
import typer

from .common.load import Load
from .common.models import MOBILENET, RESNET, TINY, model_path, predict_request
from .common.report import Report, console, verdict
from .common.servers import modelhost_server

# Calls a second.
RATES = {TINY: 300, MOBILENET: 20}
# p99 during loads that the issue allows, as a multiple of the p99 before.
BOUND = 2.0
SERVING, LOADING = "serving", "loading"
_SETTLE = 2.0


def main(
    seconds: Annotated[float, typer.Option(help="Of each phase; during: of loading, all loads together.")] = 10.0,
) -> None:
    """Measure what loads into one scope do to the latencies of another."""
    columns = ("model", "calls/s", "phase", "calls", "p50 ms", "p99 ms", "p99 / before", "bound", "")
    report = Report("isolation", "Latencies while another scope loads a ResNet50", columns)
    measured, passed = {}, True
    with modelhost_server() as server, modelhost.Client(server.address) as client:
        for scope in (SERVING, LOADING):
            client.create_scope(scope)
        for model, rate in RATES.items():
            console.print(f"{model} at {rate} calls a second", style="dim")
            client.load(f"{SERVING}/{model}", model_path(model))
            calls, before, loads, after = _watch(client, server.address, model, rate, seconds)
            client.unload(f"{SERVING}/{model}")
            phases = {
                "before": calls.overlapping([before]),
                "during": calls.overlapping(loads),
                "after": calls.overlapping([after]),
            }
            ratio = phases["during"].p99 / phases["before"].p99
            passed &= ratio <= BOUND
            for phase, summary in phases.items():
                judged = (BOUND, verdict(ratio <= BOUND)) if phase == "during" else ("", "")
                share = summary.p99 / phases["before"].p99
                report.row(model, rate, phase, summary.count, summary.p50, summary.p99, share, *judged)
            durations = [end - begin for begin, end in loads]
            report.note(f"{model}: {len(loads)} loads, {sum(durations) / len(loads):.2f} s each on average.")
            measured[model] = {"phases": {k: v._asdict() for k, v in phases.items()}, "load_seconds": durations}
    report.note(
        f"{verdict(passed)}. The calls of a phase are those that were under way in it; during: while a load was."
    )
    report.finish(measured)
    raise typer.Exit(not passed)


def _watch(client: modelhost.Client, address: str, model: str, rate: float, seconds: float):
    """All calls, and when it was before, during (a window for each load) and after."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(predict_request(model, SERVING))
        with Load("benchmarks.common.generator", address, file.name, "open", str(rate)) as load:
            time.sleep(_SETTLE)
            before = _rest(seconds)
            loads: list[tuple[float, float]] = []
            while sum(end - begin for begin, end in loads) < seconds:
                begin = time.monotonic()
                client.load(f"{LOADING}/{RESNET}", model_path(RESNET))
                loads.append((begin, time.monotonic()))
                client.unload(f"{LOADING}/{RESNET}")
            time.sleep(_SETTLE)
            after = _rest(seconds)
            return load.stop(), before, loads, after


def _rest(seconds: float) -> tuple[float, float]:
    begin = time.monotonic()
    time.sleep(seconds)
    return begin, time.monotonic()


if __name__ == "__main__":
    typer.run(main)
