"""What this process holds, as the kernel counts it."""

from __future__ import annotations

import ctypes


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


def give_back() -> None:
    """Returns the allocator's free pages to the system."""
    ctypes.CDLL(None).malloc_trim(0)
