"""Loads and unloads: what is accepted, under which number, and what becomes of labels and older versions."""

from __future__ import annotations

from typing import Any

import pytest
from modelhost_server.errors import Reason
from modelhost_server.store.operations import UnloadRequest
from modelhost_server.store.phases import WANTED, Phase
from modelhost_server.store.records import Loaded, LoadOptions, Version
from modelhost_server.store.store import Store
from test_store_phases import bring, hosted, new_store, refused, request

HIGHEST = 2**63 - 1
GONE = (Phase.DRAINING, Phase.FREEING, Phase.UNLOADED)


@pytest.fixture
def store() -> Store:
    return new_store()


def listed(store: Store) -> list[tuple[str, list[int]]]:
    return [(model.name, sorted(model.versions)) for model in store.models()[0]]


# Accepting


def test_a_new_load_waits_and_is_listed_at_once(store: Store) -> None:
    version, new = store.accept_load(request(source="s", path="p"))
    assert new
    assert (version.number, version.phase, version.source, version.path) == (1, Phase.WAITING, "s", "p")
    assert listed(store) == [("m", [1])]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"scope": "x"}, Reason.SCOPE_NOT_FOUND),
        ({"model": ""}, Reason.INVALID_NAME),
        ({"model": "a/b"}, Reason.INVALID_NAME),
        ({"labels": ("ok", "3")}, Reason.INVALID_NAME),
        ({"version": -1}, Reason.INVALID_REQUEST),
        ({"version": HIGHEST + 1}, Reason.INVALID_REQUEST),
        ({"request_id": "x" * 129}, Reason.INVALID_REQUEST),
    ],
    ids=str,
)
def test_a_refused_load_leaves_no_trace(store: Store, fields: dict[str, Any], reason: Reason) -> None:
    with refused(reason):
        store.accept_load(request(**fields))
    assert listed(store) == []
    assert store.events.revision == 0


def made(version: Version) -> tuple[str, str, int, float]:
    return version.scope, version.model, version.number, version.created


@pytest.mark.parametrize("phase", Phase)
def test_a_retry_by_request_id_gets_the_same_version_in_whatever_phase(store: Store, phase: Phase) -> None:
    version = hosted(store, phase, request_id="id")
    revision = store.events.revision
    again, is_new = store.accept_load(request(request_id="id"))
    assert (made(again), again.phase, is_new) == (made(version), version.phase, False)
    # One that is there is that one.
    assert (again is version) == (phase is not Phase.UNLOADED)
    assert store.events.revision == revision


@pytest.mark.parametrize(
    "change", [{"source": "/other"}, {"version": 1}, {"model": "n"}, {"labels": ("l",)}, {"keep_older": True}], ids=str
)
def test_a_request_id_is_good_for_one_request(store: Store, change: dict[str, Any]) -> None:
    hosted(store, request_id="id")
    with refused(Reason.INVALID_REQUEST) as caught:
        store.accept_load(request(**{"request_id": "id"} | change))
    assert caught.value.field == "request_id"


def test_a_retry_is_known_again_when_its_source_resolves_differently(store: Store) -> None:
    version = hosted(store, request_id="id", path="/models/m/1", found_version=1)
    assert store.accept_load(request(request_id="id", path="/models/m/2", found_version=2)) == (version, False)


@pytest.mark.parametrize("phase", sorted(WANTED, key=lambda phase: phase.name))
def test_the_same_load_of_a_wanted_version_is_not_new(store: Store, phase: Phase) -> None:
    version = hosted(store, phase, version=4)
    revision = store.events.revision
    assert store.accept_load(request(version=4, request_id="later")) == (version, False)
    assert store.accept_load(request(version=4, request_id="later")) == (version, False)
    assert store.events.revision == revision


@pytest.mark.parametrize("change", [{"source": "/other"}, {"options": LoadOptions(engine="tensorflow")}], ids=str)
def test_another_load_of_a_wanted_version_is_refused(store: Store, change: dict[str, Any]) -> None:
    version = hosted(store, version=4)
    with refused(Reason.VERSION_ALREADY_EXISTS) as caught:
        store.accept_load(request(version=4, **change))
    assert caught.value.details["resource"] == "scopes/default/models/m/versions/4"
    assert store.acquire("", "m", 4) is version


@pytest.mark.parametrize("phase", [Phase.DRAINING, Phase.FREEING])
@pytest.mark.parametrize("source", ["/models/m", "/other"])
def test_a_version_on_its_way_out_cannot_be_loaded_yet(store: Store, phase: Phase, source: str) -> None:
    hosted(store, phase, version=4)
    with refused(Reason.VERSION_UNLOADING) as caught:
        store.accept_load(request(version=4, source=source))
    assert caught.value.retry_after


