"""The REST door as a part of the server: where it listens, who gets in, who leaves, and how it ends."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import modelhost
import pytest
from support.calls import eventually, scope_of
from support.queued import gate, narrow_scope
from support.server import ServerProcess, Stubs

TLS = Path(__file__).parent.parent / "support" / "tls"
REST = ("--rest", "127.0.0.1:0")
SECURED = ("--tls-certificate", str(TLS / "server.pem"), "--tls-key", str(TLS / "server.key"))


def half(address: str, models: Path) -> None:
    """Loads a model."""
    with modelhost.Client(address) as client:
        client.load("half", models / "half_plus_two")


def test_without_it_nothing_of_it_is_there():
    code = "import sys, modelhost_server.app; print({'starlette', 'uvicorn', 'orjson'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_unix_socket(tmp_path, models):
    path = tmp_path / "rest"
    # TLS is for what others can reach.
    with ServerProcess("--rest", f"unix:{path}", *SECURED, listen=(f"unix:{tmp_path / 'grpc'}",)) as process:
        assert process.addresses[-1] == f"http://unix:{path}"
        half(process.address, models)
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://server") as client:
            response = client.post("/v1/models/half:predict", json={"instances": [2.0]})
            assert response.json() == {"predictions": [3.0]}
    assert not path.exists()


def test_tls():
    context = ssl.create_default_context(cafile=str(TLS / "ca.pem"))
    options = (*REST, *SECURED, "--tls-client-ca", str(TLS / "ca.pem"))
    with ServerProcess(*options) as process:
        url = process.addresses[-1]
        assert url.startswith("https://127.0.0.1:")
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{url}/v2/health/live", verify=context)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http{url[5:]}/v2/health/live")
        context.load_cert_chain(TLS / "client.pem", TLS / "client.key")
        assert httpx.get(f"{url}/v2/health/live", verify=context).status_code == 200


def test_an_address_that_is_taken_ends_the_start():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(AssertionError, match=f"cannot listen on {address}: "):
            ServerProcess("--rest", address)


def test_beside_several_processes(models):
    with ServerProcess(*REST, "--server-processes", "2", "--transport", "h2corn") as process:
        half(process.address, models)
        answer = httpx.post(f"{process.addresses[-1]}/v1/models/half:predict", json={"instances": [2.0]})
        assert answer.json() == {"predictions": [3.0]}


def test_who_leaves_takes_the_prediction_along(tmp_path, models):
    with ServerProcess(*REST) as process:
        stubs, url = Stubs(process.address), process.addresses[-1]
        with narrow_scope(stubs) as scope:
            with modelhost.Client(process.address) as client:
                client.load(f"{scope}/half", models / "half_plus_two")

            def waiting(count: int) -> bool:
                return scope_of(stubs, scope).statistics.queued == count

            host, port = url.removeprefix("http://").split(":")
            body = b'{"instances": [2.0]}'
            with gate(stubs, scope, tmp_path):
                for path in ("v1/models/{}/half:predict", "v2/models/{}/half/infer"):
                    if path.startswith("v2"):
                        body = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [2]}]}'
                    head = f"POST /{path.format(scope)} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n"
                    with socket.create_connection((host, int(port))) as caller:
                        caller.sendall(head.encode() + body)
                        eventually(lambda: waiting(1))
                    eventually(lambda: waiting(0))
            answer = httpx.post(f"{url}/v1/models/{scope}/half:predict", json={"instances": [2.0]})
            assert answer.json() == {"predictions": [3.0]}
        stubs.close()
        assert "Traceback" not in process.log()


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET /" + b"a" * 200_000,
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
        b"\x16\x03\x01",
        # A body that is none, of a request that is answered without it.
        b"POST /nowhere HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http_hurts_nobody(rest_server, sent):
    host, port = rest_server.addresses[-1].removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as caller:
        caller.settimeout(10)
        answer = b""
        # Who has heard enough may close before all is sent.
        with suppress(OSError):
            caller.sendall(sent)
            caller.shutdown(socket.SHUT_WR)
            answer = caller.recv(1000)
    assert not answer or answer.startswith(b"HTTP/1.1 4")
    assert httpx.get(f"{rest_server.addresses[-1]}/v2/health/live").status_code == 200


@pytest.fixture(scope="module")
def rest_server():
    """A server without models."""
    with ServerProcess(*REST) as process:
        yield process
        assert "Traceback" not in process.log()


def test_a_drain_answers_what_is_under_way_and_refuses_the_rest(tmp_path, models):
    with ServerProcess(*REST) as process:
        stubs, url = Stubs(process.address), process.addresses[-1]
        with modelhost.Client(process.address) as client:
            client.load("slow", models / "slow")
            client.load("half", models / "half_plus_two")
        answers = []
        request = threading.Thread(
            target=lambda: answers.append(
                httpx.post(f"{url}/v1/models/slow:predict", json={"inputs": 30_000}, timeout=60)
            )
        )
        with httpx.Client(base_url=url) as other:
            other.get("/v2/health/ready")
            request.start()
            eventually(lambda: scope_of(stubs, "default").statistics.in_flight == 1)
            process.process.send_signal(signal.SIGTERM)
            refused = eventually(lambda: (found := other.get("/v2/health/ready")).status_code != 200 and found)
            assert refused.status_code == 400
            v1 = other.post("/v1/models/half:predict", json={"instances": [1.0]})
            assert v1.status_code == 503
            v2 = other.post(
                "/v2/models/half/infer", json={"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}
            )
            assert v2.status_code == 503
        request.join()
        assert answers[0].json() == {"outputs": 30_000}
        stubs.close()
        assert process.process.wait(30) == 0


def test_a_drain_answers_who_does_not_come_to_an_end():
    with ServerProcess(*REST, "--drain-seconds", "1") as process:
        host, port = process.addresses[-1].removeprefix("http://").split(":")
        head = b"POST /v1/models/half:predict HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
        with socket.create_connection((host, int(port))) as caller:
            caller.sendall(head)
            assert caller.recv(1000).startswith(b"HTTP/1.1 100 ")
            caller.sendall(b"{")
            assert process.stop() == 0
            answer = caller.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert answer.endswith(b'{"error":"the server has stopped"}')
        assert "Traceback" not in process.log()


def test_a_drain_does_not_wait_for_connections_that_are_only_kept():
    with ServerProcess(*REST) as process, httpx.Client(base_url=process.addresses[-1]) as client:
        assert client.get("/v2/health/live").status_code == 200
        started = time.monotonic()
        assert process.stop() == 0
        # Not the 30 s that calls under way would have had.
        assert time.monotonic() - started < 20
