"""How near modelhost is to a loop without any server: MobileNetV2, eight callers, the same engine on both sides."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Annotated, NamedTuple

import typer

from .common import ROOT
from .common.cases import MOBILENET, Case
from .common.h2load import require_h2load
from .common.loading import Engine, load
from .common.report import Report, console, verdict
from .common.servers import modelhost_server
from .common.window import Window, result
from .peers.protocols import NATIVE
from .peers.running import Direct, Hosted

CALLERS = 8
BOUND = 0.95
MODELHOST = "modelhost"
# A cache of its own, so that what modelhost has converted is found in it.
_CACHE = ROOT / ".cache" / "bench-limit"


class Limit(NamedTuple):
    """A loop, and the engine that modelhost runs beside it."""

    name: str
    engine: Engine
    way: str


LIMITS = (
    Limit("TensorFlow, restored signature", "tensorflow", "signature"),
    Limit("modelhost's engine object for TensorFlow", "tensorflow", "tensorflow"),
    Limit("modelhost's engine object for LiteRT", "litert", "litert"),
)


def main(
    seconds: Annotated[float, typer.Option(help="Of each measurement.")] = 5.0,
    rounds: Annotated[int, typer.Option(help="Measurements of each kind.")] = 5,
) -> None:
    """Measure modelhost beside loops in one process."""
    require_h2load()
    columns = ("loop", "its calls/s", "p99 ms", "modelhost's", "p99 ms", "share", "bound", "")
    report = Report("limit", f"modelhost beside a loop: {MOBILENET.name}, {CALLERS} callers", columns)
    windows: dict[str, tuple[list[Window], list[Window]]] = {limit.name: ([], []) for limit in LIMITS}
    for number in range(rounds):
        for limit in LIMITS:
            console.print(f"round {number + 1}/{rounds}: {limit.name}", style="dim")
            loops, ours = windows[limit.name]
            ours.append(_modelhost(limit.engine, seconds))
            loops.append(Direct(limit.way, _path(limit.way)).closed(MOBILENET, CALLERS, seconds))
    passed, measured = True, {}
    for name, (loops, ours) in windows.items():
        loop, our = result(loops), result(ours)
        share = median(
            len(b.latencies) / b.duration / (len(a.latencies) / a.duration) for a, b in zip(loops, ours, strict=True)
        )
        passed &= share >= BOUND
        report.row(name, loop.per_second, loop.p99, our.per_second, our.p99, share, BOUND, verdict(share >= BOUND))
        measured[name] = {"loop": loop._asdict(), MODELHOST: our._asdict(), "share": share}
    report.note(f"{verdict(passed)}. {rounds} rounds of {seconds:g} s; the share is the median of the rounds'.")
    report.finish(measured)
    raise typer.Exit(not passed)


def _modelhost(engine: Engine, seconds: float) -> Window:
    with modelhost_server(cache=_CACHE) as server:
        load(server.address, MOBILENET.model, engine)
        hosted = Hosted(server, NATIVE)
        hosted.check(MOBILENET)
        hosted.warm_up(MOBILENET)
        return hosted.closed(MOBILENET, CALLERS, seconds)


def _path(way: str):
    def path(case: Case) -> str:
        if way != "litert":
            return str(case.model.path())
        # The last one made: another number of threads is another artifact.
        return str(max(_artifacts(), key=lambda path: path.stat().st_mtime))

    return path


def _artifacts() -> list[Path]:
    return [path for path in (_CACHE / "engines").glob("*/litert-*") if path.is_dir()]


if __name__ == "__main__":
    typer.run(main)
