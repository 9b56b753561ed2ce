"""FrameReader: the same frames come out however the socket cuts them, and an end is an end."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelhost_server.ipc.frames import HEADER, Kind, frame
from modelhost_server.runtime.reader import FrameReader

BUFFER_BYTES = 256 << 10

Frame = tuple[int, int, bytes]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    sender, receiver = socket.socketpair()
    receiver.settimeout(10)
    yield sender, receiver
    sender.close()
    receiver.close()


def packed(frames: list[Frame]) -> bytes:
    return b"".join(b"".join(frame(Kind(kind), call, body)) for kind, call, body in frames)


def send_in_pieces(sock: socket.socket, data: bytes, cuts: list[int]) -> threading.Thread:
    """Sends in the background, since a socket holds less than a large frame; closes at the end."""

    def run() -> None:
        with sock:
            for start, end in pairwise([0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]):
                sock.sendall(data[start:end])

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def read_all(receiver: socket.socket) -> list[Frame]:
    reader, got = FrameReader(receiver), []
    while (one := reader.read()) is not None:
        kind, call, body = one
        got.append((kind, call, bytes(body)))
    return got


sizes = st.sampled_from([0, 0, 1, 7, 13, 100, 5000, 70_000, BUFFER_BYTES - 13, BUFFER_BYTES, BUFFER_BYTES + 1, 700_000])
plans = st.lists(st.tuples(st.sampled_from(Kind), st.integers(0, 2**64 - 1), sizes), max_size=12)


@settings(max_examples=60, deadline=None)
@given(plans, st.integers(0, 99), st.lists(st.integers(0, 2**22), max_size=20))
def test_frames_arrive_whole_and_in_order_wherever_they_are_cut(
    planned: list[tuple[Kind, int, int]], seed: int, cuts: list[int]
) -> None:
    noise = random.Random(seed)
    frames = [(kind, call, noise.randbytes(size)) for kind, call, size in planned]
    sender, receiver = socket.socketpair()
    with receiver:
        receiver.settimeout(10)
        thread = send_in_pieces(sender, packed(frames), cuts)
        assert read_all(receiver) == frames
        thread.join()


def test_a_header_may_arrive_byte_by_byte(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = pair
    frames = [(16, i, b"body" * i) for i in range(5)]
    data = packed(frames)
    send_in_pieces(sender, data, list(range(len(data)))).join()
    assert read_all(receiver) == frames


@pytest.mark.parametrize("size", range(BUFFER_BYTES - 30, BUFFER_BYTES + 2))
def test_a_header_across_the_end_of_the_buffer_is_read(pair: tuple[socket.socket, socket.socket], size: int) -> None:
    sender, receiver = pair
    # Many small frames fill the buffer at once, so that the last header of it is cut wherever `size` says.
    small = [(16, i, b"x" * 100) for i in range((size - 13) // 113)]
    rest = size - len(packed(small)) - HEADER.size
    frames = [*small, (17, 1, b"y" * max(0, rest)), (18, 2, b"last"), (19, 3, b"")]
    thread = send_in_pieces(sender, packed(frames), [])
    assert read_all(receiver) == frames
    thread.join()


def test_a_body_can_be_kept_while_more_is_read(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = pair
    sender.sendall(packed([(16, 1, b"first"), (16, 2, b"second")]))
    reader = FrameReader(receiver)
    first = reader.read()
    second = reader.read()
    assert first is not None
    assert second is not None
    assert (bytes(first[2]), bytes(second[2])) == (b"first", b"second")


@pytest.mark.parametrize("end", [0, 1, HEADER.size - 1, HEADER.size, HEADER.size + 1, HEADER.size + 299_999])
def test_an_end_in_the_middle_of_a_frame_is_the_end(pair: tuple[socket.socket, socket.socket], end: int) -> None:
    sender, receiver = pair
    data = packed([(16, 1, b"whole"), (16, 2, bytes(300_000))])
    thread = send_in_pieces(sender, data[: HEADER.size + 5 + end], [])
    assert read_all(receiver) == [(16, 1, b"whole")]
    thread.join()


def test_a_server_that_went_away_with_answers_unread_has_gone(pair: tuple[socket.socket, socket.socket]) -> None:
    server, worker = pair
    worker.sendall(b"an answer that nobody reads")
    server.close()
    assert FrameReader(worker).read() is None
