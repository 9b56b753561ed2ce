"""What a process uses, and its bound, on a real process."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from modelhost_server.memory import bound, used_by

MB = 1 << 20
# Told a verb and megabytes in a line, it answers whether it could have as many, and keeps them if told to.
PROGRAM = """
import mmap, sys
kept = []
def take(size, used):
    try:
        memory = mmap.mmap(-1, size << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        return "no"
    if used:
        for page in range(0, size << 20, 4096):
            memory[page] = 1
        kept.append(memory)
    return "yes"
print("ready", flush=True)
for line in sys.stdin:
    verb, size = line.split()
    print(take(int(size), verb == "keep"), flush=True)
"""


class Process:
    """A process that takes memory."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        assert self._read() == "ready"

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def may(self, verb: str, megabytes: int) -> bool:
        """Whether it can keep or try so much."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{verb} {megabytes}\n")
        self._process.stdin.flush()
        return self._read() == "yes"

    def end(self) -> None:
        """Ends it; it is not waited for."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def wait(self) -> None:
        """Until it has gone."""
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def process() -> Iterator[Process]:
    process = Process()
    yield process
    process.end()
    process.wait()


def mapped(process: Process) -> int:
    """What it has mapped for data, in bytes."""
    (line,) = [line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "VmData" in line]
    return int(line.split()[1]) * 1024


def test_a_process_finds_no_more_than_its_bound(process: Process) -> None:
    assert process.may("try", 400)
    bound(process.pid, mapped(process) + 200 * MB)
    assert process.may("keep", 150)
    assert not process.may("keep", 100)
    assert process.may("keep", 40)
    bound(process.pid, None)
    assert process.may("keep", 100)


def test_a_bound_that_was_there_before_stays(process: Process) -> None:
    most = mapped(process) + 100 * MB
    resource.prlimit(process.pid, resource.RLIMIT_DATA, (most, most))
    bound(process.pid, most + 400 * MB)
    assert not process.may("keep", 200)
    bound(process.pid, most - 50 * MB)
    assert not process.may("keep", 80)
    assert process.may("keep", 20)


def test_bounds_may_be_as_large_as_numbers_are(process: Process) -> None:
    bound(process.pid, 1 << 65)
    assert process.may("keep", 100)


@pytest.mark.parametrize("name", [b"x kB", b"\xff\xfe", b"RssAnon:\t1"])
def test_a_process_may_have_any_name(name: bytes) -> None:
    program = f"import ctypes; ctypes.CDLL(None).prctl(15, {name!r}); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert used_by(process.pid).anonymous > MB
        process.communicate("\n")


def test_what_a_process_uses_is_told(process: Process) -> None:
    before = used_by(process.pid)
    assert before.threads == 1
    process.may("keep", 64)
    assert 64 * MB <= used_by(process.pid).anonymous - before.anonymous < 72 * MB


def test_a_process_that_has_ended_is_not_there(process: Process) -> None:
    process.end()
    process.wait()
    for action in (lambda: bound(process.pid, MB), lambda: bound(process.pid, None), lambda: used_by(process.pid)):
        with pytest.raises(ProcessLookupError):
            action()