@pytest.mark.parametrize("source", ["/models/m", "/other"])
def test_a_failed_version_is_replaced_by_a_load_of_its_number(store: Store, source: str) -> None:
    failed = hosted(store, Phase.FAILED, version=4)
    version, new = store.accept_load(request(version=4, source=source))
    assert new
    assert version is not failed
    assert version.key != failed.key
    assert (version.number, version.phase, version.error, version.source) == (4, Phase.WAITING, None, source)
    assert listed(store) == [("m", [4])]


def test_freeing_a_replaced_version_leaves_its_replacement_alone(store: Store) -> None:
    failed = hosted(store, Phase.FAILED, version=4)
    version = hosted(store, version=4, labels=("stable",))
    bring(store, failed, Phase.FREEING, Phase.UNLOADED)
    assert store.acquire("", "m", label="stable") is version


# Numbers


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([], 1),
        ([(0, (Phase.LOADING,))], 2),
        ([(0, (Phase.LOADING, Phase.AVAILABLE))], 2),
        ([(7, (Phase.LOADING, Phase.AVAILABLE)), (3, (Phase.LOADING, Phase.AVAILABLE))], 8),
        ([(0, (Phase.FAILED,))], 1),
        ([(0, (Phase.LOADING, Phase.AVAILABLE)), (0, (Phase.FAILED,))], 2),
        ([(0, (Phase.FAILED, Phase.FREEING))], 2),
        ([(5, (Phase.LOADING, Phase.AVAILABLE, Phase.RECOVERING, Phase.FAILED))], 6),
        ([(5, (Phase.LOADING, Phase.AVAILABLE, Phase.DRAINING))], 6),
        ([(5, (Phase.LOADING, Phase.AVAILABLE, *GONE))], 6),
        ([(7, (Phase.LOADING, Phase.AVAILABLE, *GONE)), (3, (Phase.LOADING, Phase.AVAILABLE))], 8),
        ([(5, GONE)], 1),
    ],
    ids=lambda value: "-".join(f"{n}{p[-1].name}" for n, p in value) if isinstance(value, list) else str(value),
)
def test_the_next_number_follows_those_that_were_served_or_may_be(
    store: Store, history: list[tuple[int, tuple[Phase, ...]]], expected: int
) -> None:
    for number, steps in history:
        bring(store, store.accept_load(request(version=number))[0], *steps)
    version, new = store.accept_load(request())
    assert (version.number, new) == (expected, True)


@pytest.mark.parametrize(("asked", "found", "expected"), [(0, 0, 6), (0, 3, 3), (0, 9, 9), (4, 9, 4)])
def test_a_number_found_in_the_source_comes_before_the_next_one(
    store: Store, asked: int, found: int, expected: int
) -> None:
    hosted(store, version=5)
    assert store.accept_load(request(version=asked, found_version=found))[0].number == expected


def test_a_source_that_has_no_new_version_is_not_loaded_again(store: Store) -> None:
    version = hosted(store, found_version=3)
    assert store.accept_load(request(found_version=3)) == (version, False)
    assert store.accept_load(request(found_version=4))[1]


def test_a_number_found_in_the_source_must_be_one_that_can_be_told(store: Store) -> None:
    with refused(Reason.INVALID_REQUEST):
        store.accept_load(request(found_version=HIGHEST + 1))


@pytest.mark.parametrize("steps", [(), (Phase.LOADING, Phase.AVAILABLE, *GONE)], ids=["waiting", "unloaded"])
def test_after_the_highest_number_there_is_no_next(store: Store, steps: tuple[Phase, ...]) -> None:
    bring(store, store.accept_load(request(version=HIGHEST))[0], *steps)
    with refused(Reason.INVALID_REQUEST):
        store.accept_load(request())
    assert store.accept_load(request(version=1))[1]


def test_keys_are_never_used_again(store: Store) -> None:
    keys = [hosted(store, Phase.UNLOADED).key for _ in range(3)]
    assert len({*keys}) == 3


# Unloading


@pytest.mark.parametrize(
    ("phase", "then"),
    [(phase, Phase.DRAINING) for phase in sorted(WANTED, key=lambda phase: phase.name)]
    + [(Phase.FAILED, Phase.FREEING), (Phase.DRAINING, Phase.DRAINING), (Phase.FREEING, Phase.FREEING)],
)
def test_an_unload_begins_wherever_the_version_is(store: Store, phase: Phase, then: Phase) -> None:
    version = hosted(store, phase)
    assert store.begin_unload(UnloadRequest("", "m", version=1)) == ((version,), True)
    assert version.phase is then


