"""Lanes: threads that take turns at reading, in a process of their own, for they end with it."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from modelhost_server.ipc.frames import HEADER, Kind, frame
from modelhost_server.runtime.reader import FrameReader

# Echoes the body of each frame, once it may: bodies "short…" count as short calls; those that end with "hang" wait for
# a frame "go"; "fail" raises.
_ECHO = """
import os, socket, sys, threading
from modelhost_server.ipc.frames import Kind, frame
from modelhost_server.runtime.lanes import Lanes
from modelhost_server.runtime.reader import FrameReader

sock, lock, go = socket.socket(fileno=int(sys.argv[1])), threading.Lock(), threading.Event()

def handle(kind, call, body):
    text = bytes(body).decode()
    if text.endswith("hang"):
        go.wait()
        go.clear()
    if text == "fail":
        raise RuntimeError("as asked")
    if text.endswith("go"):
        go.set()
    with lock:
        sock.sendall(b"".join(frame(Kind.DONE, call, b"%d" % threading.get_native_id())))

Lanes(FrameReader(sock), handle, lambda kind, body: bytes(body).startswith(b"short")).run(int(sys.argv[2]))
"""


class Echo:
    """The other end of lanes."""

    def __init__(self, count: int) -> None:
        self.sock, other = socket.socketpair()
        self.sock.settimeout(30)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _ECHO, str(other.fileno()), str(count)],
            pass_fds=[other.fileno()], stderr=subprocess.PIPE,
        )  # fmt: skip
        other.close()
        self._reader = FrameReader(self.sock)
        self._calls = 0

    def send(self, *texts: str) -> list[int]:
        """Sends all in one piece; the numbers of the calls."""
        data, calls = b"", []
        for text in texts:
            self._calls += 1
            calls.append(self._calls)
            data += b"".join(frame(Kind.PREDICT, self._calls, text.encode()))
        self.sock.sendall(data)
        return calls

    def receive(self) -> tuple[int, int]:
        """The next answer's call, and the thread it came from."""
        got = self._reader.read()
        assert got is not None
        return got[1], int(bytes(got[2]))


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo(2)
    with echo.process:
        yield echo
        echo.sock.close()
        echo.process.kill()


@pytest.mark.parametrize("text", ["short", "long"])
def test_every_call_is_answered_once(echo, text):
    calls = echo.send(*[text] * 500)
    assert sorted(echo.receive()[0] for _ in calls) == calls


def test_calls_of_both_kinds_may_come_in_any_order(echo):
    calls = echo.send(*["short", "long", "long", "short", "short"] * 200)
    assert sorted(echo.receive()[0] for _ in calls) == calls


def test_short_calls_are_run_one_after_the_other_by_the_lane_that_reads_them(echo):
    calls = echo.send(*["short"] * 50)
    assert [echo.receive()[0] for _ in calls] == calls


@pytest.mark.parametrize("before", [0, 1, 100])
def test_a_short_call_that_hangs_does_not_hold_up_those_behind_it(echo, before):
    calls = echo.send(*["short"] * before, "short hang", "short", "long", "long go")
    answered = [echo.receive()[0] for _ in range(before + 4)]
    assert sorted(answered) == calls
    hanging = calls[before]
    assert answered.index(hanging) > answered.index(calls[-3])
    # And all lanes are there again.
    more = echo.send(*["short", "long"] * 50)
    assert sorted(echo.receive()[0] for _ in more) == more


def test_a_call_that_hangs_does_not_hold_up_those_behind_it(echo):
    hanging, *others = echo.send("long hang", "short", "short", "short go")
    answered = [echo.receive()[0] for _ in range(4)]
    assert answered[:2] == others[:2]
    assert sorted(answered) == [hanging, *others]


def test_reading_is_taken_away_again_and_again(echo):
    for _ in range(20):
        hanging, short, go = echo.send("short hang", "short", "long go")
        answered = [echo.receive()[0] for _ in range(3)]
        assert sorted(answered) == [hanging, short, go]
        assert answered.index(short) < answered.index(hanging)


@pytest.mark.parametrize("under_way", [(), ("short hang",), ("long hang",), ("short hang", "short")])
def test_the_end_of_the_connection_is_the_end_of_the_process(echo, under_way):
    echo.send("short")
    echo.receive()
    if under_way:
        echo.send(*under_way)
    echo.sock.close()
    assert echo.process.wait(30) == 0


@pytest.mark.parametrize("size", [1, HEADER.size, HEADER.size + 3])
def test_an_end_in_the_middle_of_a_frame_is_the_end_too(echo, size):
    echo.sock.sendall(b"".join(frame(Kind.PREDICT, 1, b"short"))[:size])
    echo.sock.close()
    assert echo.process.wait(30) == 0


def test_a_failure_of_ours_ends_the_process_and_says_why(echo):
    echo.send("fail")
    assert echo.process.wait(30) == 70
    assert b"RuntimeError: as asked" in echo.process.stderr.read()
