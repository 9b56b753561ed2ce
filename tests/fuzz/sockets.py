"""Raw bytes on the sockets: frames of HTTP/2 in any order and of any content, and HTTP/1.1 that is almost right."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from hpack import Encoder

from .calls import good_requests
from .damage import damaged
from .hosted import Hosted
from .tally import Tally

# How long a peer that has said all it has to say may be kept without an answer, or the end of the connection.
_SECONDS = 0.02
_CHECK_EVERY = 200
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _CONTINUATION = 0, 1, 4, 9


def _frame(kind: int, flags: int, stream: int, body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return struct.pack(">I", size)[1:] + struct.pack(">BBI", kind, flags, stream) + body


def _headers(noise: random.Random, path: str) -> bytes:
    named = [
        (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost"),
        ("content-type", "application/grpc"), ("te", "trailers"),
    ]  # fmt: skip
    for _ in range(noise.choice([0, 0, 1, 2])):
        odd = noise.choice(
            [
                ("grpc-timeout", noise.choice(["1S", "99999999H", "-1S", "1x", "", "0n"])), ("grpc-encoding", "gzip"),
                ("content-length", noise.choice(["0", "-1", "5"])), (":path", "/"), ("Upper", "x"), ("", ""),
                ("a" * 2000, "b"), ("x-bin", "!!!"), ("host", "\0\r\n"), ("connection", "close"), (":status", "200"),
            ]
        )  # fmt: skip
        named.insert(noise.randrange(len(named) + 1), odd)
    if noise.random() < 0.2:
        del named[noise.randrange(len(named))]
    return Encoder().encode(named, huffman=noise.random() < 0.5)


def _http2(noise: random.Random) -> bytes:
    if noise.random() < 0.05:
        return noise.randbytes(noise.randint(1, 300))
    path, message = noise.choice(sorted(good_requests().items()))
    headers = _headers(noise, path if noise.random() < 0.9 else "/nothing/at/all")
    grpc_message = struct.pack(">BI", noise.choice([0, 0, 0, 1, 7]), len(message)) + message
    frames = [
        _frame(_SETTINGS, 0, 0, b"" if noise.random() < 0.5 else noise.randbytes(6 * noise.randint(1, 3))),
        _frame(_HEADERS, noise.choice([4, 4, 4, 5, 0, 0x24, 0x0C]), 1, headers),
        _frame(_DATA, noise.choice([1, 1, 0, 9]), 1, grpc_message[: noise.choice([16000, 16000, 3, 40])]),
    ]
    for _ in range(noise.randrange(4)):
        body = noise.choice([b"", bytes(4), bytes(8), noise.randbytes(noise.randrange(40)), headers])
        odd = _frame(
            noise.randrange(13), noise.choice([0, 1, 4, 8, 0x20, 255]),
            noise.choice([0, 1, 1, 2, 3, 2**31 - 1, 2**32 - 1]), body,
            noise.choice([None, None, None, 0, 2**24 - 1, 16385]),
        )  # fmt: skip
        frames.insert(noise.randrange(len(frames) + 1), odd)
    if noise.random() < 0.05:
        frames = [*frames, *[_frame(_CONTINUATION, 0, 1, headers)] * 50]
    data = b"".join(frames)
    if noise.random() < 0.4:
        data = damaged(noise, data)
    return (_PREFACE if noise.random() < 0.97 else damaged(noise, _PREFACE)) + data


def _http1(noise: random.Random) -> bytes:
    body = b'{"instances": [1.0]}'
    lines = [
        noise.choice([b"POST", b"POST", b"GET", b"P\0ST", b"", b"A" * 5000])
        + b" "
        + noise.choice(
            [b"/v1/models/fuzz-a/half:predict", b"/v2/models/fuzz-a/half/infer", b"*", b"//", b"/%", b"\xff"]
        )
        + b" "
        + noise.choice([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9", b""]),
        b"Host: localhost",
        b"Content-Length: " + noise.choice([str(len(body)).encode()] * 3 + [b"-1", b"x", b"5", b"999", b"1" * 30]),
    ]
    odd = [
        b"Transfer-Encoding: chunked", b"Connection: upgrade\r\nUpgrade: h2c", b"Expect: 100-continue",
        b"Content-Encoding: gzip", b"X: " + b"y" * 9000, b": x", b"no colon", b" folded", b"A\0: b",
        b"Content-Length: 3", b"Inference-Header-Content-Length: 5", b"Range: bytes=0-",
    ]  # fmt: skip
    lines += noise.choices(odd, k=noise.randrange(3))
    if b"Transfer-Encoding: chunked" in lines and noise.random() < 0.8:
        size = noise.choice([b"14", b"14", b"-1", b"ffffffffffffffff", b"zz", b"0", b""])
        body = size + b"\r\n" + body + b"\r\n" + noise.choice([b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b""])
    data = noise.choice([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"]).join(lines) + b"\r\n\r\n" + body
    return damaged(noise, data) if noise.random() < 0.5 else data * noise.choice([1, 1, 2])


def _said(address: str, data: bytes) -> bytes:
    """What the server answers to bytes after which nothing comes."""
    host, _, port = address.removeprefix("http://").rpartition(":")
    answer = b""
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.settimeout(_SECONDS)
        try:
            connection.sendall(data)
            while piece := connection.recv(1 << 16):
                answer += piece
        except (TimeoutError, ConnectionError):
            pass
    return answer


def _fuzz(
    tally: Tally, hosted: Hosted, address: str, make: Callable[[random.Random], bytes], seed: int, cases: int
) -> None:
    with tally.timed():
        for number in range(cases):
            data = make(random.Random(f"{seed}/{tally.target}/{number}"))
            try:
                answer = _said(address, data)
            except OSError as error:
                tally.fail(f"{data[:300].hex()}: {error!r}")
                answer = b""
            tally.cases += 1
            tally.answers["answered" if answer else "no answer"] += 1
            if b" 500 " in answer[:20]:
                tally.fail(f"{data[:600]!r}: {answer[:300]!r}")
            if tally.cases % _CHECK_EVERY == 0 and not hosted.check(tally, tally.target):
                return
        hosted.check(tally, tally.target)


def fuzz_sockets(
    models: Path, seed: int, cases: int, transports: tuple[str, ...] = ("grpcio", "h2corn")
) -> list[Tally]:
    """So many connections."""
    tallies = []
    for transport in transports:
        hosted = Hosted(models, "--transport", transport, "--rest", "127.0.0.1:0")
        try:
            places = [(f"HTTP/2 frames, {transport}", hosted.server.address, _http2)]
            if transport == transports[0]:
                places.append(("HTTP/1.1, REST", hosted.server.addresses[-1], _http1))
            for target, address, make in places:
                tally = Tally(target)
                tallies.append(tally)
                _fuzz(tally, hosted, address, make, seed, cases // (len(transports) + 1))
        finally:
            hosted.close()
    return tallies