def test_an_unload_chooses_by_number_by_label_or_everything(store: Store) -> None:
    one, two, three, four = (hosted(store, labels=(f"l{i}",), keep_older=True) for i in range(4))
    assert store.begin_unload(UnloadRequest("", "m", version=2))[0] == (two,)
    assert store.begin_unload(UnloadRequest("", "m", label="l2"))[0] == (three,)
    assert [v.phase for v in (one, two, three, four)] == [
        Phase.AVAILABLE, Phase.DRAINING, Phase.DRAINING, Phase.AVAILABLE
    ]  # fmt: skip
    assert store.begin_unload(UnloadRequest("", "m", all_versions=True))[0] == (four, three, two, one)
    assert {v.phase for v in (one, two, three, four)} == {Phase.DRAINING}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"scope": "x", "version": 1}, Reason.SCOPE_NOT_FOUND),
        ({"model": "x", "version": 1}, Reason.MODEL_NOT_FOUND),
        ({"model": "a/b", "version": 1}, Reason.INVALID_NAME),
        ({"version": 2}, Reason.VERSION_NOT_FOUND),
        ({"label": "x"}, Reason.LABEL_NOT_FOUND),
        ({"label": "1"}, Reason.INVALID_NAME),
        ({"version": -1}, Reason.INVALID_REQUEST),
        ({}, Reason.INVALID_REQUEST),
        ({"version": 1, "request_id": "x" * 129}, Reason.INVALID_REQUEST),
    ],
    ids=str,
)
def test_a_refused_unload_unloads_nothing(store: Store, fields: dict[str, Any], reason: Reason) -> None:
    version = hosted(store)
    with refused(reason):
        store.begin_unload(UnloadRequest(**{"scope": "", "model": "m"} | fields))
    assert version.phase is Phase.AVAILABLE


def test_a_retried_unload_does_not_unload_what_was_loaded_since(store: Store) -> None:
    unload = UnloadRequest("", "m", all_versions=True, request_id="id")
    first = hosted(store)
    assert store.begin_unload(unload) == ((first,), True)
    bring(store, first, Phase.FREEING, Phase.UNLOADED)
    second = hosted(store)
    (again,), is_new = store.begin_unload(unload)
    assert (made(again), again.phase, is_new) == (made(first), Phase.UNLOADED, False)
    assert second.phase is Phase.AVAILABLE


def test_a_model_goes_with_its_last_version(store: Store) -> None:
    first, second = hosted(store), hosted(store, keep_older=True)
    bring(store, first, *GONE)
    assert listed(store) == [("m", [2])]
    bring(store, second, *GONE)
    assert listed(store) == []
    with refused(Reason.MODEL_NOT_FOUND):
        store.model("", "m")


# Labels


def test_a_label_moves_when_the_version_is_available_and_not_before(store: Store) -> None:
    first = hosted(store, labels=("stable", "blue"))
    second = hosted(store, Phase.LOADING, labels=("stable",))
    assert store.acquire("", "m", label="stable") is first
    bring(store, second, Phase.AVAILABLE)
    assert store.acquire("", "m", label="stable") is second
    assert store.model("", "m").labels == {"stable": 2, "blue": 1}


def test_a_load_that_fails_moves_no_label(store: Store) -> None:
    first = hosted(store, labels=("stable",))
    hosted(store, Phase.FAILED, labels=("stable",))
    assert store.acquire("", "m", label="stable") is first


def test_labels_go_with_their_version(store: Store) -> None:
    first = hosted(store, labels=("old", "older"))
    hosted(store, labels=("new",), keep_older=True)
    bring(store, first, *GONE)
    assert store.model("", "m").labels == {"new": 2}
    with refused(Reason.LABEL_NOT_FOUND):
        store.acquire("", "m", label="old")


def test_a_recovered_version_does_not_take_back_a_label_that_moved_on(store: Store) -> None:
    first = hosted(store, labels=("stable",))
    second = hosted(store, labels=("stable",), keep_older=True)
    bring(store, first, Phase.RECOVERING, Phase.LOADING, Phase.AVAILABLE)
    assert store.acquire("", "m", label="stable") is second


def test_a_repeated_load_puts_its_labels_on_the_version(store: Store) -> None:
    version = hosted(store, version=1)
    assert store.accept_load(request(version=1, labels=("stable",))) == (version, False)
    assert store.model("", "m").labels == {"stable": 1}


# Superseding


