"""All the processes of a server, however they were started: they carry a mark in their environment."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psutil

from .clocks import cpu_seconds

MARK = "BENCHMARKED_SERVER"


def marked(mark: str) -> Iterator[psutil.Process]:
    """The processes that live now and were started with MARK=mark."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark:
                yield process


def cpu_seconds_of(mark: str) -> float:
    """Processor time of all of them."""
    total = 0.0
    for process in marked(mark):
        with contextlib.suppress(OSError):
            total += cpu_seconds(process.pid)
    return total
