"""All the processes of a server: those that carry its mark in their environment, wherever their parents went, and
those below them, which may have been given another environment.
"""

from __future__ import annotations

import contextlib

import psutil

from .clocks import cpu_seconds

MARK = "BENCHMARKED_SERVER"


def marked(mark: str) -> set[psutil.Process]:
    """The processes that live now and were started with MARK=mark, or by one that was."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process not in found and process.environ().get(MARK) == mark:
                found |= {process, *process.children(recursive=True)}
    return found


def cpu_seconds_of(mark: str) -> float:
    """Processor time of all of them."""
    total = 0.0
    for process in marked(mark):
        with contextlib.suppress(OSError):
            total += cpu_seconds(process.pid)
    return total
