"""modelhost side by side with the servers that people use, and with a loop without any server.

Systems run in turn, each alone on the machine, all of them once a round. What is called is in `common.cases`, who is
called in `peers.systems`.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import grpc
import typer

from .common.cases import CASES, TINY_4K, Case
from .common.h2load import require_h2load
from .common.report import Report, console
from .common.side_by_side import COLUMNS, Load, SideBySide
from .common.window import result
from .peers.environment import NotInstalled
from .peers.plotting import plot
from .peers.running import Running, WrongAnswer
from .peers.systems import MODELHOST, SYSTEMS, System

_ROUNDS, _SECONDS = 2, 1.5
_QUICK_ROUNDS, _QUICK_SECONDS = 1, 1.0
_NOT_QUICK = (TINY_4K.key,)
_FAILURES = (RuntimeError, NotInstalled, WrongAnswer, grpc.RpcError)


def main(
    quick: Annotated[
        bool, typer.Option("--quick", help="One short round of fewer cases: rough, in a third of the time.")
    ] = False,
    peers: Annotated[str, typer.Option(help=f"Only these, of: {','.join(s.key for s in SYSTEMS)}.")] = "",
    cases: Annotated[str, typer.Option(help=f"Only these, of: {','.join(c.key for c in CASES)}.")] = "",
    seconds: Annotated[float | None, typer.Option(help=f"Of each measurement. [default: {_SECONDS:g}]")] = None,
    rounds: Annotated[int | None, typer.Option(help=f"Measurements of each kind. [default: {_ROUNDS}]")] = None,
) -> None:
    """Compare modelhost with other servers: throughput, latencies and processor time."""
    require_h2load()
    rounds = rounds or (_QUICK_ROUNDS if quick else _ROUNDS)
    seconds = seconds or (_QUICK_SECONDS if quick else _SECONDS)
    # modelhost is what all others are compared with.
    systems = [s for s in SYSTEMS if s is MODELHOST or not peers or s.key in _chosen(peers, [s.key for s in SYSTEMS])]
    chosen = [c for c in CASES if not cases or c.key in _chosen(cases, [c.key for c in CASES])]
    if quick:
        chosen = [c._replace(rates=c.rates[-1:]) for c in chosen if cases or c.key not in _NOT_QUICK]
    report = Report("bench", "modelhost beside other servers", COLUMNS)
    measured = SideBySide(systems)
    for number in range(rounds):
        for system in systems if number % 2 == 0 else reversed(systems):
            if system.name not in measured.failed:
                _measure(system, chosen, seconds, measured, f"round {number + 1}/{rounds}, {system.name}")
    measured.tell(report)
    report.note(f"{rounds} rounds of {seconds:g} s each; a system has the machine to itself while it is measured.")
    report.finish(measured.measured())
    plot("bench")


def _measure(system: System, cases: list[Case], seconds: float, measured: SideBySide, progress: str) -> None:
    console.print(f"{progress}: starting", style="dim")
    try:
        with ExitStack() as stack:
            running = system.start(stack, cases)
            for case in cases:
                for load in loads_of(case, system):
                    _measure_one(system, running, case, load, seconds, measured, progress)
    except _FAILURES as error:
        measured.fail(system, _reason(error))
        console.print(f"{progress}: {_reason(error)}", style="red")


def loads_of(case: Case, system: System) -> list[Load]:
    """What a case is measured under: callers who wait for answers, and calls at a fixed rate."""
    rates = [Load(rate=rate) for rate in case.rates] if system.has_rate else []
    return [*(Load(callers=callers) for callers in case.callers), *rates]


def _measure_one(
    system: System, running: Running, case: Case, load: Load, seconds: float, measured: SideBySide, progress: str
) -> None:
    """Measures, if what is answered before and after is right."""
    try:
        running.check(case)
        window = running.open(case, load.rate, seconds) if load.rate else running.closed(case, load.callers, seconds)
        running.check(case)
        found = result([window])
    except _FAILURES as error:
        measured.fail_one(system, case, load, _reason(error))
        console.print(f"{progress}, {case.name}, {load}: {_reason(error)}", style="red")
        return
    measured.add(system, case, load, window)
    console.print(
        f"{progress}, {case.name}, {load}: {found.per_second:,.0f}/s, p99 {found.p99:.3g} ms",
        style="dim",
        highlight=False,
    )


def _chosen(names: str, known: list[str]) -> list[str]:
    chosen = names.split(",")
    if unknown := [name for name in chosen if name not in known]:
        raise typer.BadParameter(f"{', '.join(unknown)}: there are {', '.join(known)}")
    return chosen


def _reason(error: BaseException) -> str:
    if isinstance(error, grpc.Call):
        return f"{error.code().name}: {error.details()}"
    return str(error).strip()


if __name__ == "__main__":
    typer.run(main)
