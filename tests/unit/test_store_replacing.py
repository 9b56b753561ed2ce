"""Versions that take the place of others of the same number."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.store.events import Event
from modelhost_server.store.operations import LoadRequest, UnloadRequest
from modelhost_server.store.phases import Phase
from modelhost_server.store.records import LoadOptions, ScopeConfig, Version
from modelhost_server.store.store import Store

LOADED = (Phase.LOADING, Phase.AVAILABLE)
GONE = (Phase.FREEING, Phase.UNLOADED)


@pytest.fixture
def store() -> Store:
    store = Store()
    store.create_scope("default", ScopeConfig())
    return store


def bring(store: Store, version: Version, phases: Iterable[Phase]) -> Version:
    for phase in phases:
        store.transition(version, phase)
    return version


def load(store: Store, source: str, *phases: Phase) -> Version:
    request = LoadRequest("default", "m", 1, source, LoadOptions(), keep_older=True, replaces=True, path=source)
    version, is_new = store.accept_load(request)
    assert is_new
    return bring(store, version, phases)


def logged(store: Store) -> list[tuple[str, str]]:
    return [(event.version.source, event.version.phase.name) for event in store.events.since(0)]


def test_the_old_one_serves_until_the_new_one_does(store: Store) -> None:
    old = load(store, "/a", *LOADED)
    new = load(store, "/b", Phase.LOADING)
    assert store.acquire("", "m") is old
    store.transition(new, Phase.AVAILABLE)
    assert store.acquire("", "m", 1) is new
    assert store.superseded(new) == [old]
    store.retire(old)
    bring(store, old, GONE)
    assert store.scope("").versions() == [new]


def test_where_memory_comes_first_the_old_one_can_go_first(store: Store) -> None:
    old, new = load(store, "/a", *LOADED), load(store, "/b")
    assert store.superseded(new) == [old]


def test_workers_hold_both(store: Store) -> None:
    versions = [load(store, "/a", *LOADED), load(store, "/b", Phase.LOADING)]
    assert store.scope("").versions() == versions
    assert store.all_versions() == versions[:1]


def test_a_replacement_that_fails_leaves_the_old_one(store: Store) -> None:
    old = load(store, "/a", *LOADED)
    new = load(store, "/b", Phase.LOADING, Phase.FAILED)
    store.retire(new)
    bring(store, new, [Phase.UNLOADED])
    assert store.acquire("", "m") is old
    assert store.scope("").versions() == [old]


def test_watchers_see_one_version_of_a_number(store: Store) -> None:
    old = load(store, "/a", *LOADED)
    heard: list[Event] = []
    store.events.listen(heard.append)
    new = load(store, "/b", *LOADED)
    store.retire(old)
    bring(store, old, GONE)
    assert logged(store)[-2:] == [("/a", "AVAILABLE"), ("/b", "AVAILABLE")]
    # Whoever waits for one of them hears of it all the same.
    assert [event.version.phase for event in heard if event.version.key == old.key] == [Phase.DRAINING, *GONE]
    assert [event.version.phase for event in heard if event.version.key == new.key] == [Phase.WAITING, *LOADED]


def test_an_unload_takes_both(store: Store) -> None:
    old, new = load(store, "/a", *LOADED), load(store, "/b", Phase.LOADING)
    assert store.begin_unload(UnloadRequest("", "m", 1)) == ((old, new), True)
    bring(store, old, GONE)
    # What is left of the number is what there is to tell of it.
    assert store.model("", "m").versions == {1: new}
    bring(store, new, GONE)
    with pytest.raises(ModelhostError) as caught:
        store.model("", "m")
    assert caught.value.reason is Reason.MODEL_NOT_FOUND


def test_one_can_be_loaded_while_the_other_drains(store: Store) -> None:
    old = load(store, "/a", *LOADED)
    store.begin_unload(UnloadRequest("", "m", 1))
    new = load(store, "/b", Phase.LOADING)
    bring(store, old, GONE)
    store.transition(new, Phase.AVAILABLE)
    assert store.acquire("", "m") is new


def test_labels_stay_with_the_number(store: Store) -> None:
    old = load(store, "/a", *LOADED)
    store.model("", "m").labels["stable"] = 1
    new = load(store, "/b", *LOADED)
    store.retire(old)
    bring(store, old, GONE)
    assert store.acquire("", "m", label="stable") is new
