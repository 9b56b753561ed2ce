"""TensorFlow Serving's REST API of the real server: every route, every format, and what is said of mistakes."""

from __future__ import annotations

import gzip
import json
import socket
import zlib
from collections.abc import Iterator

import httpx
import modelhost
import pytest
from support.building import built
from support.server import ServerProcess

MAX_BYTES = 1 << 20


@pytest.fixture(scope="module")
def rest() -> Iterator[httpx.Client]:
    """A client of a server that has models."""
    models = built("build_foreign")
    with ServerProcess("--rest", "127.0.0.1:0", "--max-receive-bytes", str(MAX_BYTES)) as process:
        with modelhost.Client(process.address) as client:
            client.load("half_plus_two", models / "half_plus_two" / "1", labels=["stable"])
            client.load("half_plus_two", models / "half_plus_three" / "3", version=3, keep_older=True)
            for name in (
                "simple",
                "simple_string",
                "examples",
                "identity_string",
                "identity_float16",
                "identity_uint16",
            ):
                client.load(name, models / name)
            client.create_scope("team")
            client.load("team/half", models / "half_plus_two" / "1")
        with httpx.Client(base_url=process.addresses[-1]) as http:
            yield http
        assert "Traceback" not in process.log()


def post(rest, path, document, status=200, **options):
    content = document if isinstance(document, bytes) else json.dumps(document)
    response = rest.post(f"/v1/models/{path}", content=content, **options)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json() if status == 200 else response.json()["error"]


@pytest.mark.parametrize(
    ("path", "y"),
    [
        ("half_plus_two", 3.5),
        ("half_plus_two/versions/1", 2.5),
        ("half_plus_two/labels/stable", 2.5),
        ("default/half_plus_two", 3.5),
        ("default%2Fhalf_plus_two/versions/3", 3.5),
        ("team/half", 2.5),
        ("team/half/versions/1", 2.5),
    ],
)
def test_models_and_versions(rest, path, y):
    assert post(rest, f"{path}:predict", {"instances": [1.0]}) == {"predictions": [y]}


def test_rows_and_columns(rest):
    ones, twos = [1] * 16, [2] * 16
    rows = {"instances": [{"INPUT0": ones, "INPUT1": twos}, {"INPUT0": twos, "INPUT1": twos}]}
    assert post(rest, "simple:predict", rows) == {
        "predictions": [{"OUTPUT0": [3] * 16, "OUTPUT1": [-1] * 16}, {"OUTPUT0": [4] * 16, "OUTPUT1": [0] * 16}]
    }
    columns = {"inputs": {"INPUT0": [ones], "INPUT1": [twos]}, "signature_name": "serving_default"}
    assert post(rest, "simple:predict", columns) == {"outputs": {"OUTPUT0": [[3] * 16], "OUTPUT1": [[-1] * 16]}}


def test_strings_and_bytes(rest):
    answer = post(rest, "identity_string:predict", {"instances": ["ü", {"b64": "/w=="}]})
    assert answer == {"predictions": ["ü", {"b64": "/w=="}]}
    assert post(rest, "identity_string:predict", {"inputs": "one"}) == {"outputs": "one"}


@pytest.mark.parametrize("model", ["identity_float16", "identity_uint16"])
def test_types_that_tensorflow_serving_has_no_json_for(rest, model):
    assert post(rest, f"{model}:predict", {"inputs": [[1, 2]]}) == {"outputs": [[1, 2]]}


def test_what_is_no_number_is_spelt_as_in_tensorflow_serving(rest):
    response = rest.post("/v1/models/half_plus_two:predict", content=b'{"instances": [NaN, Infinity, -Infinity]}')
    assert response.text == '{"predictions":[NaN,Infinity,-Infinity]}'


def test_classify_and_regress(rest):
    examples = {"signature_name": "classify_x_to_y", "examples": [{"x": [1.0]}, {"x": 2.0}]}
    answer = post(rest, "examples:classify", examples)["results"]
    assert [[label for label, _ in each] for each in answer] == [["yes", "no"]] * 2
    assert answer[0][0][1] == pytest.approx(0.9241418)
    regress = {"signature_name": "regress_x_to_y2", "examples": [{"x": 1.0}], "context": {"x2": 3.0}}
    assert post(rest, "examples:regress", regress) == {"results": [5.5]}
    many = {"signature_name": "regress_x_to_y", "examples": [{"x": float(number)} for number in range(10_000)]}
    assert post(rest, "examples:regress", many) == {"results": [number / 2 + 2 for number in range(10_000)]}
    many["examples"].append({"x": [[]]})
    assert "unexpected JSON type: Array" in post(rest, "examples:regress", many, 400)


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_bodies(rest, encoding, compress):
    headers = {"Content-Encoding": encoding}
    body = compress(b'{"instances": [1.0]}')
    assert post(rest, "half_plus_two:predict", body, headers=headers) == {"predictions": [3.5]}
    assert "its end is missing" in post(rest, "half_plus_two:predict", body[:-3], 400, headers=headers)
    assert f"the body is not {encoding}" in post(rest, "half_plus_two:predict", b"x", 400, headers=headers)
    assert "4 bytes follow its end" in post(rest, "half_plus_two:predict", body + b"more", 400, headers=headers)
    bomb = compress(b" " * (MAX_BYTES + 1))
    assert "larger than" in post(rest, "half_plus_two:predict", bomb, 413, headers=headers)
    refusal = post(rest, "half_plus_two:predict", b"", 415, headers={"Content-Encoding": "br"})
    assert refusal == "Unsupported compression type"


