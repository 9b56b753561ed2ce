"""Whether models that differ in their last layer only have the rest of their weights, and their graph, in common.

Fine-tunes of a ResNet50 are loaded into one scope on the tensorflow engine, used, and unloaded; twice, so that the
second time finds what the first time prepared. A tiny model stays loaded, because the server replaces a worker that
has none: what the worker keeps is to be seen without that.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import modelhost
import numpy as np
import psutil
import typer

from .common.building import built
from .common.models import INPUT, RESNET, TINY, input_array, model_path
from .common.report import Report, console, verdict
from .common.servers import Server

SCOPE = "default"
# Of what one model takes; and megabytes that the worker may keep.
RATIO_BOUND, KEPT_BOUND_MB = 2.5, 40.0


class Private(NamedTuple):
    """Megabytes of a worker that no other process shares: all, and without pages of libraries.

    Which pages of a library only one process has touched so far depends on the other processes.
    """

    all: float
    without_libraries: float

    def over(self, before: Private) -> Private:
        """The growth since then."""
        return Private(self.all - before.all, self.without_libraries - before.without_libraries)


class Round(NamedTuple):
    """What was measured of loading, using and unloading the models once."""

    seconds: list[float]
    one: Private
    all: Private
    kept: Private
    shared_mb: float


def main(models: Annotated[int, typer.Option(help="Fine-tunes to load.")] = 10) -> None:
    """Measure the memory of ResNet50s that differ in the last layer only."""
    console.print(f"building {models} fine-tunes, unless that has been done", style="dim")
    folder = built("benchmarks.common.density_build", str(models))
    report = Report("density", f"{models} fine-tunes of ResNet50", ("", "cold cache", "again"))
    with tempfile.TemporaryDirectory() as cache:
        options = ("--listen", "127.0.0.1:0", "--cache-dir", cache, "--no-tuning")
        with Server("modelhost_server", *options) as server, modelhost.Client(server.address) as client:
            client.load(f"{SCOPE}/{TINY}", model_path(TINY), engine="tensorflow")
            worker = _worker(server.pid)
            before = _private(worker)
            rounds = [_round(client, worker, before, folder, models) for _ in range(2)]
            assert _worker(server.pid) == worker, "the server has replaced the worker"
    passed = _tell(report, before, rounds, models)
    report.finish({"before": before._asdict(), "rounds": [_described(result) for result in rounds]})
    raise typer.Exit(not passed)


def _round(client: modelhost.Client, pid: int, before: Private, folder: Path, models: int) -> Round:
    names = [f"{SCOPE}/{RESNET}-{number}" for number in range(models)]
    x, answers, seconds, growth = {INPUT: input_array(RESNET)}, [], [], []
    for number, name in enumerate(names):
        begin = time.monotonic()
        client.load(name, folder / str(number), engine="tensorflow")
        seconds.append(time.monotonic() - begin)
        answers.append(next(iter(client.predict(name, x).values())))
        growth.append(_private(pid).over(before))
        console.print(f"{name}: {seconds[-1]:.2f} s, {growth[-1].all:.0f} MB in all", style="dim", highlight=False)
    for name, answer in zip(names, answers, strict=True):
        # Each has its own last layer still, now that all are there.
        np.testing.assert_array_equal(next(iter(client.predict(name, x).values())), answer)
    assert len({answer.tobytes() for answer in answers}) == models
    loaded = _private(pid).over(before)
    shared = client.model(names[-1]).versions[0].memory.shared_bytes / 1e6
    # The first one counts as what they share, too: without it, the server would think the worker worth replacing.
    for name in reversed(names):
        client.unload(name)
    return Round(seconds, growth[0], loaded, _private(pid).over(before), shared)


def _tell(report: Report, before: Private, rounds: list[Round], models: int) -> bool:
    def row(label: str, cells: list[float]) -> None:
        report.row(label, *cells)

    row("private MB with one", [r.one.all for r in rounds])
    row(f"private MB with {models}", [r.all.all for r in rounds])
    row("times one", [r.all.all / r.one.all for r in rounds])
    row("MB of the last that others share", [r.shared_mb for r in rounds])
    row("private MB kept after all were unloaded", [r.kept.all for r in rounds])
    row("without pages of libraries: with one", [r.one.without_libraries for r in rounds])
    row(f"without pages of libraries: with {models}", [r.all.without_libraries for r in rounds])
    row("without pages of libraries: kept", [r.kept.without_libraries for r in rounds])
    row("seconds to load the first", [r.seconds[0] for r in rounds])
    row("seconds to load each of the others", [sum(r.seconds[1:]) / max(1, len(r.seconds) - 1) for r in rounds])
    ratio, kept = max(r.all.all / r.one.all for r in rounds), max(r.kept.all for r in rounds)
    report.note(
        f"{verdict(ratio <= RATIO_BOUND)}: {models} take {ratio:.2f} times what one takes; {RATIO_BOUND} allowed."
    )
    report.note(f"{verdict(kept <= KEPT_BOUND_MB)}: the worker keeps {kept:.0f} MB; {KEPT_BOUND_MB:.0f} allowed.")
    report.note(
        "Private memory is Private_Clean and Private_Dirty of the worker, as growth since before the first of them. A "
        f"tiny model was in it by then ({before.all:.0f} MB in all), and stays, or the server would replace the empty "
        "worker and give back all of it. Loads include first executions."
    )
    return ratio <= RATIO_BOUND and kept <= KEPT_BOUND_MB


def _described(result: Round) -> dict[str, Any]:
    parts = {"one": result.one, "all": result.all, "kept": result.kept}
    memory = {f"{name}_mb": part._asdict() for name, part in parts.items()}
    return {"load_seconds": result.seconds, **memory, "shared_mb": result.shared_mb}


def _worker(server: int) -> int:
    """The worker of the server's only scope: its newest process, for workers are forked from the others."""
    return max(psutil.Process(server).children(recursive=True), key=lambda process: process.create_time()).pid


def _private(pid: int) -> Private:
    """The private memory of a process."""
    everything = libraries = 0
    is_library = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, *rest = line.split()
        if not name.endswith(":"):
            is_library = ".so" in Path(rest[-1]).suffixes if len(rest) > 4 else False
        elif name in ("Private_Clean:", "Private_Dirty:"):
            everything += int(rest[0])
            libraries += int(rest[0]) if is_library else 0
    return Private(everything * 1024 / 1e6, (everything - libraries) * 1024 / 1e6)


if __name__ == "__main__":
    typer.run(main)
