"""Loads and predicts thousands of times, and compares what the server holds with what it held at first."""

from __future__ import annotations

import argparse
import sys

from .soaking import grown, soak


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
        verdict = "CHANGED" if name in wrong else "same"
        print(f"{name:30}{first[name]:12.1f}{last[name]:12.1f}{change:+8.1f}%  {verdict}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
