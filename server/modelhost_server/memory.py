"""What this process holds, as the kernel counts it."""

from __future__ import annotations

import ctypes

_libc = ctypes.CDLL(None)


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
    fields: dict[str, int] = {}
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(("RssAnon:", "RssFile:")):
                name, size, _ = line.split()
                fields[name] = int(size) * 1024
    return {"private": fields["RssAnon:"] + fields["RssFile:"], "anonymous": fields["RssAnon:"]}


def give_back() -> None:
    """Returns the allocator's free pages to the system."""
    _libc.malloc_trim(0)
