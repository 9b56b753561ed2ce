"""Tensors of 10 MB from a caller on the same host, by the ways that modelhost's client has for them."""

from __future__ import annotations

from typing import Annotated

import typer
from modelhost.v1 import model_pb2

from .common.cases import LARGE
from .common.loading import load
from .common.report import Report, console
from .common.servers import modelhost_server
from .common.window import Window, result
from .peers.running import BySdk

# Ways of `sdk_caller`; the first is what others are compared with.
WAYS = {"bytes over gRPC": "unary"}


def main(
    seconds: Annotated[float, typer.Option(help="Of each measurement.")] = 4.0,
    rounds: Annotated[int, typer.Option(help="Measurements of each kind.")] = 3,
) -> None:
    """Measure the ways to send 10 MB and to have 10 MB back."""
    columns = ("callers", "way", "req/s", "p50 ms", "p99 ms", "server's CPU µs", "times the first way's req/s")
    report = Report("large", "Tensors of 10 MB, there and back", columns)
    windows: dict[int, dict[str, list[Window]]] = {callers: {way: [] for way in WAYS} for callers in LARGE.callers}
    with modelhost_server() as server:
        load(server.address, LARGE.model, model_pb2.LoadOptions())
        for number in range(rounds):
            for callers, by_way in windows.items():
                for way, found in by_way.items():
                    console.print(f"round {number + 1}/{rounds}: {callers} callers, {way}", style="dim")
                    running = BySdk(server, WAYS[way])
                    running.check(LARGE)
                    found.append(running.closed(LARGE, callers, seconds))
    results = {callers: {way: result(found) for way, found in by_way.items()} for callers, by_way in windows.items()}
    for callers, by_way in results.items():
        first = next(iter(by_way.values()))
        for way, of_way in by_way.items():
            gain = of_way.per_second / first.per_second
            report.row(callers, way, of_way.per_second, of_way.p50, of_way.p99, of_way.server_cpu, gain)
    report.note(f"The caller is one Python process with modelhost's client. {rounds} rounds of {seconds:g} s.")
    report.finish({callers: {k: v._asdict() for k, v in by_way.items()} for callers, by_way in results.items()})


if __name__ == "__main__":
    typer.run(main)
