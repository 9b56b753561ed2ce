"""What the engine that modelhost chooses gains: eight models on it, on TensorFlow in modelhost, and called directly.

A first server with an empty cache looks for the engines; a second one with the cache of the first must start on them.
Latency is that of one caller in a scope with two threads an operation and one call at a time, throughput that of eight
callers in a scope as it comes. The three systems take turns, window by window.
"""

from __future__ import annotations

import tempfile
from functools import partial
from typing import Annotated

import modelhost
import typer
from rich.console import Console

from .common.comparing import AUTO, DIRECT, TENSORFLOW, Again, Comparison, again, compare
from .common.hosted import LATENCY, THROUGHPUT, Hosted
from .common.models import TINY, model_path
from .common.report import Report, verdict
from .common.servers import Server
from .common.zoo import MOBILENET, SUBJECTS

# How much slower than TensorFlow's a measurement of the chosen engine may be, since no two are alike.
NOISE = 0.05
# How many times as fast as TensorFlow, by model and setting.
BOUNDS = {(MOBILENET, LATENCY.name): 3.0}
_COLUMNS = (
    "model", "engine", "p50 ms", "gain", "req/s", "gain", "MB", "load s", "found s", "again s", "diff", "",
)  # fmt: skip
progress = Console(stderr=True, style="dim", highlight=False)


def main(
    models: Annotated[list[str] | None, typer.Argument(help="Only these.", show_default="all")] = None,
    rounds: Annotated[int, typer.Option(help="Windows of each kind.")] = 8,
    seconds: Annotated[float, typer.Option(help="Of each window.")] = 1.0,
) -> None:
    """Measure what the engines that modelhost chooses gain."""
    known = {subject.name: subject for subject in SUBJECTS}
    if unknown := set(models or ()) - known.keys():
        raise typer.BadParameter(f"no model is called {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    subjects = [known[name] for name in models or known]
    for subject in subjects:
        _tell(subject.name, f"is at {subject.path}")
    # Some models are not the results of all.
    report = Report("engines-some" if models else "engines", "Engines", _COLUMNS)
    compared: dict[str, Comparison] = {}
    loaded_again: dict[str, Again] = {}
    with tempfile.TemporaryDirectory() as cache:
        with _server(cache) as server, modelhost.Client(server.address) as client:
            _open_tensorflow(client)
            for subject in subjects:
                tell = partial(_tell, subject.name)
                compared[subject.name] = compare(client, server.address, subject, rounds, seconds, tell)
        with _server(cache) as server, modelhost.Client(server.address) as client:
            _open_tensorflow(client)
            for subject in subjects:
                _tell(subject.name, "loading into a second server")
                loaded_again[subject.name] = again(client, subject)
    failures = {name: _failures(compared[name], loaded_again[name]) for name in compared}
    for name, comparison in compared.items():
        _add_rows(report, name, comparison, loaded_again[name], passed=not failures[name])
    for name, comparison in compared.items():
        _explain(report, name, comparison)
    for name, reasons in failures.items():
        for reason in reasons:
            report.note(f"FAIL: {name}: {reason}")
    passed = not any(failures.values())
    if noise := [gain for comparison in compared.values() for gain in comparison.gains_of_itself]:
        report.note(
            f"Where the engine is tensorflow, it was measured beside itself: {min(noise):.2f} to {max(noise):.2f} is "
            "what noise alone makes of 1."
        )
    report.note(
        f"{verdict(passed)}. p50: {LATENCY.callers} caller, two threads an operation; req/s: {THROUGHPUT.callers} "
        f"callers, a scope as it comes. Medians of {rounds} windows of {seconds:g} s; gains are medians of those "
        "within a round. Load: with an empty cache, on TensorFlow; found: until the engine was found; again: in a "
        "second server with the cache of the first. MB: private memory by that load, as GetModel says. diff: largest "
        "difference from TensorFlow's answers, relative to an output's largest magnitude."
    )
    report.finish({name: {**compared[name].measured(), "again": loaded_again[name].measured()} for name in compared})
    raise typer.Exit(not passed)


def _server(cache: str) -> Server:
    return Server("modelhost_server", "--listen", "127.0.0.1:0", "--cache-dir", cache)


def _open_tensorflow(client: modelhost.Client) -> None:
    """So that no load waits for the process that all workers with TensorFlow come from."""
    client.load(TINY, model_path(TINY), engine="tensorflow")


def _tell(name: str, what: str) -> None:
    progress.print(f"{name}: {what}", soft_wrap=True)


def _failures(comparison: Comparison, second: Again) -> list[str]:
    """Which bounds a model is not within."""
    found = []
    for setting, gain in comparison.gains.items():
        # What is measured beside itself tells how much the machine's noise is, and nothing of the engine.
        is_other = comparison.hosted[setting][AUTO].engine != TENSORFLOW
        least = BOUNDS.get((comparison.name, setting), 1 - NOISE if is_other else 0)
        if gain < least:
            found.append(f"{setting}: {gain:.2f} times as fast as TensorFlow, bound {least:g}")
    if not comparison.agreement.same_argmax:
        found.append("another argmax than TensorFlow's")
    first = comparison.hosted[THROUGHPUT.name][AUTO].engine
    if not second.auto.was_known or second.auto.engine != first:
        found.append(f"a second server began on {second.auto.first_engine}, not on {first}")
    return found


def _add_rows(report: Report, name: str, comparison: Comparison, second: Again, passed: bool) -> None:
    latency, throughput = (comparison.gains[setting.name] for setting in (LATENCY, THROUGHPUT))
    first = comparison.hosted[THROUGHPUT.name][AUTO]
    difference = f"{comparison.agreement.largest_difference:.0e}"
    report.row(
        name, comparison.engines, comparison.latency(AUTO), latency, comparison.throughput(AUTO), throughput,
        _megabytes(second.auto), first.seconds, first.found_seconds, second.auto.seconds, difference, verdict(passed),
    )  # fmt: skip
    report.row(
        "- on tensorflow", "", comparison.latency(TENSORFLOW), "", comparison.throughput(TENSORFLOW), "",
        _megabytes(second.tensorflow), "", "", second.tensorflow.seconds, "", "",
    )  # fmt: skip
    report.row("- direct call", "", comparison.latency(DIRECT), "", comparison.throughput(DIRECT), *[""] * 7)


def _megabytes(hosted: Hosted) -> float:
    return hosted.version.memory.private_bytes / 1e6


def _explain(report: Report, name: str, comparison: Comparison) -> None:
    """Says why each model is on its engine, and how well the digits are told."""
    settings_of: dict[str, list[str]] = {}
    for setting, reasons in comparison.reasons.items():
        settings_of.setdefault("; ".join(reasons) or "no engine was tried", []).append(setting)
    for told, settings in settings_of.items():
        where = f" ({settings[0]})" if len(settings_of) > 1 else ""
        report.note(f"{name}{where}: {told}")
    agreement = comparison.agreement
    same = "the same argmax throughout" if agreement.same_argmax else "not always the same argmax"
    report.note(f"{name}: {agreement.compared} answers compared with TensorFlow's, {same}")
    if comparison.accuracy is not None:
        before, after = comparison.accuracy
        report.note(f"{name}: accuracy on held-out images {before:.4f} with TensorFlow, {after:.4f} as chosen")


if __name__ == "__main__":
    typer.run(main)
