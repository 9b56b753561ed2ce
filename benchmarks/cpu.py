"""What a call costs modelhost itself: processor time of all its processes, on the tiny model with 64 callers."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated, NamedTuple

import typer

from .common.cases import TINY
from .common.h2load import require_h2load
from .common.report import Report, console, verdict
from .common.window import Window, result
from .peers.systems import MODELHOST, MODELHOST_H2CORN, MODELHOST_STREAM, System

CALLERS = 64


class Mode(NamedTuple):
    """A way to be called, and the microseconds a call may take."""

    system: System
    bound: float


MODES = (
    Mode(MODELHOST, 280),
    Mode(MODELHOST_STREAM, 120),
    Mode(MODELHOST_H2CORN, 60),
)


def main(
    seconds: Annotated[float, typer.Option(help="Of each measurement.")] = 4.0,
    rounds: Annotated[int, typer.Option(help="Measurements of each kind.")] = 3,
) -> None:
    """Measure modelhost's processor time a call, in its modes."""
    require_h2load()
    columns = ("mode", "req/s", "p50 ms", "p99 ms", "CPU µs a call", "bound", "", "generator")
    report = Report("cpu", f"Processor time of a call: {TINY.name}, {CALLERS} callers", columns)
    windows: dict[str, list[Window]] = {mode.system.name: [] for mode in MODES}
    for number in range(rounds):
        for mode in MODES:
            console.print(f"round {number + 1}/{rounds}: {mode.system.name}", style="dim")
            with ExitStack() as stack:
                running = mode.system.start(stack, [TINY])
                windows[mode.system.name].append(running.closed(TINY, CALLERS, seconds))
                running.check(TINY)
    passed, measured = True, {}
    for mode in MODES:
        found = result(windows[mode.system.name])
        is_within = found.server_cpu < mode.bound
        passed &= is_within
        report.row(
            mode.system.name, found.per_second, found.p50, found.p99, found.server_cpu, mode.bound, verdict(is_within),
            f"{found.generator_cpu:.0%}",
        )  # fmt: skip
        measured[mode.system.name] = found._asdict()
    report.note(f"{verdict(passed)}. {rounds} rounds of {seconds:g} s; the mean of all calls.")
    report.finish(measured)
    raise typer.Exit(not passed)


if __name__ == "__main__":
    typer.run(main)
