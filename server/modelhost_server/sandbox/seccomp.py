"""A filter of system calls: what no model needs fails with EPERM, first of all to make a socket of any kind."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Sequence

from .kernel import PR_SET_SECCOMP, prctl

_MODE_FILTER = 2
# Of a BPF program: loads a word of `struct seccomp_data`, jumps, returns.
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET, _ARGUMENTS_OFFSET, _ARGUMENT_BYTES = 0, 4, 16, 8
# How the filter ends, in this order.
_ENDS = {"allow": 0x7FFF0000, "fail": 0x00050000 | errno.EPERM, "absent": 0x00050000 | errno.ENOSYS}
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
# prlimit64, setpriority, sched_setparam, sched_setscheduler, sched_setattr, each with the number of its argument that
# is a process: a limit of processor time would end the server. 0 is the caller itself.
_ONLY_OF_ITSELF = {
    "x86_64": ((302, 0), (141, 1), (142, 0), (144, 0), (314, 0)),
    "aarch64": ((261, 0), (140, 1), (118, 0), (119, 0), (274, 0)),
}
# clone, clone3; what they are asked for new namespaces by.
_CLONE = {"x86_64": (56, 435), "aarch64": (220, 435)}
_NAMESPACES = 0x7E020000
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
    instructions = _program(_ARCHITECTURES[machine], denied, _by_argument(machine))
    code = ctypes.create_string_buffer(b"".join(instructions))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    program = Program(len(instructions), ctypes.addressof(code))
    prctl(PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program))


# An instruction, and where it jumps to: one of `_ENDS`, or as many instructions further.
_Step = tuple[int, int, str | int, str | int]


def _program(architecture: int, denied: Sequence[int], by_argument: Sequence[_Step]) -> list[bytes]:
    steps: list[_Step] = [
        (_LOAD, _ARCHITECTURE_OFFSET, 0, 0),
        # Another architecture's calls have other numbers.
        (_JUMP_EQUAL, architecture, 0, "fail"),
        (_LOAD, _NUMBER_OFFSET, 0, 0),
        (_JUMP_AT_LEAST, _X32, "fail", 0),
        *((_JUMP_EQUAL, number, "fail", 0) for number in denied),
        *by_argument,
    ]
    places = {end: len(steps) + place for place, end in enumerate(_ENDS)}
    return [
        *(
            _instruction(code, value, *(places[to] - place - 1 if isinstance(to, str) else to for to in jumps))
            for place, (code, value, *jumps) in enumerate(steps)
        ),
        *(_instruction(_RETURN, result) for result in _ENDS.values()),
    ]


def _by_argument(machine: str) -> list[_Step]:
    """What decides by an argument, and not by the call alone."""
    clone, clone3 = _CLONE[machine]
    steps: list[_Step] = [
        # Its arguments cannot be seen; who is told that there is none uses the older one.
        (_JUMP_EQUAL, clone3, "absent", 0),
        (_JUMP_EQUAL, clone, 0, 2),
        (_LOAD, _ARGUMENTS_OFFSET, 0, 0),
        (_JUMP_ANY_BIT, _NAMESPACES, "fail", "allow"),
    ]
    for number, argument in _ONLY_OF_ITSELF[machine]:
        steps += [
            (_JUMP_EQUAL, number, 0, 2),
            (_LOAD, _ARGUMENTS_OFFSET + argument * _ARGUMENT_BYTES, 0, 0),
            (_JUMP_EQUAL, 0, "allow", "fail"),
        ]
    return steps


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
