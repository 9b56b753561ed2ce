"""Whether unloading gives memory back: ten copies of a ResNet50 loaded, used and unloaded.

Memory is the sum of PSS (private memory plus a fair share of what is shared) over all of modelhost's processes.
"""

from __future__ import annotations

import time
from typing import Annotated

import psutil
import typer

import modelhost

from .common.models import INPUT, RESNET, input_array, model_path
from .common.report import Report, console, verdict
from .common.servers import modelhost_server

SCOPE = "copies"
# More than before that the issue allows, whichever is larger, and how soon.
SLACK_SHARE, SLACK_MB, WITHIN_SECONDS = 0.05, 30, 2.0
_MB = 1e6


def main(copies: Annotated[int, typer.Option(help="Models to load.")] = 10) -> None:
    """Measure modelhost's memory before, with, and after ten ResNet50s."""
    report = Report("memory", f"Memory of {copies} ResNet50s", ("", "MB", "processes"))
    names = [f"{SCOPE}/{RESNET}-{i}" for i in range(copies)]
    path, x = model_path(RESNET), {INPUT: input_array(RESNET)}
    with modelhost_server() as server, modelhost.Client(server.address) as client:
        client.create_scope(SCOPE)
        _settle(server.pid)
        before = _row(report, "before", server.pid)
        own = []
        for name in names:
            console.print(f"loading {name}", style="dim")
            version = client.load(name, path)
            client.predict(name, x)
            own.append(version.memory.private_bytes / _MB)
        loaded = _row(report, "loaded, and each used once", server.pid)
        for name in names:
            client.unload(name)
        bound = before + max(SLACK_SHARE * before, SLACK_MB)
        taken, after = _wait_below(server.pid, bound)
        _row(report, "after all were unloaded", server.pid)
    report.row("allowed after", bound, "")
    report.row("a model: growth of all, with its first use", (loaded - before) / copies, "")
    report.row("a model: private memory by its load, as GetModel says", sum(own) / copies, "")
    passed = after <= bound
    report.note(f"{verdict(passed)}: {after:.0f} MB {taken:.1f} s after the last unload; {before:.0f} MB before.")
    measured = {"before": before, "loaded": loaded, "after": after, "after_seconds": taken, "own": own}
    report.finish({name: value for name, value in measured.items()})
    raise typer.Exit(not passed)


def _row(report: Report, what: str, pid: int) -> float:
    total, count = _pss(pid)
    report.row(what, total, count)
    return total


def _pss(pid: int) -> tuple[float, int]:
    """Megabytes of all processes of a server, and how many there are."""
    server = psutil.Process(pid)
    sizes = []
    for process in (server, *server.children(recursive=True)):
        try:
            sizes.append(process.memory_full_info().pss)
        except psutil.NoSuchProcess:
            pass
    return sum(sizes) / _MB, len(sizes)


def _settle(pid: int) -> None:
    """Waits until the memory no longer changes: the template may still be getting ready."""
    last = -1.0
    while abs(last - (last := _pss(pid)[0])) > 1:
        time.sleep(1)


def _wait_below(pid: int, bound: float) -> tuple[float, float]:
    """Seconds until the memory is within the bound, at most those allowed, and the memory then."""
    begin = time.monotonic()
    while (size := _pss(pid)[0]) > bound and time.monotonic() - begin < WITHIN_SECONDS:
        time.sleep(0.1)
    return time.monotonic() - begin, size


if __name__ == "__main__":
    typer.run(main)
