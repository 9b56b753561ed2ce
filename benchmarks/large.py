"""Tensors of 10 MB from a caller on the same host, by the ways that modelhost's client has for them."""

from __future__ import annotations

from typing import Annotated

import typer

from .common.cases import LARGE
from .common.loading import load
from .common.report import Report, console, verdict
from .common.servers import modelhost_server
from .common.window import Window, result
from .peers.running import BySdk

# Ways of `sdk_caller`; the first is what others are compared with.
WAYS = {"bytes over gRPC": "unary", "shared memory": "shared-memory"}
BOUND = 3.0


def main(
    seconds: Annotated[float, typer.Option(help="Of each measurement.")] = 4.0,
    rounds: Annotated[int, typer.Option(help="Measurements of each kind.")] = 3,
) -> None:
    """Measure the ways to send 10 MB and to have 10 MB back."""
    columns = ("callers", "way", "req/s", "p50 ms", "p99 ms", "server's CPU µs", "gain", "bound", "")
    report = Report("large", "Tensors of 10 MB, there and back", columns)
    windows: dict[int, dict[str, list[Window]]] = {callers: {way: [] for way in WAYS} for callers in LARGE.callers}
    with modelhost_server() as server:
        load(server.address, LARGE.model)
        for number in range(rounds):
            for callers, by_way in windows.items():
                for way, found in by_way.items():
                    console.print(f"round {number + 1}/{rounds}: {callers} callers, {way}", style="dim")
                    running = BySdk(server, WAYS[way])
                    running.check(LARGE)
                    found.append(running.closed(LARGE, callers, seconds))
    results = {callers: {way: result(found) for way, found in by_way.items()} for callers, by_way in windows.items()}
    passed = True
    for callers, by_way in results.items():
        first = next(iter(by_way.values()))
        for way, of_way in by_way.items():
            gain = of_way.per_second / first.per_second
            passed &= of_way is first or gain >= BOUND
            judged = ("", "", "") if of_way is first else (gain, BOUND, verdict(gain >= BOUND))
            report.row(callers, way, of_way.per_second, of_way.p50, of_way.p99, of_way.server_cpu, *judged)
    report.note(
        f"{verdict(passed)}. Gain: in calls a second. The caller is one Python process with modelhost's client. "
        f"{rounds} rounds of {seconds:g} s."
    )
    report.finish({callers: {k: v._asdict() for k, v in by_way.items()} for callers, by_way in results.items()})
    raise typer.Exit(not passed)


if __name__ == "__main__":
    typer.run(main)
