"""Processor time of other processes."""

from __future__ import annotations

import time

_SCHEDULED = 2


def cpu_seconds(pid: int) -> float:
    """Processor time that all threads of a process have taken, to the nanosecond."""
    # clock_getcpuclockid(3), which Python does not offer; /proc counts in hundredths of a second.
    return time.clock_gettime((~pid << 3) | _SCHEDULED)
