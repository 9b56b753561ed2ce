"""Handles: which version a prediction gets, and what it is told when it gets none."""

from __future__ import annotations

from typing import Any

import pytest
from modelhost_server.errors import Code, Reason
from modelhost_server.store.phases import Phase
from modelhost_server.store.store import Store
from test_store_phases import BROKEN, bring, hosted, new_store, refused


@pytest.fixture
def store() -> Store:
    return new_store()


def test_a_prediction_gets_the_highest_available_version_unless_it_names_one(store: Store) -> None:
    first = hosted(store, version=1, labels=("old",))
    third = hosted(store, version=3, keep_older=True)
    second = hosted(store, version=2, keep_older=True)
    hosted(store, Phase.LOADING, version=4)
    assert store.acquire("", "m") is third
    assert store.acquire("", "m", version=2) is second
    assert store.acquire("", "m", label="old") is first


@pytest.mark.parametrize("step", [Phase.DRAINING, Phase.RECOVERING])
def test_an_older_version_serves_when_the_newest_cannot(store: Store, step: Phase) -> None:
    first, second = hosted(store), hosted(store, keep_older=True)
    bring(store, second, step)
    assert store.acquire("", "m") is first
    assert store.model("", "m").serving is first


def test_handles_are_counted_and_the_last_one_back_is_told(store: Store) -> None:
    idle = []
    version = hosted(store)
    version.on_idle = lambda: idle.append(version.handles)
    handles = [store.acquire("", "m") for _ in range(3)]
    assert version.handles == 3
    for handle in handles:
        assert idle == []
        handle.release()
    assert idle == [0]
    assert version.handles == 0


def test_a_draining_version_keeps_its_handles_and_gives_no_more(store: Store) -> None:
    version = store.acquire("", hosted(store).model)
    bring(store, version, Phase.DRAINING)
    with refused(Reason.VERSION_UNLOADING):
        store.acquire("", "m")
    assert version.handles == 1


@pytest.mark.parametrize("choice", [{}, {"version": 1}, {"label": "stable"}], ids=str)
@pytest.mark.parametrize(
    ("steps", "reason", "code", "says"),
    [
        ((Phase.RECOVERING,), Reason.VERSION_LOADING, Code.UNAVAILABLE, "its worker died"),
        ((Phase.RECOVERING, Phase.LOADING), Reason.VERSION_LOADING, Code.UNAVAILABLE, "still loading"),
        ((Phase.RECOVERING, Phase.FAILED), Reason.VERSION_FAILED, Code.FAILED_PRECONDITION, BROKEN.message),
        ((Phase.DRAINING,), Reason.VERSION_UNLOADING, Code.FAILED_PRECONDITION, "being unloaded"),
        ((Phase.DRAINING, Phase.FREEING), Reason.VERSION_UNLOADING, Code.FAILED_PRECONDITION, "being unloaded"),
    ],
    ids=["recovering", "loading", "failed", "draining", "freeing"],
)
def test_a_version_that_is_not_available_says_why(
    store: Store, choice: dict[str, Any], steps: tuple[Phase, ...], reason: Reason, code: Code, says: str
) -> None:
    version = bring(store, hosted(store, labels=("stable",)), *steps)
    with refused(reason) as caught:
        store.acquire("", "m", **choice)
    assert caught.value.reason.code is code
    assert says in caught.value.message
    assert caught.value.details["resource"] == "scopes/default/models/m/versions/1"
    assert bool(caught.value.retry_after) == (code is Code.UNAVAILABLE)
    assert ("recovering" in caught.value.details) == (reason is Reason.VERSION_LOADING)
    assert version.handles == 0


def test_a_version_that_waits_is_still_loading(store: Store) -> None:
    hosted(store, Phase.WAITING)
    with refused(Reason.VERSION_LOADING) as caught:
        store.acquire("", "m")
    assert "recovering" not in caught.value.details


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        (("x", "m"), Reason.SCOPE_NOT_FOUND),
        (("", "x"), Reason.MODEL_NOT_FOUND),
        (("", ""), Reason.INVALID_NAME),
        (("", "../m"), Reason.INVALID_NAME),
        (("", "m", 2), Reason.VERSION_NOT_FOUND),
        (("", "m", -1), Reason.INVALID_REQUEST),
        (("", "m", 0, "x"), Reason.LABEL_NOT_FOUND),
        (("", "m", 0, "1"), Reason.INVALID_NAME),
        (("", "m", 0, "a/b"), Reason.INVALID_NAME),
    ],
    ids=str,
)
def test_what_is_not_there_is_not_acquired(store: Store, choice: tuple[Any, ...], reason: Reason) -> None:
    version = hosted(store, labels=("stable",))
    with refused(reason):
        store.acquire(*choice)
    assert version.handles == 0


def test_a_missing_version_or_label_is_told_what_there_is(store: Store) -> None:
    hosted(store, version=3, labels=("stable",))
    hosted(store, version=12, labels=("canary",))
    with refused(Reason.VERSION_NOT_FOUND) as caught:
        store.acquire("", "m", 4)
    assert caught.value.message.endswith("it has: 3, 12")
    with refused(Reason.LABEL_NOT_FOUND) as caught:
        store.acquire("", "m", label="stabel")
    assert caught.value.message.endswith("it has: canary, stable")


def test_a_message_does_not_list_hundreds_of_versions(store: Store) -> None:
    for _ in range(300):
        hosted(store, keep_older=True)
    with refused(Reason.VERSION_NOT_FOUND) as caught:
        store.acquire("", "m", 301)
    assert len(caught.value.message) < 300


def test_a_message_does_not_list_hundreds_of_labels(store: Store) -> None:
    hosted(store, labels=tuple(f"{'l' * 100}{i}" for i in range(300)))
    with refused(Reason.LABEL_NOT_FOUND) as caught:
        store.acquire("", "m", label="x")
    assert len(caught.value.message) < 3000


@pytest.mark.parametrize("newest", [Phase.FAILED, Phase.DRAINING])
def test_a_caller_is_told_to_try_again_while_an_older_version_recovers(store: Store, newest: Phase) -> None:
    first = hosted(store)
    hosted(store, newest, keep_older=True)
    assert store.acquire("", "m") is first
    bring(store, first, Phase.RECOVERING)
    with refused(Reason.VERSION_LOADING):
        store.acquire("", "m")


def test_a_handle_given_back_twice_is_noticed(store: Store) -> None:
    version = store.acquire("", hosted(store).model)
    version.release()
    with pytest.raises(AssertionError):
        version.release()
