"""`python -m chaos [--minutes 10] [--seed N] [--log DIRECTORY]`: exit code 1 when anything was not as it must be."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from .run import Chaos


def main() -> int:
    """See above."""
    parser = argparse.ArgumentParser(prog="chaos", description="A server under load, while its processes are killed.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--transport", choices=["grpcio", "h2corn"], default="grpcio")
    parser.add_argument("--log", type=Path, help="directory for the logs; kept when something goes wrong")
    arguments = parser.parse_args()
    directory = arguments.log or Path(tempfile.mkdtemp(prefix="modelhost-chaos-"))
    directory.mkdir(parents=True, exist_ok=True)
    print(f"seed {arguments.seed}, {arguments.minutes:g} minutes, {arguments.transport}", flush=True)
    began = time.monotonic()
    chaos = Chaos(directory, arguments.seed, ["--transport", arguments.transport])
    judge = chaos.run(60 * arguments.minutes)
    print(chaos.report())
    print(f"{time.monotonic() - began:.0f} s")
    if judge.violations:
        print(f"FAIL: {len(judge.violations)} violations; logs in {directory}, seed {arguments.seed}")
        return 1
    print("PASS: nothing acknowledged was lost, no answer was wrong")
    if arguments.log is None:
        shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
