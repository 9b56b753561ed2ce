"""Work and two censuses."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from support.building import built
from support.server import ServerProcess

from .census import QUIET_SECONDS, Census, census, settled
from .work import ENGINES, Work

_TOLERANCE = 0.02


def soak(
    cycles: int, predictions: int, *, first: float = 0.05, engines: Sequence[str] = tuple(ENGINES), fill: bool = True,
    quiet_seconds: float = QUIET_SECONDS,
) -> tuple[Census, Census]:  # fmt: skip
    """What the server held after the first part of the work, and after all of it.

    Args:
        cycles: loads, each with a prediction and an unload.
        predictions: besides.
        first: how large the first part is.
        engines: those that models are loaded on.
        fill: whether to begin with having happen as much as the server remembers.
        quiet_seconds: time that the server is left alone before it is looked at.
    """
    with tempfile.TemporaryDirectory(prefix="modelhost-soak-") as directory:
        folders = {name: Path(directory) / name for name in ("cache", "data", "temporary")}
        for folder in folders.values():
            folder.mkdir()
        # What the server leaves there is its own.
        before, os.environ["TMPDIR"] = os.environ.get("TMPDIR"), str(folders["temporary"])
        try:
            server = ServerProcess("--data-dir", str(folders["data"]), cache_dir=folders["cache"])
        finally:
            del os.environ["TMPDIR"]
            if before is not None:
                os.environ["TMPDIR"] = before
        with server:
            work = Work(server, built("build"), engines)
            if fill:
                started = time.monotonic()
                work.fill_memories()
                print(f"memories filled in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
            taken = []
            for share in (first, 1 - first):
                started = time.monotonic()
                work.cycle(round(cycles * share))
                cycled = time.monotonic()
                work.predict(round(predictions * share))
                print(
                    f"{cycles * share:.0f} cycles in {cycled - started:.0f} s, "
                    f"{predictions * share:.0f} predictions in {time.monotonic() - cycled:.0f} s",
                    file=sys.stderr, flush=True,
                )  # fmt: skip
                taken.append(settled(lambda: census(server, folders), quiet_seconds))
            work.close()
    return taken[0], taken[1]


def grown(first: Census, last: Census) -> list[str]:
    """What there is more of than before, by over a fiftieth. Of memory there may be less: some is given back late."""
    counts = [name for name in first if not name.endswith(" MB") and last[name] < (1 - _TOLERANCE) * first[name]]
    return counts + [name for name in first if last[name] > (1 + _TOLERANCE) * first[name]]
