"""Landlock: which files a process may open, however they are reached, and no other process's memory or signals.

https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable

from .kernel import system_call

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1

_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
# Removing, and making of all kinds.
_CHANGE_DIR = sum(1 << bit for bit in range(4, 13))
# Of devices, sockets, pipes and symbolic links: who else uses a directory would follow them, or wait for them.
_MAKE_ODD = 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12
# The versions of the interface that brought more to handle.
_REFER, _REFER_ABI = 1 << 13, 2
_TRUNCATE, _TRUNCATE_ABI = 1 << 14, 3
_CONNECTIONS, _CONNECTIONS_ABI = 0b11, 4
_SCOPES, _SCOPES_ABI = 0b11, 6

_OF_FILES = _WRITE_FILE | _READ_FILE | _TRUNCATE
_READ = _READ_FILE | _READ_DIR


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("connections", ctypes.c_uint64), ("scopes", ctypes.c_uint64)]


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def version() -> int:
    """The version of the kernel's interface; 0 where there is none, or it is off."""
    try:
        return system_call(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    except OSError:
        return 0


def restrict(readable: Iterable[str] | None, writable: Iterable[str]) -> None:
    """Restricts this thread and all that it starts, for good: files are opened below these paths only (any may be read
    when `readable` is None), no TCP connection is made or taken, no process outside is signalled or looked into.

    What the kernel is too old for stays possible.

    Raises:
        OSError: there is no Landlock.
    """
    abi = system_call(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    write = _WRITE_FILE | _CHANGE_DIR
    write |= _REFER if abi >= _REFER_ABI else 0
    write |= _TRUNCATE if abi >= _TRUNCATE_ABI else 0
    handled = write | (0 if readable is None else _READ)
    attributes = _Ruleset(
        handled,
        _CONNECTIONS if abi >= _CONNECTIONS_ABI else 0,
        _SCOPES if abi >= _SCOPES_ABI else 0,
    )
    ruleset = system_call(_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(ctypes.sizeof(attributes)), 0)
    try:
        for path in readable or ():
            _allow(ruleset, path, _READ)
        for path in writable:
            _allow(ruleset, path, handled & ~_MAKE_ODD)
        system_call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        # There is nothing to open.
        return
    try:
        if not stat.S_ISDIR(os.fstat(parent).st_mode):
            rights &= _OF_FILES
        rule = _PathRule(rights, parent)
        system_call(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(parent)
