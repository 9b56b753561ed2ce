"""The reduced rights of processes that run models: what the server decides, and how a process gives up the rest."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Self

from . import landlock, seccomp
from .capabilities import drop_capabilities
from .kernel import PR_SET_NO_NEW_PRIVS, prctl

# Weights are mapped, which needs no descriptor.
_MOST_DESCRIPTORS = 4096
# What interpreter, libraries and engines read, beside themselves.
_SYSTEM = (
    "/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/urandom", "/proc/self",
    "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys/vm", "/proc/sys/kernel", "/sys/devices/system",
    "/sys/fs/cgroup",
)  # fmt: skip
_SINK = "/dev/null"


@dataclass(frozen=True, slots=True)
class Rights:
    """What processes that run models may do with files.

    Attributes:
        sandboxed: whether the kernel sees to it, as far as it can; otherwise a process has all of its user's rights.
        readable: where models are; None for anywhere.
        writable: where they write: the cache, and what is made there.
    """

    sandboxed: bool
    readable: tuple[str, ...] | None = None
    writable: tuple[str, ...] = ()

    def to_json(self) -> str:
        """As it is told to a process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` was made from."""
        return cls(**json.loads(text))


def missing() -> list[str]:
    """What this machine lacks of a whole sandbox."""
    lacks = {"Landlock (Linux 5.13, enabled)": not landlock.version(), "seccomp": not seccomp.is_supported()}
    return [name for name, is_lacking in lacks.items() if is_lacking]


def step_down(rights: Rights, may_start_programs: bool = False) -> None:
    """Gives up what no model needs: new privileges, core dumps, root's powers, sockets, other processes.

    All threads must be started later.
    """
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if rights.sandboxed:
        drop_capabilities()
        if seccomp.is_supported():
            seccomp.filter_calls(may_start_programs)


def confine(rights: Rights) -> None:
    """Gives up all files but those that `rights` tells.

    All threads must be started later.
    """
    if not rights.sandboxed or not landlock.version():
        return
    readable = None
    if rights.readable is not None:
        own = {sys.prefix, sys.base_prefix, *(path for path in sys.path if os.path.isabs(path))}
        readable = [*_SYSTEM, *own, *rights.readable]
    landlock.restrict(readable, [_SINK, *rights.writable])


def close_all_but(kept: Collection[int]) -> None:
    """Closes all descriptors but these, and but standard input, output and error."""
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor > 2 and descriptor not in kept:
            try:
                os.close(descriptor)
            except OSError:
                # The directory's own, which was listed with the others.
                continue
