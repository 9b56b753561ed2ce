"""Root's powers: a process that runs models as root has none of them but to read and write files of others."""

from __future__ import annotations

import ctypes
import os

from .kernel import PR_CAPBSET_DROP, PR_CAPBSET_READ, capset, prctl

# Models and cache may belong to another user than root; what may be written is Landlock's to say.
_DAC_OVERRIDE = 1
_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Sets(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def drop_capabilities() -> None:
    """Drops root's capabilities, for programs that are started as well; nothing for who is not root."""
    if os.geteuid() != 0:
        return
    capability = 0
    while _exists(capability):
        if capability != _DAC_OVERRIDE:
            prctl(PR_CAPBSET_DROP, capability)
        capability += 1
    kept = (1 << _DAC_OVERRIDE) if prctl(PR_CAPBSET_READ, _DAC_OVERRIDE) else 0
    capset(_Header(_VERSION_3, 0), (_Sets * 2)(_Sets(kept, kept, 0), _Sets(0, 0, 0)))


def _exists(capability: int) -> bool:
    try:
        prctl(PR_CAPBSET_READ, capability)
    except OSError:
        return False
    return True
