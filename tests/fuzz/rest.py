"""Every path of the REST APIs, with documents that are almost right, bodies that are none, and headers at odds."""

from __future__ import annotations

import base64
import gzip
import json
import random
import struct
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from .calls import AS_OTHERS_ANSWER
from .damage import ODD_VALUES, damaged, damaged_json
from .hosted import MODELS, VICTIMS, Hosted
from .tally import Tally

_SECONDS = 30.0
_AT_ONCE = 4
_CHECK_EVERY = 250
_RESTORE_EVERY = 2500
_INFER = {
    "id": "1", "inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2.5]}],
    "outputs": [{"name": "y", "parameters": {"classification": 1}}], "parameters": {"binary_data_output": True},
}  # fmt: skip
_BINARY = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}],
    "parameters": {"binary_data_output": True},
}  # fmt: skip
_REGION = {"key": "/fuzz", "offset": 0, "byte_size": 8}
_DOCUMENTS: dict[str, list[Any]] = {
    ":predict": [
        {"instances": [1.0, 2.0]}, {"inputs": {"x": [1, 2]}}, {"instances": [{"x": 1.0}, {"x": 2}]},
        {"signature_name": "serving_default", "inputs": [1, 2]},
        {"signature_name": "string", "instances": [{"b64": base64.b64encode(b"a").decode()}]},
    ],
    ":classify": [{"examples": [{"x": 1.0, "s": "a"}, {"x": [1, 2]}], "context": {"c": 1}}],
    ":regress": [{"examples": [{"x": 1.0}]}],
    "/infer": [_INFER, _BINARY],
    "index": [{"ready": True}],
    "load": [{"parameters": {"config": '{"name": "m"}', "file:1/model.savedmodel/saved_model.pb": "AA=="}}],
    "unload": [{"parameters": {"unload_dependents": False}}],
    "setting": [{"trace_level": ["OFF"], "trace_rate": "1"}],
    "logging": [{"log_verbose_level": 1}],
    "register": [_REGION],
}  # fmt: skip


def _path(noise: random.Random) -> tuple[str, str]:
    """A method and a path, most often of what is there."""
    scope, model = noise.choice([*VICTIMS, "default", "nowhere"]), noise.choice([*MODELS, "new", "nothing"])
    name = noise.choice([model, f"{scope}/{model}", f"{scope}/{model}"])
    if noise.random() < 0.1:
        name = quote(noise.choice([str(odd) for odd in ODD_VALUES[:30]]), errors="replace", safe="/%")[:600]
    number = noise.choice(["1", "0", "-1", "9" * 30, "x", "٣", "1.0", ""])
    v1 = f"/v1/models/{name}" + noise.choice(["", "", f"/versions/{number}", "/labels/stable", "/labels/%00"])
    v2 = f"/v2/models/{name}" + noise.choice(["", "", f"/versions/{number}"])
    region = noise.choice(["r", "%2F", "%00"])
    return noise.choice(
        [
            *[("POST", v1 + verb) for verb in (":predict", ":predict", ":classify", ":regress", ":x")],
            ("GET", v1), ("GET", f"{v1}/metadata"),
            *[("POST", f"{v2}/infer")] * 3,
            *[("GET", v2 + part) for part in ("", "/ready", "/config", "/stats", "/trace/setting")],
            ("POST", f"{v2}/trace/setting"), ("POST", "/v2/repository/index"),
            ("POST", f"/v2/repository/models/{name}/load"), ("POST", f"/v2/repository/models/{name}/unload"),
            ("GET", "/v2"), ("GET", "/v2/health/ready"), ("GET", "/v2/logging"), ("POST", "/v2/logging"),
            ("POST", "/v2/trace/setting"), ("GET", "/v2/systemsharedmemory/status"),
            ("POST", f"/v2/systemsharedmemory/region/{region}/register"),
            ("POST", f"/v2/systemsharedmemory/region/{region}/unregister"),
            ("POST", f"/v2/cudasharedmemory/region/{region}/register"),
            (noise.choice(["PUT", "DELETE", "HEAD", "OPTIONS", "X"]), noise.choice([v1, v2, "/"])),
        ]
    )  # fmt: skip


def _request(noise: random.Random) -> tuple[str, str, dict[str, str], bytes]:
    method, path = _path(noise)
    headers: dict[str, str] = {}
    document = next(
        (each for end, all_ in _DOCUMENTS.items() if path.endswith(end) for each in [noise.choice(all_)]), {}
    )
    if noise.random() < 0.75:
        document = damaged_json(noise, document)
    try:
        body = json.dumps(document, ensure_ascii=noise.random() < 0.7).encode(errors="surrogatepass")
    except ValueError:
        body = b"{}"
    if document is _BINARY or noise.random() < 0.05:
        headers["Inference-Header-Content-Length"] = noise.choice([str(len(body))] * 3 + ["-1", "x", "9" * 40, "0", ""])
        body += struct.pack("<2f", 1, 2)
    if noise.random() < 0.25:
        body = damaged(noise, body)
    if noise.random() < 0.05:
        body = noise.choice([b"[" * 100_000, b'{"a":' * 50_000, b'"' * 70_000, b"1" * 100_000, b"\xef\xbb\xbf{}"])
    if noise.random() < 0.1:
        headers["Content-Encoding"] = noise.choice(["gzip", "deflate", "br", "identity"])
        if noise.random() < 0.7:
            body = gzip.compress(body)
            body = body if noise.random() < 0.5 else damaged(noise, body)
    return method, path, headers, body


def fuzz_rest(models: Path, seed: int, cases: int) -> Tally:
    """So many requests."""
    tally = Tally("REST")
    noise = random.Random(f"{seed}/rest")
    hosted = Hosted(models, "--rest", "127.0.0.1:0")
    client = httpx.Client(base_url=hosted.server.addresses[-1], timeout=_SECONDS)
    try:
        with tally.timed(), ThreadPoolExecutor(_AT_ONCE) as pool:
            under_way: list[tuple[Any, Future[httpx.Response]]] = []
            for _ in range(cases):
                asked = _request(noise)
                method, path, headers, body = asked
                future = pool.submit(client.request, method, path, headers=headers, content=body)
                under_way.append((asked, future))
                tally.cases += 1
                if len(under_way) >= 8 * _AT_ONCE:
                    _judge(tally, under_way)
                if tally.cases % _CHECK_EVERY == 0:
                    _judge(tally, under_way)
                    if not hosted.check(tally, "REST"):
                        return tally
                    if tally.cases % _RESTORE_EVERY == 0:
                        hosted.restore()
            _judge(tally, under_way)
            hosted.check(tally, "REST")
    finally:
        client.close()
        hosted.close()
    return tally


def _judge(tally: Tally, under_way: list[tuple[Any, Future[httpx.Response]]]) -> None:
    for (method, path, headers, body), future in under_way:
        asked = f"{method} {path} {headers} {body[:400]!r}"
        try:
            response = future.result()
        except (httpx.InvalidURL, httpx.LocalProtocolError, UnicodeEncodeError):
            tally.answers["not sent"] += 1
            continue
        except httpx.HTTPError as error:
            tally.fail(f"{asked}: {error!r}")
            continue
        tally.answers[str(response.status_code)] += 1
        if response.status_code == 500 and not AS_OTHERS_ANSWER.search(response.text):
            tally.fail(f"{asked}: {response.text[:500]}")
    under_way.clear()
