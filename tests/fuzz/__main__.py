"""Fuzzes everything: see docs/security.md, "Fuzzing"."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path

from support.building import built

from .calls import fuzz_both
from .journals import fuzz_journals
from .links import fuzz_links
from .parsers import check_parsers, fuzz_parsers
from .rest import fuzz_rest
from .sockets import fuzz_sockets
from .sources import fuzz_archives, fuzz_sources
from .tally import Tally, told

# What is fuzzed, and its share of the cases: what is slow gets fewer.
_Target = Callable[[Path, int, int], list[Tally]]
TARGETS: dict[str, tuple[float, _Target]] = {
    "parsers": (0.43, lambda models, seed, cases: fuzz_parsers(seed, cases)),
    "links": (0.20, lambda models, seed, cases: [fuzz_links(seed, cases)]),
    "calls": (0.19, fuzz_both),
    "rest": (0.06, lambda models, seed, cases: [fuzz_rest(models, seed, cases)]),
    "sockets": (0.06, fuzz_sockets),
    "journals": (0.02, lambda models, seed, cases: [fuzz_journals(seed, cases)]),
    "archives": (0.04, lambda models, seed, cases: [fuzz_archives(models, seed, cases)]),
    "sources": (0.01, fuzz_sources),
}


def main() -> int:
    """0 when nothing failed."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Fuzzes the server and its parts.")
    parser.add_argument("--cases", type=int, default=100_000, help="cases in all")
    parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same cases")
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; all when none is named")
    options = parser.parse_args()
    models, tallies = built("build"), list[Tally]()
    for name in options.targets or TARGETS:
        share, fuzz = TARGETS[name]
        started, cases = time.monotonic(), int(options.cases * share)
        print(f"{name}: {cases} cases…", file=sys.stderr, flush=True)
        if name == "parsers" and importlib.util.find_spec("atheris") is None:
            print("there is no atheris for this Python: parsers are fuzzed without guidance", file=sys.stderr)
            tallies.append(check_parsers(options.seed, cases))
        else:
            tallies += fuzz(models, options.seed, cases)
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    print(told(tallies))
    return int(any(tally.failures for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
