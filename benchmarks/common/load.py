"""Processes that make calls, and what they tell of them.

Such a process (`generator`, `direct_caller`) says "ready" once it has its first answer, calls until its input is
closed, and then writes, for each call, when it began (by the clock that all processes share) and how long it took.
"""

from __future__ import annotations

import math
import subprocess
import sys
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from . import ROOT
from .clocks import cpu_seconds

# In place of how long a call took.
FAILED, UNANSWERED = math.nan, math.inf


class Summary(NamedTuple):
    """What a window of calls amounts to; latencies in milliseconds."""

    count: int
    per_second: float
    p50: float
    p99: float


class Calls:
    """Calls that were made: when each began, and how long it took, in seconds."""

    def __init__(self, rows: np.ndarray) -> None:
        self.started, self.seconds = rows[:, 0], rows[:, 1]

    def ended_within(self, begin: float, end: float) -> np.ndarray:
        """How long those took that ended in a window."""
        ended = self.started + self.seconds
        return self.seconds[(ended >= begin) & (ended < end)]

    def begun_within(self, begin: float, end: float) -> np.ndarray:
        """How long those took that began in a window, FAILED and UNANSWERED ones among them."""
        return self.seconds[(self.started >= begin) & (self.started < end)]

    def overlapping(self, windows: list[tuple[float, float]]) -> Summary:
        """The calls that were under way at some time in any of the windows."""
        if np.isnan(self.seconds).any():
            raise RuntimeError(f"{np.isnan(self.seconds).sum()} calls failed")
        chosen = np.zeros(len(self.started), dtype=bool)
        for begin, end in windows:
            chosen |= (self.started < end) & (self.started + self.seconds > begin)
        return _summary(self.seconds[chosen], sum(end - begin for begin, end in windows))


def _summary(seconds: np.ndarray, window: float) -> Summary:
    if not len(seconds):
        raise RuntimeError("no call ended within the window: give it more --seconds")
    p50, p99 = np.percentile(seconds, [50, 99], method="higher") * 1e3
    return Summary(len(seconds), len(seconds) / window, float(p50), float(p99))


class Load:
    """A process that makes calls until it is stopped."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            self._failed()

    def cpu_seconds(self) -> float:
        """Processor time that the calling process has taken."""
        return cpu_seconds(self._process.pid)

    def stop(self) -> Calls:
        """Ends the process and answers all its calls."""
        output, errors = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError(f"{self._module} failed:\n{errors.decode()[-4000:]}")
        return Calls(np.frombuffer(output).reshape(-1, 2))

    def _failed(self) -> None:
        _, errors = self._process.communicate()
        raise RuntimeError(f"{self._module} made no call:\n{errors.decode()[-4000:]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


def tell(calls: list[tuple[float, float]]) -> None:
    """Writes the calls for the process that started this one."""
    sys.stdout.buffer.write(np.array(calls, dtype=np.float64).tobytes())
    sys.stdout.buffer.flush()
