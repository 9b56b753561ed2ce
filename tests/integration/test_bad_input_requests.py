"""Requests that are messages but not requests: names, ids, pages, masks, numbers, options."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from modelhost.v1 import error_pb2, model_pb2, scope_pb2, scope_service_pb2
from modelhost.v1 import model_service_pb2 as pb
from support.predict import Failure, assert_serves, error_of, load, new_scope
from support.server import Stubs

_ids = itertools.count(1)


@pytest.fixture(scope="module")
def scope(models: Path, stubs: Stubs) -> Iterator[str]:
    with new_scope(stubs, "bad-request") as name:
        load(stubs, name, models / "half_plus_two", "half", labels=["stable"])
        load(stubs, name, models / "half_plus_three", "other")
        yield name


@pytest.fixture(autouse=True)
def still_serves(stubs: Stubs, scope: str) -> Iterator[None]:
    yield
    assert_serves(stubs, scope, "half")


def call(stubs: Stubs, message: Any) -> Any:
    """Sends a request to the RPC that takes it."""
    name = message.DESCRIPTOR.name.removesuffix("Request")
    for stub in (stubs.models, stubs.scopes):
        if hasattr(stub, name):
            return getattr(stub, name)(message, timeout=30)
    raise AssertionError(name)


class Bad(NamedTuple):
    """A request but for the scope, and what is to be said of it."""

    message: Any
    code: str
    reason: str
    words: tuple[str, ...]
    field: str | None = None


def invalid(message: Any, field: str, *words: str, reason: str = "INVALID_REQUEST") -> Bad:
    return Bad(message, "INVALID_ARGUMENT", reason, words, field)


def token(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode()


def bad_token(message: Any) -> Bad:
    return invalid(message, "page_token", "next_page_token", reason="INVALID_PAGE_TOKEN")


def update(*paths: str, **config: Any) -> scope_service_pb2.UpdateScopeRequest:
    return scope_service_pb2.UpdateScopeRequest(
        config=scope_pb2.ScopeConfig(**config), update_mask=FieldMask(paths=paths)
    )


def loading(**fields: Any) -> pb.LoadModelRequest:
    return pb.LoadModelRequest(**{"model": "new", "source": "/nowhere", **fields})


Load, Unload, Get, List = pb.LoadModelRequest, pb.UnloadModelRequest, pb.GetModelRequest, pb.ListModelsRequest
Engines = model_pb2.LoadOptions
LONG = "i" * 10_000
TOKENS = {
    "text": "page two",
    "text that is not ASCII": "\u7121",
    "no JSON": base64.urlsafe_b64encode(b"\x00\xff").decode(),
    "null": token(None),
    "a number": token(7),
    "an empty list": token([]),
    "an object": token({"0": "models/"}),
    "another list's": token(["scopes", "a"]),
    "numbers": token(["models/bad-request-1", 1, 2]),
    "10 kB": "A" * 10_000,
    "100 kB of brackets": base64.urlsafe_b64encode(b"[" * 100_000).decode(),
}
CASES = {
    **{f"a page token that is {name}": bad_token(List(page_token=value)) for name, value in TOKENS.items()},
    "a page token of scopes that is text": bad_token(scope_service_pb2.ListScopesRequest(page_token="page two")),
    "a negative page size": invalid(List(page_size=-1), "page_size", "0 to 1000", "-1"),
    "the least page size": invalid(List(page_size=-(2**31)), "page_size", "0 to 1000", str(-(2**31))),
    "a negative page size of scopes": invalid(
        scope_service_pb2.ListScopesRequest(page_size=-5), "page_size", "0 to 1000", "-5"
    ),
    "an unknown model": Bad(Get(model="nothing"), "NOT_FOUND", "MODEL_NOT_FOUND", ("'nothing'", "bad-request")),
    "an unknown version": Bad(Get(model="half", version=9), "NOT_FOUND", "VERSION_NOT_FOUND", ("9", "it has: 1")),
    "a negative version": invalid(Get(model="half", version=-1), "version", "greater than 0", "-1"),
    "a negative version to load": invalid(loading(version=-1, source="{half}"), "version", "-1"),
    "no choice of what to unload": invalid(Unload(model="half"), "choice", "`all_versions`", "none"),
    "all versions: no": invalid(Unload(model="half", all_versions=False), "choice", "`all_versions`"),
    "version 0 to unload": invalid(Unload(model="half", version=0), "version", "greater than 0", "got 0"),
    "a version to unload that is not there": Bad(
        Unload(model="half", version=5), "NOT_FOUND", "VERSION_NOT_FOUND", ("5", "it has: 1")
    ),
    "a label to unload that is not there": Bad(
        Unload(model="half", label="canary"), "NOT_FOUND", "LABEL_NOT_FOUND", ("'canary'", "stable")
    ),
    "a model to unload that is not there": Bad(
        Unload(model="nothing", all_versions=True), "NOT_FOUND", "MODEL_NOT_FOUND", ("'nothing'",)
    ),
    "an engine that nobody knows": invalid(loading(options=Engines(engine=99)), "options.engine", "Engine", "99"),
    "a negative tolerance": invalid(loading(options=Engines(tolerance=-1e-4)), "options.tolerance", "0", "-0.0001"),
    "a tolerance that is no number": invalid(
        loading(options=Engines(tolerance=float("nan"))), "options.tolerance", "nan"
    ),
    "a request id of 10 kB to unload": invalid(
        Unload(model="half", version=1, request_id=LONG), "request_id", "128", "10000"
    ),
    "a scope without a name": invalid(
        scope_service_pb2.CreateScopeRequest(), "scope", "letters", "nothing", reason="INVALID_NAME"
    ),
    "a scope that exists": Bad(
        scope_service_pb2.CreateScopeRequest(scope="default"), "ALREADY_EXISTS", "SCOPE_ALREADY_EXISTS", ("'default'",)
    ),
    "a scope that exists, otherwise": Bad(
        scope_service_pb2.CreateScopeRequest(
            scope="default", allow_existing=True, config=scope_pb2.ScopeConfig(max_queue=7)
        ),
        "ALREADY_EXISTS",
        "SCOPE_ALREADY_EXISTS",
        ("'default'", "another configuration"),
    ),
    "the default scope to delete": invalid(
        scope_service_pb2.DeleteScopeRequest(scope="default", force=True), "scope", "'default'", "cannot be deleted"
    ),
    "an unknown scope to delete": Bad(
        scope_service_pb2.DeleteScopeRequest(scope="nowhere"), "NOT_FOUND", "SCOPE_NOT_FOUND", ("'nowhere'",)
    ),
    "an unknown scope to get": Bad(
        scope_service_pb2.GetScopeRequest(scope="nowhere"), "NOT_FOUND", "SCOPE_NOT_FOUND", ("'nowhere'",)
    ),
    "an unknown field to update": invalid(update("colour"), "update_mask", "max_queue", "'colour'"),
    "a part of a field to update": invalid(update("drain_timeout.seconds"), "update_mask", "'drain_timeout.seconds'"),
    "an empty path to update": invalid(update(""), "update_mask", "''"),
    "a field of 10 kB to update": invalid(update("max_queue", LONG), "update_mask", "'iiii"),
    **{
        f"{value} as {name}": invalid(update(name, **{name: value}), f"config.{name}", "expected 0", str(value))
        for name in ("intra_op_threads", "inter_op_threads", "max_in_flight", "max_queue")
        for value in (-1, 2**31 - 1)
    },
    **{
        f"{what} as {name}": invalid(update(name, **{name: value}), f"config.{name}", "0 (the default) to 3600 s")
        for name in ("drain_timeout", "overrun_grace")
        for what, value in {
            "-1 s": Duration(seconds=-1),
            "a year": Duration(seconds=31_536_000),
            "-1 ns": Duration(nanos=-1),
            "the longest time": Duration(seconds=2**63 - 1, nanos=2**31 - 1),
        }.items()
    },
    "a negative memory limit": invalid(
        update("memory_limit_bytes", memory_limit_bytes=-1), "config.memory_limit_bytes", "0", "-1"
    ),
    "65 replicas": invalid(update("replicas", replicas=65), "config.replicas", "0 (the default) to 64", "65"),
    **{
        f"the revision {number}": Bad(
            pb.WatchModelsRequest(from_revision=number),
            "OUT_OF_RANGE",
            "REVISION_COMPACTED",
            ("from_revision", str(number), "watch from 0"),
            "from_revision",
        )
        for number in (2**62, 1, -1)
    },
}


@pytest.mark.parametrize("bad", CASES.values(), ids=CASES)
def test_a_bad_request_is_refused(models, stubs, scope, bad):
    message = type(bad.message)()
    message.CopyFrom(bad.message)
    if isinstance(message, Load):
        message.source = message.source.replace("{half}", str(models / "half_plus_two"))
    if "scope" in message.DESCRIPTOR.fields_by_name and not isinstance(
        message, scope_service_pb2.CreateScopeRequest | scope_service_pb2.DeleteScopeRequest
    ):
        message.scope = message.scope or scope
    failure = error_of(lambda: call(stubs, message))
    assert (failure.code, failure.reason) == (bad.code, bad.reason), failure.message
    for word in bad.words:
        assert word in failure.message
    assert len(failure.message) < 500
    if bad.field is not None:
        assert failure.fields == (bad.field,)


NAMES = {
    "a slash": "a/b",
    "dots": "..",
    "a dot first": ".a",
    "NUL": "a\0b",
    "a line break": "a\n",
    "a space": "a b",
    "not ASCII": "\u00fcn\u00ef",
    "digits that are not ASCII": "\u0663",
    "129 characters": "n" * 129,
    "10 kB": "n" * 10_000,
    "an @": "a@1",
    "a percent sign": "%2e%2e",
    "nothing": "",
}
NAMED = {
    "CreateScope": lambda name: scope_service_pb2.CreateScopeRequest(scope=name),
    "LoadModel": lambda name: Load(model=name, source="{half}"),
    "GetModel": lambda name: Get(model=name),
    "UnloadModel": lambda name: Unload(model=name, all_versions=True),
    "a label of LoadModel": lambda name: Load(model="new", source="{half}", labels=["fine", name]),
    "a label of UnloadModel": lambda name: Unload(model="half", label=name),
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("build", NAMED.values(), ids=NAMED)
def test_a_bad_name_is_refused_with_the_rule(models, stubs, scope, build, name):
    message = build(name)
    if isinstance(message, Load):
        message.source = str(models / "half_plus_two")
    if not isinstance(message, scope_service_pb2.CreateScopeRequest):
        message.scope = scope
    failure = error_of(lambda: call(stubs, message))
    if isinstance(message, Unload) and message.model == "half" and not name:
        assert (failure.code, failure.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
        return
    assert (failure.code, failure.reason) == ("INVALID_ARGUMENT", "INVALID_NAME")
    assert "letters, digits, '.', '_' and '-', beginning with a letter" in failure.message
    assert "at most 128 characters" in failure.message
    assert f"got {repr(name)[:10]}".rstrip("'") in failure.message or (not name and "got nothing" in failure.message)
    assert len(failure.message) < 400
    assert failure.message.isprintable()
    assert "new" not in {model.model for model in stubs.models.ListModels(List(scope=scope)).models}


ODD_SCOPES = {what: name for what, name in NAMES.items() if name}


@pytest.mark.parametrize("name", ODD_SCOPES.values(), ids=ODD_SCOPES)
@pytest.mark.parametrize(
    "rpc", ["GetScope", "UpdateScope", "DeleteScope", "ListModels", "LoadModel", "GetModel", "UnloadModel"]
)
def test_a_scope_of_an_odd_name_is_not_found(stubs, scope, rpc, name):
    message = {
        "GetScope": scope_service_pb2.GetScopeRequest(),
        "UpdateScope": scope_service_pb2.UpdateScopeRequest(),
        "DeleteScope": scope_service_pb2.DeleteScopeRequest(force=True),
        "ListModels": List(),
        "LoadModel": Load(model="m", source="/nowhere"),
        "GetModel": Get(model="m"),
        "UnloadModel": Unload(model="m", all_versions=True),
    }[rpc]
    message.scope = name
    failure = error_of(lambda: call(stubs, message))
    assert (failure.code, failure.reason) == ("NOT_FOUND", "SCOPE_NOT_FOUND")
    assert repr(name)[:10].rstrip("'") in failure.message
    assert len(failure.message) < 300


def fresh(name: str) -> str:
    return f"{name}-{next(_ids)}"


def test_a_request_id_is_good_for_one_load_only(models, stubs, scope):
    name, one = fresh("model"), fresh("id")
    for _ in range(2):
        assert load(stubs, scope, models / "half_plus_two", name, request_id=one).version == 1
    for change in (
        {"source": models / "half_plus_three"},
        {"model": fresh("model")},
        {"version": 7},
        {"labels": ["x"]},
    ):
        fields = {"source": models / "half_plus_two", "model": name, "request_id": one, **change}
        failure = error_of(lambda fields=fields: load(stubs, scope, **fields))
        assert (failure.code, failure.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
        assert failure.fields == ("request_id",)
        assert "different request" in failure.message


def test_a_request_id_is_good_for_one_unload_only(models, stubs, scope):
    names, one = (fresh("model"), fresh("model")), fresh("id")
    for name in names:
        load(stubs, scope, models / "half_plus_two", name)
    for _ in range(2):
        message = Unload(scope=scope, model=names[0], all_versions=True, request_id=one)
        assert list(stubs.models.UnloadModel(message).versions) == [1]
    failure = error_of(lambda: call(stubs, Unload(scope=scope, model=names[1], all_versions=True, request_id=one)))
    assert (failure.code, failure.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert "different request" in failure.message


def test_a_request_id_of_10_kb_is_refused(models, stubs, scope):
    failure = error_of(lambda: load(stubs, scope, models / "half_plus_two", "new", request_id=LONG))
    assert (failure.code, failure.reason, failure.fields) == ("INVALID_ARGUMENT", "INVALID_REQUEST", ("request_id",))
    assert "128" in failure.message
    assert "10000" in failure.message


def test_a_version_from_another_source_is_not_replaced(models, stubs, scope):
    failure = error_of(lambda: load(stubs, scope, models / "half_plus_three", "half", version=1))
    assert (failure.code, failure.reason) == ("ALREADY_EXISTS", "VERSION_ALREADY_EXISTS")
    assert "half_plus_two" in failure.message


def test_the_page_token_of_one_list_is_not_good_for_another(stubs, scope):
    page = stubs.models.ListModels(List(scope=scope, page_size=1))
    assert page.next_page_token
    assert len(stubs.models.ListModels(List(scope=scope, page_size=1, page_token=page.next_page_token)).models) == 1
    for other in (List(page_token=page.next_page_token), List(scope="default", page_token=page.next_page_token)):
        failure = error_of(lambda other=other: call(stubs, other))
        assert (failure.code, failure.reason) == ("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN")


def test_a_scope_that_holds_models_is_not_deleted_unforced(stubs, scope):
    failure = error_of(lambda: call(stubs, scope_service_pb2.DeleteScopeRequest(scope=scope)))
    assert (failure.code, failure.reason) == ("FAILED_PRECONDITION", "SCOPE_NOT_EMPTY")
    assert "force" in failure.message


def test_a_refused_update_changes_nothing(stubs, scope):
    get = scope_service_pb2.GetScopeRequest(scope=scope)
    before = stubs.scopes.GetScope(get).scope.config
    message = update("max_queue", "max_in_flight", max_queue=5, max_in_flight=-1)
    message.scope = scope
    error_of(lambda: call(stubs, message))
    assert stubs.scopes.GetScope(get).scope.config == before


def test_bad_loads_among_good_ones_fail_alone(models, stubs, scope):
    good = [Load(scope=scope, model=fresh("many"), source=str(models / "half_plus_two")) for _ in range(2)]
    bad = [
        Load(scope=scope, model="a/b", source=str(models / "half_plus_two")),
        Load(scope="nowhere", model="m", source=str(models / "half_plus_two")),
        Load(scope=scope, model=fresh("many"), source="/nowhere"),
        Load(scope=scope, model=fresh("many"), source=str(models / "without_signatures")),
        Load(scope=scope, model=fresh("many"), source=str(models / "half_plus_two"), options=Engines(engine=99)),
        Load(),
    ]
    answers = list(stubs.models.LoadModels(pb.LoadModelsRequest(loads=[good[0], *bad, good[1]]), timeout=60))
    ends = {a.index: a for a in answers if a.WhichOneof("outcome") != "progress"}
    assert sorted(ends) == list(range(8))
    assert answers[-1].finished_count == answers[-1].total_count == 8
    assert {index for index, answer in ends.items() if answer.WhichOneof("outcome") == "loaded"} == {0, 7}
    reasons = [error_pb2.ErrorReason.Name(ends[i].error.reason).removeprefix("ERROR_REASON_") for i in range(1, 7)]
    assert reasons == [
        "INVALID_NAME", "SCOPE_NOT_FOUND", "SOURCE_NOT_FOUND", "SOURCE_INVALID", "INVALID_REQUEST", "INVALID_NAME",
    ]  # fmt: skip
    assert all(ends[i].error.message for i in range(1, 7))


def test_no_loads_at_all_are_done_at_once(stubs, scope):
    assert list(stubs.models.LoadModels(pb.LoadModelsRequest(), timeout=10)) == []


def test_a_watch_of_a_scope_that_is_not_there_is_refused(stubs, scope):
    failure: Failure = error_of(
        lambda: list(stubs.models.WatchModels(pb.WatchModelsRequest(scope="nowhere"), timeout=10))
    )
    assert (failure.code, failure.reason) == ("NOT_FOUND", "SCOPE_NOT_FOUND")
