"""Every path of the REST APIs, asked by callers of every role; a path that is in no table here fails."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest
from modelhost_server.rest import open_inference, paths, tensorflow_serving
from modelhost_server.rest.calls import Methods
from support.access import ABSENT, ADMIN, MINE, OTHER, ROLES, STRANGERS

MODEL = "half"
UNAUTHENTICATED, FORBIDDEN = 401, 403


class Path(NamedTuple):
    """What a path must ask of its caller: as in test_access_matrix, and a body."""

    needs: str
    body: Any = None
    hidden: int = 404


READ = Path("predict")
ROWS = Path("predict", {"instances": [1.0], "examples": [{"x": 1.0}]})
INFER = Path("predict", {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]})
KNOWN, OPEN, SERVER = Path("known"), Path("open"), Path("server", {})
V1, V2 = "/v1/models/{model:model}", "/v2/models/{model:model}"
TABLE = {
    **{
        ("POST", f"{V1}{version}:{verb}"): ROWS
        for version, verb in itertools.product(
            ("", "/versions/{version:number}", "/labels/{label}"), ("predict", "classify", "regress")
        )
    },
    # A label that cannot be is INVALID_ARGUMENT in TensorFlow Serving's words, whatever the model.
    **{
        ("POST", f"{V1}/labels/{{label}}:{verb}"): ROWS._replace(hidden=400)
        for verb in ("predict", "classify", "regress")
    },
    **{
        ("GET", f"{V1}{version}{what}"): READ
        for version in ("", "/versions/{version:number}")
        for what in ("", "/metadata")
    },
    **{("GET", f"{V1}/labels/{{label}}{what}"): READ._replace(hidden=400) for what in ("", "/metadata")},
    ("GET", "/v2"): KNOWN,
    ("GET", "/v2/health/live"): OPEN,
    ("GET", "/v2/health/ready"): OPEN,
    ("GET", "/v2/models/stats"): KNOWN,
    **{("POST", f"{V2}{version}/infer"): INFER for version in ("", "/versions/{version}")},
    **{("GET", f"{V2}{version}{what}"): READ for version in ("", "/versions/{version}") for what in ("", "/config")},
    # Triton has no 404 for these.
    **{
        ("GET", f"{V2}{version}/{what}"): READ._replace(hidden=400)
        for version in ("", "/versions/{version}")
        for what in ("ready", "stats")
    },
    ("POST", "/v2/repository/index"): Path("known", {}),
    ("POST", "/v2/repository/models/{model:model}/load"): Path("manage", {}, 500),
    ("POST", "/v2/repository/models/{model:model}/unload"): Path("manage", {}, 200),
    **{
        (method, path): SERVER
        for method in ("GET", "POST")
        for path in ("/v2/trace/setting", f"{V2}/trace/setting", "/v2/logging")
    },
    **{
        key: Path("known", {"key": "/none", "byte_size": 1})
        for kind in ("system", "cuda")
        for key in (
            ("GET", f"/v2/{kind}sharedmemory/status"),
            ("GET", f"/v2/{kind}sharedmemory/region/{{region}}/status"),
            ("POST", f"/v2/{kind}sharedmemory/unregister"),
            ("POST", f"/v2/{kind}sharedmemory/region/{{region}}/unregister"),
            ("POST", f"/v2/{kind}sharedmemory/region/{{region}}/register"),
        )
    },
}


def all_paths() -> Iterator[tuple[str, str]]:
    paths.register()
    methods: Any = Methods([], None, None, None)  # type: ignore[arg-type]
    for route in (*tensorflow_serving.routes(methods, 1), *open_inference.routes(methods, 1)):
        yield from ((method, route.path) for method in route.methods or () if method != "HEAD")


def test_every_path_has_an_entry():
    assert sorted(TABLE) == sorted(all_paths())


class Asked:
    def __init__(self, client: httpx.Client, tokens: dict[str, str]) -> None:
        self._client = client
        self.tokens = tokens

    def ask(self, key: tuple[str, str], caller: str, scope: str) -> httpx.Response:
        method, path = key
        # What is loaded or unloaded must not be what the others ask about.
        model = "none" if "/repository/" in path else MODEL
        for name, value in {
            "model:model": f"{scope}/{model}", "version:number": "999", "version": "999", "label": "l", "region": "r",
        }.items():  # fmt: skip
            path = path.replace(f"{{{name}}}", value)
        token = self.tokens[caller]
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        body = TABLE[key].body if method == "POST" else None
        return self._client.request(method, path, headers=headers, json=body)


@pytest.fixture(scope="module")
def asked(team):
    with httpx.Client(base_url=team.process.addresses[-1], timeout=30) as client:
        yield Asked(client, team.tokens)


@pytest.mark.parametrize("key", TABLE, ids=" ".join)
def test_each_caller_may_what_its_role_allows(asked: Asked, key: tuple[str, str]):
    needed, _, hidden = TABLE[key]
    absent = asked.ask(key, ADMIN, ABSENT)
    for caller in asked.tokens:
        role, _, where = caller.partition(" on ")
        for scope in (MINE, OTHER, ABSENT):
            answer = asked.ask(key, caller, scope)
            status = answer.status_code
            if needed == "open":
                assert status == 200, answer.text
            elif caller in STRANGERS:
                assert status == UNAUTHENTICATED, answer.text
                assert answer.headers["WWW-Authenticate"] == "Bearer"
            elif needed == "server":
                assert (status == FORBIDDEN) == (where != "*"), answer.text
            elif needed == "known":
                assert status not in (UNAUTHENTICATED, FORBIDDEN), answer.text
            elif where not in ("*", scope):
                # As of a scope that really is not there, in every byte.
                assert (status, answer.text.replace(scope, ABSENT)) == (absent.status_code, absent.text)
                assert status == hidden, answer.text
            elif ROLES.index(role) < ROLES.index(needed):
                assert status == FORBIDDEN, answer.text
            else:
                assert status not in (UNAUTHENTICATED, FORBIDDEN), answer.text


def test_lists_tell_of_what_the_caller_sees(asked: Asked):
    def names(key: tuple[str, str], caller: str) -> set[str]:
        answer = asked.ask(key, caller, MINE).json()
        return {model["name"] for model in (answer if isinstance(answer, list) else answer["model_stats"])}

    for key in (("POST", "/v2/repository/index"), ("GET", "/v2/models/stats")):
        assert {name.partition("/")[0] for name in names(key, f"predict on {MINE}")} == {MINE}
        assert names(key, ADMIN) >= {f"{MINE}/{MODEL}", f"{OTHER}/{MODEL}"}
