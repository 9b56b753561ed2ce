"""What was seen of a server while it was called for some time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Window(NamedTuple):
    """The calls of some seconds.

    Attributes:
        latencies: seconds, of each call; infinite where no answer came in time.
        duration: seconds.
        server_cpu: seconds of processor time for each call, of all the server's processes.
        generator_cpu: processors that the generator took.
        failed: calls that were answered with an error.
    """

    latencies: np.ndarray
    duration: float
    server_cpu: float
    generator_cpu: float
    failed: int = 0


class Result(NamedTuple):
    """Several windows in numbers, as tables show them: latencies in milliseconds, processor time in microseconds."""

    calls: int
    per_second: float
    p50: float
    p99: float
    server_cpu: float
    generator_cpu: float
    failed: int


def result(windows: Sequence[Window]) -> Result:
    """All windows as if they were one."""
    latencies = np.concatenate([window.latencies for window in windows])
    if not len(latencies):
        raise RuntimeError("no call was answered within the time: give it more --seconds")
    answered = int(np.isfinite(latencies).sum())
    # Without interpolation, which knows no infinity.
    p50, p99 = np.percentile(latencies, [50, 99], method="higher") * 1e3
    return Result(
        calls=answered,
        per_second=answered / sum(window.duration for window in windows),
        p50=float(p50), p99=float(p99),
        server_cpu=float(np.mean([window.server_cpu for window in windows])) * 1e6,
        generator_cpu=max(window.generator_cpu for window in windows),
        failed=sum(window.failed for window in windows),
    )  # fmt: skip