def test_bodies_have_a_limit(rest):
    message = f"the request is larger than {MAX_BYTES} bytes"
    assert post(rest, "half_plus_two:predict", b" " * (MAX_BYTES + 1), 413) == message

    def pieces():
        for _ in range(40):
            yield b" " * 32_768

    response = rest.post("/v1/models/half_plus_two:predict", content=pieces())
    assert (response.status_code, response.json()["error"]) == (413, message)
    # Who asks first is told before anything is sent.
    head = f"POST /v1/models/m:predict HTTP/1.1\r\nHost: h\r\nContent-Length: {1 << 40}\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection((rest.base_url.host, rest.base_url.port)) as caller:
        caller.sendall(head.encode())
        answer = caller.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer.lower()


def test_status(rest):
    available = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    third, first = {"version": "3", **available}, {"version": "1", **available}
    for path, versions in (
        ("half_plus_two", [third, first]), ("half_plus_two/versions/1", [first]),
        ("half_plus_two/labels/stable", [first]),
    ):  # fmt: skip
        assert rest.get(f"/v1/models/{path}").json() == {"model_version_status": versions}


def test_metadata(rest):
    document = rest.get("/v1/models/half_plus_two/versions/1/metadata").json()
    assert document["model_spec"] == {"name": "half_plus_two", "signature_name": "", "version": "1"}
    signature = document["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert signature["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert signature["inputs"]["x"]["tensor_shape"] == {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}


@pytest.mark.parametrize(
    ("path", "document", "status", "message"),
    [
        ("nobody:predict", {"instances": [1]}, 404, "Servable not found for request: Latest(nobody)"),
        ("half_plus_two/versions/7:predict", {"instances": [1]}, 404,
         "Servable not found for request: Specific(half_plus_two, 7)"),
        ("half_plus_two/labels/l:predict", {"instances": [1]}, 400, "Unrecognized servable version label: l"),
        (f"half_plus_two/versions/{2**63}:predict", {"instances": [1]}, 400,
         f"Failed to convert version: {2**63} to numeric."),
        ("half_plus_two:predict", {"instances": [1], "signature_name": "no"}, 400,
         'Serving signature name: "no" not found in signature def'),
        ("half_plus_two:predict", b"{", 400, "JSON Parse error: "),
        ("half_plus_two:predict", b"", 400, "JSON Parse error: The document is empty"),
        ("half_plus_two:predict", {"instances": [[1]] * 2 + [2]}, 400, "Failed to process element: 2 of"),
        ("half_plus_two:predict", {"inputs": ["a"]}, 400, "Type: String is not of expected type: float"),
        ("simple:predict", {"inputs": {"INPUT0": [[1] * 16], "INPUT1": [[1] * 15]}}, 400, ""),
        ("examples:classify", {"examples": [{"x": 1.0}]}, 400, ""),
        ("examples:regress", {"signature_name": "regress_x_to_y", "examples": [{"x": "a"}]}, 400, ""),
        ("nobody:classify", {"examples": [{"x": 1.0}]}, 404, "Servable not found for request: Latest(nobody)"),
        ("examples:classify", {"examples": []}, 400, "'examples' value is an empty array"),
    ],
)  # fmt: skip
def test_refusals(rest, path, document, status, message):
    assert message in post(rest, path, document, status)
    assert post(rest, "half_plus_two:predict", {"instances": [1.0]}) == {"predictions": [3.5]}


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("nobody", 404, "Could not find any versions of model nobody"),
        ("half_plus_two/versions/7", 404, "Could not find version 7 of model half_plus_two"),
        ("nobody/metadata", 404, "Servable not found for request: Latest(nobody)"),
    ],
)
def test_refusals_of_questions(rest, path, status, message):
    response = rest.get(f"/v1/models/{path}")
    assert (response.status_code, response.json()) == (status, {"error": message})


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [
        ("GET", "/", 404, None),
        ("GET", "/v1/models", 404, None),
        ("POST", "/v1/models/half_plus_two:explain", 404, None),
        ("POST", "/v1/models/half_plus_two/versions/one:predict", 404, None),
        ("GET", "/v1/models/a/b/c", 404, None),
        ("GET", "/v1/models/half_plus_two:predict", 405, "POST"),
        ("DELETE", "/v1/models/half_plus_two", 405, "GET, HEAD"),
        ("POST", "/v1/models/half_plus_two/metadata", 405, "GET, HEAD"),
        ("GET", "/v1/models/%ff%00", 404, None),
    ],
)
def test_what_is_not_there(rest, method, path, status, allowed):
    response = rest.request(method, path)
    assert response.status_code == status
    assert response.json()["error"]
    if allowed:
        assert set(response.headers["allow"].split(", ")) == set(allowed.split(", "))


def test_any_content_type_will_do(rest):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "?"):
        body = b'{"instances": [1.0]}'
        assert post(rest, "half_plus_two:predict", body, headers={"Content-Type": kind}) == {"predictions": [3.5]}
