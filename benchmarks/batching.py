"""What batching gains: the same models on TensorFlow with batching as it comes, and without, under many callers."""

from __future__ import annotations

from statistics import median
from typing import Annotated, NamedTuple

import modelhost
import typer

from .common.cases import DENSE, MOBILENET, Case
from .common.h2load import require_h2load
from .common.loading import load
from .common.report import Report, console, verdict
from .common.servers import modelhost_server
from .common.window import Result, Window, result
from .peers.protocols import NATIVE
from .peers.running import Hosted

CALLERS = 64
ON, OFF = "on", "off"
_MODES = {ON: None, OFF: modelhost.Batching(mode="off")}
# More callers' answers a second, where the model is the work; less of the worker's time a call, where it is not.
THROUGHPUT_BOUND, WORKER_BOUND = 1.3, 3.0


class Subject(NamedTuple):
    """A case, what the server is started with, and which of the bounds is for it."""

    case: Case
    is_model_bound: bool
    options: tuple[str, ...] = ()


# On grpcio the server cannot bring calls as fast as the worker answers them one by one: nothing waits, nothing gathers.
SUBJECTS = (Subject(MOBILENET, True), Subject(DENSE, False, ("--transport", "h2corn")))


def main(
    seconds: Annotated[float, typer.Option(help="Of each measurement.")] = 5.0,
    rounds: Annotated[int, typer.Option(help="Measurements of each kind.")] = 3,
) -> None:
    """Measure what batching gains."""
    require_h2load()
    columns = ("case", "batching", "req/s", "p50 ms", "p99 ms", "batch", "worker's CPU µs a call", "gain", "bound", "")
    report = Report("batching", f"Batching on and off, engine tensorflow, {CALLERS} callers", columns)
    windows: dict[str, dict[str, list[Window]]] = {s.case.name: {ON: [], OFF: []} for s in SUBJECTS}
    batches: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds):
        for subject in SUBJECTS:
            for batching in (ON, OFF) if number % 2 == 0 else (OFF, ON):
                console.print(f"round {number + 1}/{rounds}: {subject.case.name}, batching {batching}", style="dim")
                window, mean_batch = _measure(subject, batching, seconds)
                windows[subject.case.name][batching].append(window)
                batches.setdefault((subject.case.name, batching), []).append(mean_batch)
    passed = True
    for subject in SUBJECTS:
        found = {name: result(of_mode) for name, of_mode in windows[subject.case.name].items()}
        passed &= _tell(report, subject, found, {name: median(batches[subject.case.name, name]) for name in found})
    report.note(
        f"{verdict(passed)}. Gain: in calls a second, with p50 no longer; for {DENSE.model.name}, whose calls cost "
        "the server more than the model, on h2corn, in calls a second of the worker's processor time."
    )
    report.note(f"{rounds} rounds of {seconds:g} s, each in a server of its own.")
    report.finish(
        {case: {name: result(found)._asdict() for name, found in by_mode.items()} for case, by_mode in windows.items()}
    )
    raise typer.Exit(not passed)


def _measure(subject: Subject, batching: str, seconds: float) -> tuple[Window, float]:
    """What was seen, and how many predictions a batch had on average."""
    case = subject.case
    with modelhost_server(*subject.options) as server:
        load(server.address, case.model, "tensorflow", _MODES[batching])
        hosted = Hosted(server, NATIVE, cpu=server.cpu_seconds_of_others)
        hosted.check(case)
        hosted.warm_up(case)
        before = _told(server.address, case)
        window = hosted.closed(case, CALLERS, seconds)
        after = _told(server.address, case)
        hosted.check(case)
    if after.state != batching.upper():
        raise RuntimeError(f"{case.name}: batching is {after.state}: {after.explanation}")
    # A model that is not batched counts none.
    batch_count = after.batch_count - before.batch_count
    return window, (after.prediction_count - before.prediction_count) / batch_count if batch_count else 1.0


def _told(address: str, case: Case) -> modelhost.SignatureBatching:
    with modelhost.Client(address) as client:
        version = client.model(case.model.name).served
        assert version is not None
        return version.batching["serving_default"]


def _tell(report: Report, subject: Subject, found: dict[str, Result], batch: dict[str, float]) -> bool:
    on, off = found[ON], found[OFF]
    if subject.is_model_bound:
        gain, bound = on.per_second / off.per_second, THROUGHPUT_BOUND
        passed = gain >= bound and on.p50 <= off.p50
    else:
        gain, bound = off.server_cpu / on.server_cpu, WORKER_BOUND
        passed = gain >= bound
    for name, of_mode in found.items():
        judged = (gain, bound, verdict(passed)) if name == ON else ("", "", "")
        report.row(
            subject.case.name, name, of_mode.per_second, of_mode.p50, of_mode.p99, batch[name], of_mode.server_cpu,
            *judged,
        )  # fmt: skip
    return passed


if __name__ == "__main__":
    typer.run(main)
