"""What replacing a model costs its callers: latencies of calls by label, while new versions are loaded into the same
worker, the label moves to them, and the old ones are unloaded.

Calls come at a fixed rate, answered or not. Rests and swaps take turns, so that both see the same machine.
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
# p99 while versions are swapped, as a multiple of the p99 without.
BOUND = 2.0
LABEL = "stable"
_SETTLE = 2.0


def main(
    seconds: Annotated[float, typer.Option(help="Of each rest, and of each series of swaps.")] = 5.0,
    rounds: Annotated[int, typer.Option(help="Rests and series of swaps.")] = 4,
) -> None:
    """Measure what swapping versions does to the latencies of a model's callers."""
    columns = ("model", "calls/s", "phase", "calls", "p50 ms", "p99 ms", "p99 / normal", "bound", "")
    report = Report("swap", "Latencies while versions of the model are swapped", columns)
    measured, passed = {}, True
    with modelhost_server() as server, modelhost.Client(server.address) as client:
        for model, rate in RATES.items():
            console.print(f"{model} at {rate} calls a second", style="dim")
            client.load(model, model_path(model), labels=[LABEL])
            client.wait_tuned(model)
            calls, rests, swaps, count = _watch(client, server.address, model, rate, seconds, rounds)
            client.unload(model)
            normal, swapping = calls.overlapping(rests), calls.overlapping(swaps)
            ratio = swapping.p99 / normal.p99
            passed &= ratio <= BOUND
            report.row(model, rate, "normal", normal.count, normal.p50, normal.p99, 1.0, "", "")
            row = (swapping.count, swapping.p50, swapping.p99, ratio, BOUND, verdict(ratio <= BOUND))
            report.row(model, rate, "swapping", *row)
            report.note(f"{model}: {count} swaps, one after the other.")
            phases = {"normal": normal._asdict(), "swapping": swapping._asdict()}
            measured[model] = {"phases": phases, "ratio": ratio, "swaps": count}
    report.note(f"{verdict(passed)}. No call failed. All versions have the same content: their weights are read once.")
    report.finish(measured)
    raise typer.Exit(not passed)


_Windows = list[tuple[float, float]]


def _watch(
    client: modelhost.Client, address: str, model: str, rate: float, seconds: float, rounds: int
) -> tuple[Calls, _Windows, _Windows, int]:
    """All calls, when there was rest and when there were swaps, and how many."""
    request = PredictRequest.FromString(predict_request(model))
    request.label = LABEL
    version, rests, swaps = 1, [], []
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(request.SerializeToString())
        with Load("benchmarks.common.generator", address, file.name, "open", str(rate)) as load:
            for _ in range(rounds):
                time.sleep(_SETTLE)
                begin = time.monotonic()
                time.sleep(seconds)
                rests.append((begin, time.monotonic()))
                begin = time.monotonic()
                while time.monotonic() < begin + seconds:
                    version += 1
                    _swap(client, model, version)
                swaps.append((begin, time.monotonic()))
            time.sleep(_SETTLE)
            return load.stop(), rests, swaps, version - 1


def _swap(client: modelhost.Client, model: str, version: int) -> None:
    client.load(model, model_path(model), version=version)
    client.set_labels(model, {LABEL: version})
    client.unload(model, version=version - 1)


if __name__ == "__main__":
    typer.run(main)
