"""A filter of system calls: what no model needs fails with EPERM, first of all to make a socket of any kind."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Sequence

from .kernel import PR_SET_SECCOMP, prctl

_MODE_FILTER = 2
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000 | errno.EPERM
# Of a BPF program: loads a word of `struct seccomp_data`, jumps, returns.
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET = 0, 4
# Numbers from here on are x86's 32-bit calls in 64-bit disguise.
_X32 = 0x40000000

# By machine: the architecture's number, and numbers of system calls.
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_ALWAYS = {
    # socket, connect, bind: nothing is reached that was not handed over. Not io_uring, which could do the same.
    "x86_64": (41, 42, 49, 425),
    "aarch64": (198, 203, 200, 425),
}
_OTHERS = {
    # ptrace, process_vm_readv, process_vm_writev, kcmp, pidfd_getfd: other processes.
    # unshare, setns, mount, open_by_handle_at: other views of the files.
    # bpf, perf_event_open, userfaultfd, add_key, request_key, keyctl: large parts of the kernel that models do not use.
    "x86_64": (101, 310, 311, 312, 438, 272, 308, 165, 304, 321, 298, 323, 248, 249, 250),
    "aarch64": (117, 270, 271, 272, 438, 97, 268, 40, 265, 280, 241, 282, 217, 218, 219),
}
# execve, execveat.
_PROGRAMS = {"x86_64": (59, 322), "aarch64": (221, 281)}


def is_supported() -> bool:
    """Whether the filter knows this machine's system calls."""
    return os.uname().machine in _ARCHITECTURES


def filter_calls(may_start_programs: bool) -> None:
    """Filters the system calls of this thread, and of all that it starts, for good. Needs PR_SET_NO_NEW_PRIVS.

    Args:
        may_start_programs: whether execve stays possible.

    Raises:
        OSError: the kernel has no such filters.
    """
    machine = os.uname().machine
    denied = [*_ALWAYS[machine], *_OTHERS[machine]]
    if not may_start_programs:
        denied += _PROGRAMS[machine]
    instructions = _program(_ARCHITECTURES[machine], denied)
    code = ctypes.create_string_buffer(b"".join(instructions))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    program = Program(len(instructions), ctypes.addressof(code))
    prctl(PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program))


def _program(architecture: int, denied: Sequence[int]) -> list[bytes]:
    """The filter: each comparison jumps over what is left of it to the failure, its last instruction."""
    tests = [(_JUMP_AT_LEAST, _X32), *((_JUMP_EQUAL, number) for number in denied)]
    count = len(tests)
    return [
        _instruction(_LOAD, _ARCHITECTURE_OFFSET),
        # Another architecture's calls have other numbers.
        _instruction(_JUMP_EQUAL, architecture, 0, count + 2),
        _instruction(_LOAD, _NUMBER_OFFSET),
        *(_instruction(kind, number, count - place, 0) for place, (kind, number) in enumerate(tests)),
        _instruction(_RETURN, _ALLOW),
        _instruction(_RETURN, _FAIL),
    ]


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
