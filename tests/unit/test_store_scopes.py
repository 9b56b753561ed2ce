"""Scopes in the store: created, found, changed, deleted."""

from __future__ import annotations

import os

import pytest
from modelhost_server.errors import Reason
from modelhost_server.store.operations import UnloadRequest
from modelhost_server.store.phases import Phase
from modelhost_server.store.records import ScopeConfig
from modelhost_server.store.store import Store
from test_store_phases import bring, hosted, new_store, refused, request

CONFIG = ScopeConfig(max_queue=5)


@pytest.fixture
def store() -> Store:
    return new_store()


def test_a_new_scope_is_found_and_listed_by_name(store: Store) -> None:
    scope, created = store.create_scope("a", CONFIG)
    assert created
    assert store.scope("a") is scope
    assert store.scopes() == ([scope, store.scope("default")], "")


def test_no_name_means_the_default_scope(store: Store) -> None:
    assert store.scope("") is store.scope("default")


@pytest.mark.parametrize("name", ["", "..", "a/b", "-a", "a" * 129])
def test_a_bad_name_makes_no_scope(store: Store, name: str) -> None:
    with refused(Reason.INVALID_NAME):
        store.create_scope(name, CONFIG)
    assert [scope.name for scope in store.all_scopes()] == ["default"]


def test_a_scope_is_not_created_twice(store: Store) -> None:
    store.create_scope("a", CONFIG)
    with refused(Reason.SCOPE_ALREADY_EXISTS):
        store.create_scope("a", CONFIG)


def test_an_existing_scope_will_do_when_it_is_configured_as_asked(store: Store) -> None:
    scope, _ = store.create_scope("a", CONFIG)
    assert store.create_scope("a", ScopeConfig(max_queue=5), allow_existing=True) == (scope, False)
    with refused(Reason.SCOPE_ALREADY_EXISTS) as caught:
        store.create_scope("a", ScopeConfig(max_queue=6), allow_existing=True)
    assert "another configuration" in caught.value.message
    assert scope.config == CONFIG


def test_a_scope_being_deleted_will_not_do(store: Store) -> None:
    store.create_scope("a", CONFIG)
    store.begin_delete_scope("a", force=False)
    with refused(Reason.SCOPE_ALREADY_EXISTS):
        store.create_scope("a", CONFIG, allow_existing=True)


def test_creating_a_scope_being_deleted_says_that_it_is_being_deleted(store: Store) -> None:
    store.create_scope("a", CONFIG)
    store.begin_delete_scope("a", force=False)
    with refused(Reason.SCOPE_ALREADY_EXISTS) as caught:
        store.create_scope("a", CONFIG, allow_existing=True)
    assert "deleted" in caught.value.message


def test_a_scope_can_be_configured_anew(store: Store) -> None:
    store.create_scope("a", CONFIG)
    changed = ScopeConfig(max_queue=6)
    assert store.update_scope("a", changed) is store.scope("a")
    assert store.scope("a").config is changed


def test_an_unknown_scope_is_not_found_by_any_operation(store: Store) -> None:
    for operation in (
        lambda: store.scope("x"),
        lambda: store.update_scope("x", CONFIG),
        lambda: store.begin_delete_scope("x", force=True),
        lambda: store.accept_load(request(scope="x")),
        lambda: store.begin_unload(UnloadRequest("x", "m", all_versions=True)),
        lambda: store.acquire("x", "m"),
        lambda: store.model("x", "m"),
        lambda: store.models("x"),
    ):
        with refused(Reason.SCOPE_NOT_FOUND):
            operation()


def test_the_unknown_scope_is_named_as_a_resource(store: Store) -> None:
    with refused(Reason.SCOPE_NOT_FOUND) as caught:
        store.scope("x")
    assert caught.value.details == {"resource": "scopes/x"}


@pytest.mark.parametrize("name", ["", "default"])
def test_the_default_scope_stays(store: Store, name: str) -> None:
    with refused(Reason.INVALID_REQUEST):
        store.begin_delete_scope(name, force=True)
    assert not store.scope("default").deleting


def test_a_scope_with_models_is_deleted_only_by_force(store: Store) -> None:
    store.create_scope("a", CONFIG)
    hosted(store, scope="a")
    with refused(Reason.SCOPE_NOT_EMPTY):
        store.begin_delete_scope("a", force=False)
    assert not store.scope("a").deleting
    assert store.begin_delete_scope("a", force=True).deleting


def test_two_deletions_at_once_conflict(store: Store) -> None:
    store.create_scope("a", CONFIG)
    store.begin_delete_scope("a", force=False)
    with refused(Reason.CONFLICT):
        store.begin_delete_scope("a", force=False)


def test_a_scope_being_deleted_takes_no_loads(store: Store) -> None:
    store.create_scope("a", CONFIG)
    version = hosted(store, scope="a", request_id="1")
    store.begin_delete_scope("a", force=True)
    with refused(Reason.CONFLICT):
        store.accept_load(request(scope="a"))
    # A retry asks for nothing new.
    assert store.accept_load(request(scope="a", request_id="1")) == (version, False)


def test_a_deleted_scope_is_forgotten_with_its_numbers(store: Store) -> None:
    store.create_scope("a", CONFIG)
    version = hosted(store, scope="a", version=7)
    scope = store.begin_delete_scope("a", force=True)
    with pytest.raises(AssertionError):
        store.finish_delete_scope(scope)
    bring(store, version, Phase.DRAINING, Phase.FREEING, Phase.UNLOADED)
    store.finish_delete_scope(scope)
    with refused(Reason.SCOPE_NOT_FOUND):
        store.scope("a")
    assert store.create_scope("a", CONFIG)[0] is not scope
    assert hosted(store, scope="a").number == 1


def test_equal_names_in_two_scopes_are_two_models(store: Store) -> None:
    store.create_scope("a", CONFIG)
    first, second = hosted(store, scope="a", version=3), hosted(store)
    assert (first.number, second.number) == (3, 1)
    assert first.key != second.key
    assert sorted(v.scope for v in (store.acquire("a", "m"), store.acquire("", "m"))) == ["a", "default"]
    assert store.scope("a").versions() == [first]


@pytest.mark.parametrize(
    ("config", "threads"),
    [
        (ScopeConfig(intra_op_threads=1, max_in_flight=1), 1),
        (ScopeConfig(intra_op_threads=1, max_in_flight=10_000), len(os.sched_getaffinity(0))),
        (ScopeConfig(intra_op_threads=1, max_in_flight=10_000, has_chosen_threads=True), 1),
    ],
)
def test_a_call_alone_has_the_threads_of_all_unless_somebody_chose(config, threads):
    assert config.alone_threads == threads
