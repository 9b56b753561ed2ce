"""What replacing a model costs its callers: latencies of calls by label, while new versions are loaded into the same
worker, the label moves to them, and the old ones are unloaded: once a second, and as fast as it goes.

Calls come at a fixed rate, answered or not. Rests and swaps take turns, so that all see the same machine.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import modelhost
import typer
from modelhost.v1.prediction_service_pb2 import PredictRequest

from .common.load import Calls, Load
from .common.models import MOBILENET, TINY, model_path, predict_request
from .common.report import Report, console, verdict
from .common.servers import modelhost_server

# Calls a second.
RATES = {TINY: 300, MOBILENET: 20}
# p99 while a version is swapped each second, as a multiple of the p99 without.
BOUND = 2.0
REST, EACH_SECOND, ALWAYS = "no swaps", "a swap a second", "one after the other"
# From the beginning of a swap to that of the next.
PERIODS = {EACH_SECOND: 1.0, ALWAYS: 0.0}
LABEL = "stable"
_SETTLE = 2.0


def main(
    seconds: Annotated[float, typer.Option(help="Of each rest, and of each series of swaps.")] = 5.0,
    rounds: Annotated[int, typer.Option(help="Rests and series of swaps.")] = 4,
) -> None:
    """Measure what swapping versions does to the latencies of a model's callers."""
    columns = ("model", "calls/s", "phase", "swaps", "calls", "p50 ms", "p99 ms", "p99 / normal", "bound", "")
    report = Report("swap", "Latencies while versions of the model are swapped", columns)
    measured, passed = {}, True
    with modelhost_server() as server, modelhost.Client(server.address) as client:
        for model, rate in RATES.items():
            console.print(f"{model} at {rate} calls a second", style="dim")
            client.load(model, model_path(model), labels=[LABEL])
            client.wait_tuned(model)
            calls, windows, swaps = _watch(client, server.address, model, rate, seconds, rounds)
            client.unload(model)
            phases = {phase: calls.overlapping(when) for phase, when in windows.items()}
            ratios = {phase: seen.p99 / phases[REST].p99 for phase, seen in phases.items()}
            is_within = ratios[EACH_SECOND] <= BOUND
            passed &= is_within
            for phase, seen in phases.items():
                judged = (BOUND, verdict(is_within)) if phase == EACH_SECOND else ("", "")
                row = (model, rate, phase, swaps[phase], seen.count, seen.p50, seen.p99, ratios[phase], *judged)
                report.row(*row)
            measured[model] = {
                "phases": {phase: seen._asdict() for phase, seen in phases.items()}, "ratios": ratios, "swaps": swaps
            }  # fmt: skip
    report.note(f"{verdict(passed)}. No call failed. All versions have the same content: their weights are read once.")
    report.finish(measured)
    raise typer.Exit(not passed)


_Windows = dict[str, list[tuple[float, float]]]


def _watch(
    client: modelhost.Client, address: str, model: str, rate: float, seconds: float, rounds: int
) -> tuple[Calls, _Windows, dict[str, int]]:
    """All calls, when each phase was, and its swaps."""
    request = PredictRequest.FromString(predict_request(model))
    request.label = LABEL
    version = 1
    windows: _Windows = {REST: [], **{phase: [] for phase in PERIODS}}
    swaps = dict.fromkeys(windows, 0)
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(request.SerializeToString())
        with Load("benchmarks.common.generator", address, file.name, "open", str(rate)) as load:
            for _ in range(rounds):
                time.sleep(_SETTLE)
                begin = time.monotonic()
                time.sleep(seconds)
                windows[REST].append((begin, time.monotonic()))
                for phase, period in PERIODS.items():
                    begin = time.monotonic()
                    while (now := time.monotonic()) < begin + seconds:
                        version += 1
                        swaps[phase] += 1
                        _swap(client, model, version)
                        time.sleep(max(0.0, now + period - time.monotonic()))
                    windows[phase].append((begin, time.monotonic()))
            time.sleep(_SETTLE)
            return load.stop(), windows, swaps


def _swap(client: modelhost.Client, model: str, version: int) -> None:
    client.load(model, model_path(model), version=version)
    client.set_labels(model, {LABEL: version})
    client.unload(model, version=version - 1)


if __name__ == "__main__":
    typer.run(main)
