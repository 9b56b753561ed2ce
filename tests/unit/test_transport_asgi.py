"""gRPC as an ASGI application: what a server may hand over in any pieces, and what clients of all kinds may send."""

import asyncio
import base64
import itertools
import urllib.parse

import pytest
from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.transport.asgi import GrpcApplication
from modelhost_server.transport.base import TransportOptions
from modelhost_server.transport.routes import Route
from modelhost_server.transport.wire import timeout_seconds

LIMIT = 1000


async def echo(request, call):
    if request == b"fail":
        raise ModelhostError(Reason.MODEL_NOT_FOUND, "100 % of Bücher\nare gone: ", model="b")
    if request == b"hang":
        await asyncio.sleep(60)
    return request


async def echoes(requests, call):
    async for request in requests:
        yield await echo(request, call)


async def total(requests, call):
    return b"%d" % sum([len(request) async for request in requests])


ROUTES = [
    Route("/Echo", False, False, echo, bytes, bytes),
    Route("/Echoes", True, True, echoes, bytes, bytes),
    Route("/Total", True, False, total, bytes, bytes),
]


def frame(message: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


def call(path, pieces, headers=(), application=None):
    """The messages and the trailers (or headers, where they are both) that a call is answered with."""
    events = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    events.append({"type": "http.request"})
    sent = []

    async def receive():
        return events.pop(0) if events else await asyncio.sleep(60)

    async def send(event):
        sent.append(event)

    scope = {
        "path": path,
        "headers": [(b"content-type", b"application/grpc+proto"), *headers],
        "extensions": {"http.response.trailers": {}},
        "client": ("::1", 5),
    }
    application = application or GrpcApplication(ROUTES, TransportOptions(LIMIT, LIMIT))
    asyncio.run(application(scope, receive, send))
    body = b"".join(event.get("body", b"") for event in sent if event["type"] == "http.response.body")
    messages = []
    while body:
        end = 5 + int.from_bytes(body[1:5], "big")
        messages.append(body[5:end])
        body = body[end:]
    return messages, dict(sent[-1].get("headers") or sent[0]["headers"])


def pieces_of(body: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    return [body[a:b] for a, b in itertools.pairwise(places)]


@given(st.lists(st.binary(max_size=40), max_size=6), st.lists(st.integers(0, 300), max_size=12))
def test_messages_may_be_cut_anywhere(messages, cuts):
    pieces = pieces_of(b"".join(map(frame, messages)), cuts)
    assert call("/Echoes", pieces) == (messages, {b"grpc-status": b"0"})
    assert call("/Total", pieces)[0] == [b"%d" % sum(map(len, messages))]


@pytest.mark.parametrize(
    ("path", "pieces", "headers", "status", "said"),
    [
        ("/Nothing", [frame(b"")], (), 12, "Method not found!"),
        ("/Echo", [], (), 3, "expected a request message; got none"),
        ("/Echo", [frame(b"abc")[:4]], (), 3, "got the beginning of one"),
        ("/Echo", [frame(b"abc")[:6]], (), 3, "got the beginning of one"),
        ("/Echo", [frame(b"abc", flag=1)], [(b"grpc-encoding", b"gzip")], 12, "compressed messages are not supported"),
        ("/Echo", [frame(b"a" * 1001)], (), 8, "SERVER: Received message larger than max (1001 vs. 1000)"),
        ("/Echo", [frame(b"a" * 1001)[:5]], (), 8, "SERVER: Received message larger than max (1001 vs. 1000)"),
        ("/Echo", [frame(b"hang")], [(b"grpc-timeout", b"20m")], 4, "Deadline Exceeded"),
        ("/Echoes", [frame(b"hang")], [(b"grpc-timeout", b"20000u")], 4, "Deadline Exceeded"),
        ("/Echo", [frame(b"a")], [(b"grpc-timeout", b"soon")], 3, "grpc-timeout: expected"),
    ],
)
def test_calls_that_are_refused(path, pieces, headers, status, said):
    messages, trailers = call(path, pieces, headers)
    assert messages == []
    assert trailers[b"grpc-status"] == b"%d" % status
    assert said in urllib.parse.unquote(trailers[b"grpc-message"].decode())
    assert (trailers.get(b"grpc-accept-encoding") == b"identity") == (status == 12)


@pytest.mark.parametrize("path", ["/Echo", "/Echoes"])
def test_errors_are_told_with_their_details(path):
    messages, trailers = call(path, [frame(b"good")] * (path == "/Echoes") + [frame(b"fail")])
    assert messages == [b"good"] * (path == "/Echoes")
    assert trailers[b"grpc-status"] == b"5"
    assert trailers[b"grpc-message"] == b"100 %25 of B%C3%BCcher%0Aare gone:%20"
    details = trailers[b"grpc-status-details-bin"]
    status = status_pb2.Status.FromString(base64.b64decode(details + b"=" * (-len(details) % 4)))
    assert status.message == "100 % of Bücher\nare gone: "
    assert len(status.details) == 1


def test_a_response_over_the_limit_is_refused():
    application = GrpcApplication(ROUTES, TransportOptions(LIMIT, 10))
    messages, trailers = call("/Echo", [frame(b"a" * 11)], application=application)
    assert (messages, trailers[b"grpc-status"]) == ([], b"8")


def test_what_is_not_grpc_is_told_so():
    assert call("/Echo", [], [(b"content-type", b"text/html")])[1] == {b"content-type": b"text/plain"}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"1H", 3600), (b"2M", 120), (b"3S", 3), (b"4m", 0.004), (b"5u", 5e-6), (b"6n", 6e-9), (b"99999999S", 99999999)],
)
def test_timeouts(value, seconds):
    assert timeout_seconds(value) == pytest.approx(seconds)
