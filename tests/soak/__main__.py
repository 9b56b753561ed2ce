"""Loads and predicts thousands of times, and compares what the server holds with what it held at first."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from support.building import built
from support.server import ServerProcess

from .census import Census, census, settled
from .work import Work

_FIRST = 0.05
_TOLERANCE = 0.02


def soak(cycles: int, predictions: int, fill: bool = True) -> tuple[Census, Census]:
    """What the server held after the first twentieth of the work, and after all of it."""
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
            work = Work(server, built("build"))
            if fill:
                started = time.monotonic()
                work.fill_memories()
                print(f"memories filled in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
            taken = []
            for share in (_FIRST, 1 - _FIRST):
                started = time.monotonic()
                work.cycle(round(cycles * share))
                cycled = time.monotonic()
                work.predict(round(predictions * share))
                print(
                    f"{cycles * share:.0f} cycles in {cycled - started:.0f} s, "
                    f"{predictions * share:.0f} predictions in {time.monotonic() - cycled:.0f} s",
                    file=sys.stderr, flush=True,
                )  # fmt: skip
                taken.append(settled(lambda: census(server, folders)))
            work.close()
    return taken[0], taken[1]


def grown(first: Census, last: Census) -> list[str]:
    """What there is more of than before, or less, by over a fiftieth."""
    return [name for name in first if abs(last[name] - first[name]) > _TOLERANCE * first[name]]


def main() -> int:
    """0 when nothing has grown."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--cycles", type=int, default=5_000, help="loads, each with a prediction and an unload")
    parser.add_argument("--predictions", type=int, default=100_000, help="predictions besides")
    options = parser.parse_args()
    first, last = soak(options.cycles, options.predictions)
    wrong = grown(first, last)
    print(f"{'':30}{'after 5 %':>12}{'at the end':>12}{'':>9}")
    for name in first:
        change = (last[name] / first[name] - 1) * 100 if first[name] else 0.0
        print(f"{name:30}{first[name]:12.1f}{last[name]:12.1f}{change:+8.1f}%  {'GROWN' if name in wrong else 'same'}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