@pytest.mark.parametrize(
    ("phase", "goes"),
    [(phase, phase in WANTED or phase is Phase.FAILED) for phase in Phase if phase.name != "UNLOADED"],
)
def test_a_new_version_takes_the_place_of_older_ones_not_yet_going(store: Store, phase: Phase, goes: bool) -> None:
    older = hosted(store, phase, version=1)
    newer = hosted(store, version=2)
    assert store.superseded(newer) == ([older] if goes else [])


def test_newer_labelled_and_other_models_versions_are_not_superseded(store: Store) -> None:
    hosted(store, version=1, labels=("stable",))
    two, four = hosted(store, version=2), hosted(store, version=4)
    hosted(store, model="n", version=1)
    three = hosted(store, version=3)
    assert store.superseded(three) == [two]
    assert store.superseded(four) == [three, two]


def test_a_version_whose_label_moved_on_is_superseded(store: Store) -> None:
    first = hosted(store, labels=("stable",))
    assert store.superseded(hosted(store, labels=("stable",))) == [first]


def test_older_versions_stay_when_asked_to(store: Store) -> None:
    hosted(store)
    assert store.superseded(hosted(store, keep_older=True)) == []


def test_a_load_under_way_that_will_be_labelled_is_not_superseded(store: Store) -> None:
    hosted(store, Phase.LOADING, labels=("stable",))
    assert store.superseded(hosted(store, labels=("canary",))) == []


# What is noted of a load


def test_what_a_worker_said_is_kept(store: Store) -> None:
    version = hosted(store, Phase.LOADING)
    store.set_loaded(version, Loaded("tensorflow", "complete graph", (), (), 10, 0, 20, 30, (0, 0, "")))
    assert version.loaded is not None
    assert version.loaded.private_bytes == 10
    assert version.statistics.load_ns == 30


def test_labels_are_moved_and_taken_off_by_themselves(store: Store) -> None:
    one, two = (hosted(store, version=number, keep_older=True) for number in (1, 2))
    store.labels.add(one, ("stable", "canary"))
    store.labels.add(two, ("canary",))
    labels = store.model("", "m").labels
    assert labels == {"stable": 1, "canary": 2}
    revision = store.events.revision
    store.labels.remove(one, "canary")
    assert (labels, store.events.revision) == ({"stable": 1, "canary": 2}, revision)
    store.labels.remove(one, "stable")
    assert store.events.since(revision)[0].labels == (("canary", 2),)


def test_labels_of_a_request_move_all_or_none(store: Store) -> None:
    hosted(store, version=1, labels=("stable",))
    hosted(store, version=2, keep_older=True)
    hosted(store, Phase.FAILED, version=3)
    model = store.model("", "m")
    store.labels.set(model, {"stable": 2, "canary": 1}, ["nowhere"])
    assert model.labels == {"stable": 2, "canary": 1}
    for labels, removed, reason in (
        ({"stable": 1, "canary": 3}, (), Reason.VERSION_FAILED),
        ({"stable": 1, "canary": 4}, (), Reason.VERSION_NOT_FOUND),
        ({"stable": 1, "2": 1}, (), Reason.INVALID_NAME),
        ({"stable": 1}, ("canary", "stable"), Reason.INVALID_REQUEST),
    ):
        with refused(reason):
            store.labels.set(model, labels, removed)
    assert model.labels == {"stable": 2, "canary": 1}


def test_a_load_under_way_does_not_take_back_labels_that_were_set_since(store: Store) -> None:
    hosted(store, version=1)
    second = hosted(store, Phase.LOADING, version=2, labels=("stable", "canary", "new"), keep_older=True)
    model = store.model("", "m")
    store.labels.set(model, {"stable": 1}, ["canary"])
    store.transition(second, Phase.AVAILABLE)
    assert model.labels == {"stable": 1, "new": 2}


def test_a_load_that_ends_later_does_not_take_a_label_from_one_that_asked_later(store: Store) -> None:
    first = hosted(store, Phase.LOADING, version=1, labels=("stable", "old"), keep_older=True)
    hosted(store, version=2, labels=("stable",), keep_older=True)
    store.transition(first, Phase.AVAILABLE)
    assert store.model("", "m").labels == {"stable": 2, "old": 1}


def test_a_label_moves_at_once_to_a_version_that_is_loaded_again(store: Store) -> None:
    hosted(store, version=1, labels=("stable",))
    second = hosted(store, version=2, keep_older=True)
    store.transition(second, Phase.RECOVERING)
    model = store.model("", "m")
    store.labels.set(model, {"stable": 2}, ())
    assert model.labels == {"stable": 2}
    with refused(Reason.VERSION_LOADING):
        store.acquire("", "m", label="stable")
