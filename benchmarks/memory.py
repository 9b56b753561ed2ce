"""Whether unloading gives memory back: ten copies of a ResNet50 loaded, used and unloaded.

Memory is the sum of PSS (private memory plus a fair share of what is shared) over all of modelhost's processes. Mapped
files are shared with whoever else maps them, so another process that uses TensorFlow at the same time moves that sum;
the second figure leaves files out.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, NamedTuple

import modelhost
import psutil
import typer

from .common.models import INPUT, RESNET, input_array, model_path
from .common.report import Report, console, verdict
from .common.servers import modelhost_server

SCOPE = "copies"
# More than before that the issue allows, whichever is larger, and how soon.
SLACK_SHARE, SLACK_MB, WITHIN_SECONDS = 0.05, 30, 2.0


class Memory(NamedTuple):
    """Megabytes of all processes of a server: PSS, the part of it that is no mapped file, and how many there are."""

    pss: float
    without_files: float
    processes: int


def main(copies: Annotated[int, typer.Option(help="Models to load.")] = 10) -> None:
    """Measure modelhost's memory before, with, and after ten ResNet50s."""
    report = Report("memory", f"Memory of {copies} ResNet50s", ("", "PSS MB", "without files MB", "processes"))
    names = [f"{SCOPE}/{RESNET}-{i}" for i in range(copies)]
    path, x = model_path(RESNET), {INPUT: input_array(RESNET)}
    own = []
    with modelhost_server() as server, modelhost.Client(server.address) as client:
        client.create_scope(SCOPE)
        before = _settled(server.pid)
        for name in names:
            console.print(f"loading {name}", style="dim")
            own.append(client.load(name, path).memory.private_bytes / 1e6)
            client.predict(name, x)
        loaded = _memory(server.pid)
        for name in names:
            client.unload(name)
        bound = before.pss + max(SLACK_SHARE * before.pss, SLACK_MB)
        taken, after = _watch(server.pid, bound)
    report.row("before", *before)
    report.row("loaded, and each used once", *loaded)
    report.row(f"{WITHIN_SECONDS:g} s after all were unloaded", *after)
    report.row("allowed then", bound, "", "")
    growth = [(now - then) / copies for now, then in zip(loaded[:2], before[:2], strict=True)]
    report.row("a model: growth of all, with its first use", *growth, "")
    report.row("a model: private memory by its load, as GetModel says", "", sum(own) / copies, "")
    passed = after.pss <= bound
    first = "never" if taken is None else f"{taken:.1f} s after the last unload"
    report.note(f"{verdict(passed)}. First within what is allowed: {first}.")
    report.finish(
        {
            "before": before._asdict(), "loaded": loaded._asdict(), "after": after._asdict(), "allowed": bound,
            "within_bound_after_seconds": taken, "private_mb_by_load": own,
        }
    )  # fmt: skip
    raise typer.Exit(not passed)


def _memory(pid: int) -> Memory:
    server = psutil.Process(pid)
    found = [pss for process in (server, *server.children(recursive=True)) if (pss := _pss(process.pid))]
    return Memory(sum(all_ for all_, _ in found), sum(rest for _, rest in found), len(found))


def _pss(pid: int) -> tuple[float, float] | None:
    """Megabytes of a process, all and without files; None when it has gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError):
        return None
    megabytes = {name: int(value.split()[0]) * 1024 / 1e6 for name, _, value in (line.partition(":") for line in lines)}
    return megabytes["Pss"], megabytes["Pss"] - megabytes["Pss_File"]


def _settled(pid: int) -> Memory:
    """The memory once it no longer changes: a server may still be getting ready when it answers already."""
    last, now = None, _memory(pid)
    while last is None or abs(now.without_files - last.without_files) > 1:
        time.sleep(1)
        last, now = now, _memory(pid)
    return now


def _watch(pid: int, bound: float) -> tuple[float | None, Memory]:
    """When the memory was first within the bound, if ever, and the memory at the end of the time allowed."""
    begin, taken = time.monotonic(), None
    while (elapsed := time.monotonic() - begin) < WITHIN_SECONDS:
        if taken is None and _memory(pid).pss <= bound:
            taken = elapsed
        time.sleep(0.1)
    return taken, _memory(pid)


if __name__ == "__main__":
    typer.run(main)
