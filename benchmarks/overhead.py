"""What modelhost costs: a model called directly, in a plain grpc.aio server, and in modelhost.

The three take turns, round by round, so that whatever else the machine does hits all alike; the median round counts.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import grpc
import modelhost
import numpy as np
import typer
from modelhost.v1.prediction_service_pb2 import PredictRequest
from modelhost.v1.prediction_service_pb2_grpc import PredictionServiceStub

from .common.load import Load
from .common.models import MOBILENET, TINY, model_path, predict_request
from .common.report import Report, console, verdict
from .common.servers import Server, modelhost_server

# Throughput that modelhost owes, as a share of the plain server's.
BOUNDS = {TINY: 0.5, MOBILENET: 0.8}
CALLERS = (1, 8, 32)
DIRECT, PLAIN, MODELHOST = "direct", "plain grpc.aio", "modelhost"
WARM_UP = 1.0
_BUSY = 0.9


class Systems:
    """The servers under measurement, all running, and how to put load on each system."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._requests = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for model in BOUNDS:
            (self._requests / model).write_bytes(predict_request(model))
        self._modelhost = stack.enter_context(modelhost_server()).address
        self._plain: dict[str, str] = {}

    def set_up(self, model: str, seconds: float) -> str:
        """Loads a model everywhere. Answers how the plain server runs it: in the faster of its two ways."""
        with modelhost.Client(self._modelhost) as client:
            client.load(model, model_path(model))
        rates, servers = {}, {}
        for mode in ("inline", "pool"):
            servers[mode] = self._stack.enter_context(Server("benchmarks.plain_server", model, mode))
            with self._generator(servers[mode].address, model, callers=8) as load:
                rates[mode] = load.measure(WARM_UP, seconds)[0].per_second
        best = max(rates, key=rates.__getitem__)
        self._plain[model] = servers[best].address
        self._check_answers(model)
        return best

    def load(self, system: str, model: str, callers: int) -> Load:
        """Callers of a model in one of the systems."""
        if system == DIRECT:
            return Load("benchmarks.direct_caller", model, str(callers))
        return self._generator(self._plain[model] if system == PLAIN else self._modelhost, model, callers)

    def _generator(self, address: str, model: str, callers: int) -> Load:
        request = str(self._requests / model)
        return Load("benchmarks.common.generator", address, request, "closed", str(callers))

    def _check_answers(self, model: str) -> None:
        answers = []
        for address in (self._plain[model], self._modelhost):
            with grpc.insecure_channel(address) as channel:
                request = PredictRequest.FromString(predict_request(model))
                (output,) = PredictionServiceStub(channel).Predict(request).outputs.values()
                answers.append(np.frombuffer(output.raw, np.float32))
        np.testing.assert_allclose(*answers, rtol=1e-4)


def main(
    seconds: Annotated[float, typer.Option(help="Of each measurement.")] = 4.0,
    rounds: Annotated[int, typer.Option(help="Measurements of each kind.")] = 5,
) -> None:
    """Measure what modelhost costs, beside a plain server and none at all."""
    columns = ("model", "callers", "system", "req/s", "p50 ms", "p99 ms", "/ plain", "bound", "")
    report = Report("overhead", "Overhead", columns)
    measured: dict[str, dict[int, dict[str, list[dict[str, Any]]]]] = {
        model: {callers: {DIRECT: [], PLAIN: [], MODELHOST: []} for callers in CALLERS} for model in BOUNDS
    }
    busiest = 0.0
    with ExitStack() as stack:
        systems = Systems(stack)
        for model in BOUNDS:
            report.note(f"The plain server runs {model} {systems.set_up(model, seconds)}, the faster way.")
        for number in range(rounds):
            for model, by_callers in measured.items():
                for callers, by_system in by_callers.items():
                    for system, results in by_system.items():
                        console.print(f"round {number + 1}/{rounds}: {model}, {callers} callers, {system}", style="dim")
                        with systems.load(system, model, callers) as load:
                            summary, busy = load.measure(WARM_UP, seconds)
                        results.append({**summary._asdict(), "caller_busy": busy})
                        if system != DIRECT:
                            busiest = max(busiest, busy)
    passed = True
    for model, by_callers in measured.items():
        for callers, by_system in by_callers.items():
            passed &= _add_rows(report, model, callers, by_system)
    report.note(f"The load generator took at most {busiest:.0%} of a core.")
    if busiest > _BUSY:
        report.note("That is nearly all of it: the faster systems may be faster still.")
    report.note(
        f'{verdict(passed)}. Median of {rounds} rounds of {seconds:g} s; "/ plain" is throughput within a round.'
    )
    report.finish(measured)
    raise typer.Exit(not passed)


def _add_rows(report: Report, model: str, callers: int, by_system: dict[str, list[dict[str, Any]]]) -> bool:
    ratio = median(
        ours["per_second"] / plain["per_second"]
        for ours, plain in zip(by_system[MODELHOST], by_system[PLAIN], strict=True)
    )
    passed = ratio >= BOUNDS[model]
    for system, results in by_system.items():
        middle = sorted(results, key=lambda result: result["per_second"])[len(results) // 2]
        judged = (ratio, BOUNDS[model], verdict(passed)) if system == MODELHOST else ("", "", "")
        report.row(model, callers, system, middle["per_second"], middle["p50"], middle["p99"], *judged)
    return passed


if __name__ == "__main__":
    typer.run(main)
