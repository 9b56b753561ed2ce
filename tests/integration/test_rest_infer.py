"""The Open Inference Protocol's REST API of the real server, as somebody with curl uses it. Triton's own client is at
work in tests/conformance.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator

import httpx
import modelhost
import pytest
from support.building import built
from support.server import ServerProcess


@pytest.fixture(scope="module")
def rest() -> Iterator[httpx.Client]:
    """A client of a server that has models."""
    models = built("build_foreign")
    with ServerProcess("--rest", "127.0.0.1:0", "--server-name", "triton") as process:
        with modelhost.Client(process.address) as client:
            client.load("half", models / "half_plus_two" / "1")
            client.load("identity_string", models / "identity_string")
            client.create_scope("team")
            client.load("team/half", models / "half_plus_two" / "1", version=4)
        with httpx.Client(base_url=process.addresses[-1]) as http:
            yield http
        assert "Traceback" not in process.log()


X = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2.5]}


@pytest.mark.parametrize("path", ["half", "half/versions/1", "default/half", "team/half/versions/4"])
def test_infer(rest, path):
    response = rest.post(f"/v2/models/{path}/infer", json={"id": "7", "inputs": [X]})
    assert response.status_code == 200, response.text
    document = response.json()
    assert document["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [2], "data": [2.5, 3.25]}]
    assert (document["id"], document["model_name"]) == ("7", path.partition("/versions")[0])


def test_bytes_behind_json(rest):
    header = json.dumps(
        {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    body = header + struct.pack("<2f", 1, 2.5)
    headers = {"Inference-Header-Content-Length": str(len(header))}
    response = rest.post("/v2/models/half/infer", content=body, headers=headers)
    assert response.headers["content-type"] == "application/octet-stream"
    length = int(response.headers["inference-header-content-length"])
    (output,) = json.loads(response.content[:length])["outputs"]
    assert output == {"name": "y", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}
    assert struct.unpack("<2f", response.content[length:]) == (2.5, 3.25)


def test_the_server_and_its_models_are_told_of(rest):
    assert rest.get("/v2").json()["name"] == "triton"
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/half/ready", "/v2/models/team/half/ready"):
        assert (rest.get(path).status_code, rest.get(path).content) == (200, b"")
    assert rest.get("/v2/models/half/versions/1").json()["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1]}]
    assert rest.get("/v2/models/half/config").json()["name"] == "half"
    assert rest.get("/v2/models/half/stats").json()["model_stats"][0]["version"] == "1"
    assert rest.get("/v2/trace/setting").json() == rest.post("/v2/trace/setting", json={}).json()
    assert rest.get("/v2/models/half/trace/setting").json()["trace_level"] == ["OFF"]
    assert rest.get("/v2/logging").json() == rest.post("/v2/logging", json={"log_verbose_level": 0}).json()


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("nobody/infer", {"inputs": [X]}, 404, "Request for unknown model: 'nobody' is not found"),
        ("half/versions/9/infer", {"inputs": [X]}, 404, "Request for unknown model: 'half' version 9 is not found"),
        (
            "half/infer",
            {"inputs": [{**X, "datatype": "INT32", "data": [1, 2]}]},
            400,
            "data-type is 'INT32', but model",
        ),
        ("half/infer", {"inputs": [{**X, "shape": [1, 2]}]}, 400, "unexpected shape for input 'x' for model 'half'"),
        ("half/infer", {"inputs": [X, X]}, 400, "input 'x' already exists in request"),
        ("half/infer", {"inputs": [X], "outputs": [{"name": "z"}]}, 400, "unexpected inference output 'z'"),
        ("half/infer", {"inputs": [X], "parameters": {"sequence_id": 3}}, 400, "'sequence_id' must not be specified"),
        ("half/infer", {"inputs": [X], "parameters": {"triton_x": 3}}, 400, "reserved for Triton usage"),
        ("half/infer", b"nonsense", 400, "failed to parse the request JSON buffer"),
        ("half/infer", b"", 400, "failed to parse the request JSON buffer"),
    ],
)
def test_refusals(rest, path, body, status, message):
    content = body if isinstance(body, bytes) else json.dumps(body)
    response = rest.post(f"/v2/models/{path}", content=content)
    assert (response.status_code, message in response.json()["error"]) == (status, True), response.text
    assert rest.get("/v2/health/ready").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("GET", "/v2/models/nobody", None, 404, "Request for unknown model: 'nobody' is not found"),
        ("GET", "/v2/models/nobody/ready", None, 400, "Model version not ready"),
        ("GET", "/v2/models/half/versions/-1", None, 400, "version should be an integral value > 0"),
        ("GET", "/v2/models/half/infer", None, 405, "Malformed request: GET /v2/models/half/infer"),
        ("POST", "/v2/health/live", {}, 405, "Malformed request: POST /v2/health/live"),
        ("GET", "/v2/", None, 404, "Malformed request: GET /v2/"),
        ("GET", "/v2/nothing", None, 404, "Malformed request: GET /v2/nothing"),
        ("GET", "/v2/systemsharedmemory/region/r/status", None, 404, "r"),
        ("POST", "/v2/systemsharedmemory/region/r/register", {}, 400, "non-string as string"),
        ("POST", "/v2/systemsharedmemory/region/r/register", {"key": "/k"}, 400, "Unable to parse 'byte_size'"),
        ("POST", "/v2/systemsharedmemory/region/r/register", {"key": "/no-such", "byte_size": 4}, 500, "no-such"),
        ("POST", "/v2/cudasharedmemory/region/r/register", {"byte_size": 4}, 400, "CUDA shared memory"),
        ("GET", "/v2/cudasharedmemory/region/r/status", None, 404, "cuda shared memory"),
        ("POST", "/v2/trace/setting", {"trace_level": ["TENSORS"]}, 501, "does not trace"),
        ("POST", "/v2/trace/setting", {"trace_level": 1}, 400, "non-string as string"),
        ("POST", "/v2/logging", {"log_info": "yes"}, 400, "expect boolean for 'log_info'"),
        ("POST", "/v2/logging", [], 400, "expected a JSON object"),
    ],
)
def test_refusals_of_questions(rest, method, path, body, status, message):
    response = rest.request(method, path, json=body)
    assert (response.status_code, message in response.json()["error"]) == (status, True), response.text
