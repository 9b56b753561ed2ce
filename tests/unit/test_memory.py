"""The bound on what a process may use, on a real process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from modelhost_server.memory import bound, unbound

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
reserved = mmap.mmap(-1, 512 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
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


def test_a_process_finds_no_more_than_its_bound(process: Process) -> None:
    assert process.may("try", 400)
    bound(process.pid, 200 * MB, 0)
    assert process.may("keep", 100)
    assert not process.may("keep", 100)
    assert process.may("keep", 50)
    unbound(process.pid)
    assert process.may("keep", 200)


def test_what_a_process_has_is_not_too_much(process: Process) -> None:
    assert process.may("keep", 100)
    bound(process.pid, 10 * MB, 20 * MB)
    assert process.may("keep", 10)
    assert not process.may("keep", 20)
    assert process.may("keep", 5)


def test_bounds_may_be_as_large_as_numbers_are(process: Process) -> None:
    bound(process.pid, 1 << 63, 1 << 40)
    assert process.may("keep", 100)


def test_a_process_that_has_ended_cannot_be_bounded(process: Process) -> None:
    process.end()
    process.wait()
    with pytest.raises(ProcessLookupError):
        bound(process.pid, MB, 0)
    with pytest.raises(ProcessLookupError):
        unbound(process.pid)
