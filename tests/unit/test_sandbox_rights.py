"""What is left to a process that has stepped down: tried by one that has."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from modelhost_server.sandbox.rights import Rights, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason="the kernel has no sandbox")

_STEPS = """
import ctypes, os, socket, subprocess, sys
NEW_USER = 0x10000000
def clone(flags):
    number = 56 if os.uname().machine == "x86_64" else 220
    pid = ctypes.CDLL(None, use_errno=True).syscall(number, flags | 17, 0, 0, 0, 0)
    if pid < 0:
        raise OSError(ctypes.get_errno(), "clone")
    if pid == 0:
        os._exit(0)
from modelhost_server.sandbox.rights import Rights, confine, step_down
rights = Rights.from_json(sys.argv[1])
step_down(rights, may_start_programs=len(sys.argv) > 3)
confine(rights)
try:
    exec(sys.argv[2])
    print("done")
except OSError as error:
    print(os.strerror(error.errno))
"""


def outcome(rights: Rights, attempt: str, *more: str) -> str:
    """What comes of an attempt, a line of Python."""
    command = [sys.executable, "-c", _STEPS, rights.to_json(), attempt, *more]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def rights(tmp_path: Path) -> Rights:
    for name in ("cache", "models", "outside"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"")
    return Rights(True, (str(tmp_path / "models"),), (str(tmp_path / "cache"),))


@pytest.mark.parametrize(
    "attempt",
    [
        "socket.create_connection(('127.0.0.1', {port}))",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
        "socket.socket(socket.AF_UNIX)",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "os.kill({parent}, 0)",
        "os.execv('/bin/true', ['true'])",
        "subprocess.run(['/bin/true'])",
        "open({directory!r} + '/outside/file')",
        "open({directory!r} + '/models/file', 'w')",
        "os.truncate({directory!r} + '/models/file', 0)",
        "os.rename({directory!r} + '/models/file', {directory!r} + '/cache/moved')",
        "os.unlink({directory!r} + '/outside/file')",
        "os.mkdir({directory!r} + '/outside/made')",
        "os.symlink('/', {directory!r} + '/outside/made')",
        "os.listdir({directory!r})",
        "open('/proc/{parent}/environ')",
        "__import__('resource').prlimit({parent}, 0, __import__('resource').prlimit({parent}, 0))",
        "os.symlink('/', {directory!r} + '/cache/made')",
        "os.mkfifo({directory!r} + '/cache/made-pipe')",
        "clone(NEW_USER)",
    ],
)
def test_what_no_model_needs_is_refused(rights: Rights, tmp_path: Path, port: int, attempt: str) -> None:
    line = attempt.format(port=port, parent=os.getpid(), directory=str(tmp_path))
    assert outcome(rights, line) in ("Operation not permitted", "Permission denied", "Invalid cross-device link")
    # And it is the sandbox that refuses it.
    if "execv" not in line:
        assert outcome(Rights(False), line) == "done"


@pytest.mark.parametrize(
    "attempt",
    [
        "open({directory!r} + '/models/file').read()",
        "os.rename({directory!r} + '/cache/file', {directory!r} + '/cache/moved')",
        "open({directory!r} + '/cache/made', 'w').write('x')",
        "os.mkdir({directory!r} + '/cache/directory')",
        "socket.socketpair()[0].close()",
        "__import__('threading').Thread(target=print).start()",
        "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))",
        "os.nice(1)",
    ],
)
def test_what_engines_need_is_left(rights: Rights, tmp_path: Path, attempt: str) -> None:
    assert outcome(rights, attempt.format(directory=str(tmp_path))).endswith("done")


def test_converters_may_start_programs_that_are_no_freer(rights: Rights, tmp_path: Path) -> None:
    assert outcome(rights, "subprocess.run(['/bin/true'], check=True)", "programs") == "done"
    copy = f"subprocess.run(['/bin/cp', '/bin/true', {str(tmp_path)!r} + '/outside/true'], check=False)"
    assert outcome(rights, copy, "programs") == "done"
    assert not (tmp_path / "outside" / "true").exists()


def test_files_are_read_anywhere_where_no_roots_are_given(rights: Rights, tmp_path: Path) -> None:
    anywhere = Rights(True, None, rights.writable)
    assert outcome(anywhere, f"open({str(tmp_path)!r} + '/outside/file')") == "done"
    assert outcome(anywhere, f"open({str(tmp_path)!r} + '/outside/file', 'w')") == "Permission denied"
    assert outcome(anywhere, f"open('/proc/{os.getpid()}/environ')") == "Permission denied"
