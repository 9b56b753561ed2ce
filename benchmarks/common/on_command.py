"""Processes that call when they are told to, so that several take turns, a second each, without being started anew.

Such a process (`caller_of_server`, `caller_of_signature`) says "ready" after its first answers. It is told one
command a line (which of what it was started with, how many callers, for how many seconds) and answers with a line: the
rate and the median latency.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from . import ROOT

# A window's first part is not counted: caches are cold, and what others left behind is being cleared away.
WARM_UP = 0.15


class Window(NamedTuple):
    """What came of a command: calls a second, and the median latency in milliseconds."""

    per_second: float
    p50: float


class CommandedCaller:
    """A process that calls on command."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        if self._line() != "ready":
            self._failed()

    def measure(self, which: int, callers: int, seconds: float) -> Window:
        """Has it call for a while."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{which} {callers} {seconds}\n")
        self._process.stdin.flush()
        line = self._line()
        if not line:
            self._failed()
        return Window(*json.loads(line))

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def _failed(self) -> None:
        self._process.kill()
        _, errors = self._process.communicate()
        raise RuntimeError(f"{self._module} failed:\n{errors[-4000:]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._process.poll() is None:
            # The end of its input is its end.
            self._process.communicate()


# In the process


def say_ready() -> None:
    """Tells that commands are waited for."""
    print("ready", flush=True)


def parse(line: str) -> tuple[int, int, float]:
    """A command: which, callers, seconds."""
    which, callers, seconds = line.split()
    return int(which), int(callers), float(seconds)


def tell(calls: Sequence[tuple[float, float]], begin: float) -> None:
    """Answers a command: from when each call was under way, and how long; and when the command began."""
    started, seconds = np.array(calls).T
    ended = started + seconds
    counted = ended >= begin + WARM_UP
    first, last = ended[counted].min(), ended[counted].max()
    # From end to end: with few calls in a window it would matter where it cuts them.
    rate = (counted.sum() - 1) / (last - first)
    print(json.dumps([rate, float(np.median(seconds[counted])) * 1e3]), flush=True)
