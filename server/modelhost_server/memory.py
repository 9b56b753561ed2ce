"""What this process holds, as the kernel counts it, and when it gives up what it does not use."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import resource
import sys
from typing import NamedTuple

_libc = ctypes.CDLL(None)

# From malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_KEEP = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: (1 << 31) - 1, _M_TOP_PAD: 16 << 20, _M_ARENA_MAX: 1}

# Fields of /proc/PID/status, and their units.
_FIELDS = {b"RssAnon": 1024, b"RssFile": 1024, b"Threads": 1}


def measure(pid: int | str = "self") -> dict[str, int]:
    """What a process holds, in bytes: `private`, `pss` (private plus a fair share of what is shared), and `anonymous`
    (what is no file's, and so in no other process's memory either).

    Raises:
        OSError: there is no such process, or it may not be looked at.
    """
    fields: dict[str, int] = {}
    with open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if rest.endswith("kB\n"):
                fields[name] = int(rest[:-3]) * 1024
    return {
        "private": fields["Private_Clean"] + fields["Private_Dirty"],
        "pss": fields["Pss"],
        "anonymous": fields["Anonymous"],
    }


def resident() -> dict[str, int]:
    """What this process holds now, in bytes: `private` and `anonymous` about as `measure` has them, but for files that
    other processes have mapped, too, which count here. A hundred times as fast: the kernel keeps these counts, within
    some 100 kB of the truth.
    """
    status = _status("self")
    return {"private": status["RssAnon"] + status["RssFile"], "anonymous": status["RssAnon"]}


class Used(NamedTuple):
    """What a process uses now: its anonymous memory in bytes, about as `measure` has it, and threads."""

    anonymous: int
    threads: int


def used_by(pid: int) -> Used:
    """See Used.

    Raises:
        ProcessLookupError: there is no such process.
    """
    status = _status(pid)
    return Used(status["RssAnon"], status["Threads"])


def bound(pid: int, most: int | None) -> None:
    """Has a process of ours find no more memory, when it has mapped so many bytes for data, used or not; with None, no
    more than this process. It never gets more than this one.

    Raises:
        ProcessLookupError: there is no such process.
        OSError: it may not be bounded.
    """
    ours, _ = resource.getrlimit(resource.RLIMIT_DATA)
    _, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
    largest = min((limit for limit in (ours, hard) if limit != resource.RLIM_INFINITY), default=sys.maxsize)
    try:
        resource.prlimit(pid, resource.RLIMIT_DATA, (ours if most is None else min(most, largest), hard))
    except ValueError as error:
        # It has taken less for itself meanwhile.
        raise PermissionError(errno.EPERM, str(error)) from None


def _status(pid: int | str) -> dict[str, int]:
    """What the kernel tells of a process's memory, in bytes, and the number of its threads."""
    fields: dict[str, int] = {}
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                name, _, rest = line.partition(b":")
                # Others are a process's own to choose, such as its name.
                if name in _FIELDS:
                    fields[name.decode()] = int(rest.removesuffix(b"kB\n")) * _FIELDS[name]
    except FileNotFoundError:
        fields = {}
    if "RssAnon" not in fields:
        # One that has ended, and nobody was told yet, has no memory.
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    return fields


def keep_freed_memory() -> None:
    """Has the allocator keep what is freed until it is asked to give it back (`give_back`).

    Every call frees what the next one allocates: taken from the kernel each time, a MobileNetV2 with a batch of 8 takes
    half as long again, and a server that echoes 10 MB three times as much CPU. TensorFlow's own pool, which it uses
    otherwise, is as fast as this, but gives nothing back. One arena for all threads, because the free end of the
    others' cannot be given back either.
    """
    for option, value in _KEEP.items():
        _libc.mallopt(option, value)


def keep_objects() -> None:
    """Takes the Python objects that there are now out of the garbage collector's sight.

    It looks through all objects when those that are new are a quarter of the old: with what a process imports among the
    old, garbage of megabytes waits for that, and each look stops all calls for some ten milliseconds. What it does not
    look at, a fork goes on sharing with its parent.
    """
    gc.collect()
    gc.freeze()
    # Or it would go on counting as old what it does not see any more.
    gc.collect()


def give_back() -> None:
    """Returns the allocator's free pages to the system."""
    _libc.malloc_trim(0)
