"""The log of changes: revisions without gaps, snapshots that stay, and an honest answer when it is too late."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelhost_server.errors import Reason
from modelhost_server.store.events import Event, EventLog
from modelhost_server.store.operations import UnloadRequest
from modelhost_server.store.phases import Phase
from modelhost_server.store.records import Loaded, Progress, Version
from modelhost_server.store.store import Store
from test_store_phases import WAY, bring, hosted, new_store, refused, request


@pytest.fixture
def store() -> Store:
    return new_store()


def test_every_change_is_one_event_and_one_revision(store: Store) -> None:
    version = hosted(store, Phase.UNLOADED)
    events = store.events.since(0)
    assert [event.revision for event in events] == [1, 2, 3, 4, 5, 6]
    assert [event.version.phase for event in events] == [Phase.WAITING, *WAY[Phase.UNLOADED]]
    assert version.revision == store.events.revision == 6


def test_revisions_are_counted_over_all_models(store: Store) -> None:
    versions = [hosted(store, Phase.WAITING, model) for model in "abc"]
    bring(store, versions[0], Phase.LOADING)
    assert [version.revision for version in versions] == [4, 2, 3]


def test_an_event_keeps_what_was_then(store: Store) -> None:
    version = hosted(store, labels=("stable",))
    hosted(store, labels=("stable", "new"))
    bring(store, version, Phase.DRAINING, Phase.FREEING, Phase.UNLOADED)
    first = [event for event in store.events.since(0) if event.version.number == 1]
    assert [event.version.phase for event in first][2:] == [
        Phase.AVAILABLE, Phase.DRAINING, Phase.FREEING, Phase.UNLOADED
    ]  # fmt: skip
    assert [event.labels for event in first[1:]] == [(), (("stable", 1),), *[(("new", 2), ("stable", 2))] * 3]


def test_an_event_keeps_the_statistics_of_then(store: Store) -> None:
    version = hosted(store, Phase.LOADING)
    store.set_loaded(version, Loaded("tensorflow", "", (), (), 0, 0, 0, 30, (0, 0, "")))
    version.statistics.success_count += 1
    (event,) = store.events.since(1)
    assert (event.version.statistics.load_ns, event.version.statistics.success_count) == (0, 0)


def test_what_changes_nothing_is_no_event(store: Store) -> None:
    hosted(store, Phase.DRAINING, request_id="id")
    revision = store.events.revision
    store.accept_load(request(request_id="id"))
    store.begin_unload(UnloadRequest("", "m", all_versions=True))
    with refused(Reason.VERSION_UNLOADING):
        store.acquire("", "m")
    with refused(Reason.VERSION_UNLOADING):
        store.accept_load(request(version=1))
    assert store.events.revision == revision


def an_event(revision: int) -> Event:
    version = Version("default", "m", 1, 1, "", "", request().options, revision=revision)
    return Event(revision, version, ())


@given(st.integers(1, 20), st.integers(0, 40), st.integers(-5, 45), st.sampled_from([0, 1_790_000_000_000]))
def test_a_reader_gets_all_it_missed_or_is_told_that_it_cannot(
    capacity: int, count: int, seen: int, first: int
) -> None:
    log = EventLog(capacity, first)
    for revision in range(first + 1, first + count + 1):
        log.append(an_event(revision))
    newest, oldest = first + count, first + max(0, count - capacity)
    if oldest <= first + seen <= newest:
        assert [event.revision for event in log.since(first + seen)] == [*range(first + seen + 1, newest + 1)]
        return
    with refused(Reason.REVISION_COMPACTED) as caught:
        log.since(first + seen)
    assert caught.value.field == "from_revision"
    assert caught.value.details == {"oldest_revision": str(oldest)}
    assert [event.revision for event in log.since(oldest)] == [*range(oldest + 1, newest + 1)]


def test_another_servers_revision_is_not_taken_for_ones_own() -> None:
    store = new_store(first_revision=1000)
    version = hosted(store)
    assert (version.revision, store.events.revision) == (1003, 1003)
    for revision in (999, 1004):
        with refused(Reason.REVISION_COMPACTED):
            store.events.since(revision)


def test_a_stores_log_is_as_long_as_it_is_told() -> None:
    store = new_store(event_capacity=2)
    hosted(store)
    assert [event.version.phase for event in store.events.since(1)] == [Phase.LOADING, Phase.AVAILABLE]
    with refused(Reason.REVISION_COMPACTED):
        store.events.since(0)


def test_listeners_hear_every_event_until_they_stop(store: Store) -> None:
    first: list[int] = []
    second: list[int] = []
    stop = store.events.listen(lambda event: first.append(event.revision))
    store.events.listen(lambda event: second.append(event.revision))
    version = hosted(store, Phase.LOADING)
    stop()
    stop()
    bring(store, version, Phase.AVAILABLE)
    assert (first, second) == ([1, 2], [1, 2, 3])


def test_a_listener_may_stop_while_it_is_told(store: Store) -> None:
    heard: list[int] = []

    def once(event: Event) -> None:
        heard.append(event.revision)
        stop()

    stop = store.events.listen(once)
    hosted(store)
    assert heard == [1]


def test_a_listener_sees_the_log_as_far_as_its_event(store: Store) -> None:
    def check(event: Event) -> None:
        assert store.events.since(event.revision - 1) == [event]

    store.events.listen(check)
    hosted(store, Phase.UNLOADED)


def test_progress_is_told_but_is_no_event(store: Store) -> None:
    told = []
    stop = store.listen_to_progress(lambda version: told.append((version.number, version.progress.done)))
    version = hosted(store, Phase.LOADING)
    revision = store.events.revision
    store.set_progress(version, Progress("reading", 5, 10))
    stop()
    store.set_progress(version, Progress("reading", 10, 10))
    assert told == [(1, 5)]
    assert store.events.revision == revision
    assert store.events.since(0)[-1].version.progress.done == 0
