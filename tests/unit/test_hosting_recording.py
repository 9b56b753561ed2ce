"""The journal follows the store: what comes back after a start is what the store said when it was last written."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.hosting.changes import Changes
from modelhost_server.hosting.recording import Recording
from modelhost_server.hosting.restoring import load_restored, restore
from modelhost_server.journal.database import Database
from modelhost_server.journal.journal import Journal
from modelhost_server.samples import Sample
from modelhost_server.store.operations import AskedLoad, LoadRequest, UnloadRequest
from modelhost_server.store.phases import Phase
from modelhost_server.store.records import BatchingOptions, Description, LoadOptions, ScopeConfig, Tuning, Version
from modelhost_server.store.store import Store
from test_store_phases import refused

CONFIG = ScopeConfig(max_queue=7, overrun_grace=1.5)
OPTIONS = LoadOptions(
    tags=("serve",), engine="litert", annotations=(("a", "b"),), pinned=True, tolerance=0.5,
    batching=BatchingOptions("ON", 8, 0.25, (1, 2, 8), True, 5, 2.0),
)  # fmt: skip


@asynccontextmanager
async def recorded(directory: Path) -> AsyncIterator[tuple[Store, Changes]]:
    """A store as the journal of a directory has it, and changes that are written there."""
    journal = Journal(directory)
    store = Store()
    restore(store, journal.read(), ScopeConfig())
    recording = Recording(store, journal)
    recording.start()
    changes = Changes(store, recording)
    try:
        yield store, changes
    finally:
        await changes.close()
        await recording.close()
        journal.close()


async def load(
    store: Store, changes: Changes, *phases: Phase, error: ModelhostError | None = None, **asked: Any
) -> Version:
    request = LoadRequest(**({"scope": "a", "model": "m", "version": 0, "source": "/m", "options": OPTIONS} | asked))
    version, _ = store.accept_load(request)
    assert await changes.keep_load(version, request, None) is None
    for phase in phases:
        store.transition(version, phase, error if phase is Phase.FAILED else None)
    return version


async def unload(store: Store, changes: Changes, model: str, number: int, request_id: str = "") -> None:
    request = UnloadRequest("a", model, number, request_id=request_id)
    versions, _ = store.find_unload(request)
    assert await changes.begin_unload(versions, request) is None


AVAILABLE = (Phase.LOADING, Phase.AVAILABLE)
FAILED = (Phase.LOADING, Phase.FAILED)


def state(store: Store) -> Any:
    """All that must come back."""
    return {
        scope.name: (
            scope.config, scope.created, scope.highest,
            {
                name: (model.labels, {n: _version_state(version) for n, version in model.versions.items()})
                for name, model in scope.models.items()
            },
        )
        for scope in store.all_scopes()
    }  # fmt: skip


def _version_state(version: Version) -> Any:
    gone = version.phase is Phase.FAILED
    error = version.error.to_json() if gone and version.error else None
    return (
        gone, error, version.source, version.options, version.labels_wanted, version.samples_file, version.description,
        version.derived_from, version.derivation, version.created,
    )  # fmt: skip


async def test_all_that_was_accepted_comes_back(tmp_path: Path) -> None:
    description = Description({"x": "FORMAT_NHWC"}, {"y": "labels.txt"}, {"y": [b"cat", b"\xff\xfe"]})
    why = ModelhostError(Reason.SOURCE_INVALID, "no", field="source", retry_after=2.0, have="1")
    async with recorded(tmp_path) as (store, changes):
        scope, _ = store.create_scope("a", CONFIG)
        await changes.keep_scope(scope)
        await load(store, changes, *AVAILABLE, labels=("stable", "canary"))
        await load(store, changes, *FAILED, error=why, model="bad", version=9)
        await load(
            store, changes, labels=("next",), version=5, samples_file="/s", derived_from=1, derivation="prune",
            description=description,
        )  # fmt: skip
        await changes.set_labels(store.model("a", "m"), {"canary": 5, "old": 1}, ["stable"])
        expected = state(store)
    async with recorded(tmp_path) as (store, _):
        assert state(store) == expected
        versions = store.model("a", "m").versions
        assert versions[1].phase is versions[5].phase is Phase.WAITING
        assert store.model("a", "m").labels == {"canary": 1, "old": 1}
        assert versions[5].labels_wanted == ("next", "canary")
        assert store.accept_load(LoadRequest("a", "m", 0, "/m", OPTIONS))[0].number == 6


async def test_what_was_loaded_takes_no_others_place_when_it_is_loaded_again(tmp_path: Path) -> None:
    async with recorded(tmp_path) as (store, changes):
        scope, _ = store.create_scope("a", CONFIG)
        await changes.keep_scope(scope)
        await load(store, changes, *AVAILABLE, version=3)
        await load(store, changes, *AVAILABLE, version=2)
        await load(store, changes, version=4)
    async with recorded(tmp_path) as (store, _):
        versions = store.model("a", "m").versions
        assert store.superseded(versions[3]) == []
        # That one has not been there yet.
        assert store.superseded(versions[4]) == [versions[3], versions[2]]


async def test_what_was_unloaded_or_deleted_does_not_come_back(tmp_path: Path) -> None:
    async with recorded(tmp_path) as (store, changes):
        for name in ("a", "b"):
            scope, _ = store.create_scope(name, CONFIG)
            await changes.keep_scope(scope)
        await load(store, changes, *AVAILABLE, labels=("stable",))
        await load(store, changes, *AVAILABLE, model="n")
        await load(store, changes, *AVAILABLE, scope="b")
        await unload(store, changes, "m", 1)
        await changes.close_scope(store.begin_delete_scope("b", force=True))
    async with recorded(tmp_path) as (store, _):
        assert set(state(store)) == {"a"}
        assert set(store.scope("a").models) == {"n"}
        # Its number is not given again.
        assert store.accept_load(LoadRequest("a", "m", 0, "/m", OPTIONS))[0].number == 2


async def test_a_repeated_request_is_recognised(tmp_path: Path) -> None:
    asked = LoadRequest("a", "m", 0, "/m", OPTIONS, ("stable",), request_id="one")
    async with recorded(tmp_path) as (store, changes):
        scope, _ = store.create_scope("a", CONFIG)
        await changes.keep_scope(scope)
        await load(store, changes, *AVAILABLE, labels=("stable",), request_id="one")
        await load(store, changes, *AVAILABLE, request_id="two")
        await unload(store, changes, "m", 2, request_id="three")
    async with recorded(tmp_path) as (store, changes):
        version, is_new = store.accept_load(asked)
        assert (version, is_new) == (store.model("a", "m").versions[1], False)
        gone, is_new = store.accept_load(LoadRequest("a", "m", 0, "/m", OPTIONS, request_id="two"))
        assert (gone.number, gone.phase, is_new) == (2, Phase.UNLOADED, False)
        (unloaded,), is_new = store.find_unload(UnloadRequest("a", "m", 2, request_id="three"))
        assert (unloaded.number, unloaded.phase, is_new) == (2, Phase.UNLOADED, False)
        with refused(Reason.INVALID_REQUEST):
            store.accept_load(LoadRequest("a", "m", 0, "/other", OPTIONS, request_id="one"))
        # Another version of that number is another one.
        again = await load(store, changes, *AVAILABLE, version=2)
        assert store.accept_load(LoadRequest("a", "m", 0, "/m", OPTIONS, request_id="two"))[0] is not again


def test_what_is_large_is_not_remembered() -> None:
    store = Store()
    store.create_scope("a", CONFIG)
    samples = (Sample("serving_default", {}),)
    store.accept_load(LoadRequest("a", "m", 0, "/m", OPTIONS, request_id="one", samples=samples))
    known = store.loads.get("a/one")
    assert known is not None
    assert known[0] == AskedLoad("a", "m", 0, "/m", OPTIONS, request_id="one")
    assert not hasattr(known[0], "samples")


async def test_directories_ask_again_themselves_but_labels_of_callers_come_back(tmp_path: Path) -> None:
    async with recorded(tmp_path) as (store, changes):
        scope = store.create_scope("a", CONFIG)[0]
        scope.is_kept = False
        one = await load(store, changes, *AVAILABLE, is_kept=False)
        store.labels.add(one, ("theirs",), of_directory=True)
        await load(store, changes, version=2, is_kept=False)
        await changes.set_labels(store.model("a", "m"), {"ours": 1, "coming": 2}, [])
    for _ in range(2):
        async with recorded(tmp_path) as (store, changes):
            assert store.scope("a").config == ScopeConfig()
            assert store.scope("a").models == {}
    async with recorded(tmp_path) as (store, changes):
        await load(store, changes, *AVAILABLE, version=1, is_kept=False)
        assert store.model("a", "m").labels == {"ours": 1}
        await load(store, changes, *AVAILABLE, version=2, is_kept=False)
        assert store.model("a", "m").labels == {"ours": 1, "coming": 2}
        await changes.set_labels(store.model("a", "m"), {}, ["ours"])
    async with recorded(tmp_path) as (store, changes):
        await load(store, changes, *AVAILABLE, version=1, is_kept=False)
        assert store.model("a", "m").labels == {}


async def test_what_fails_at_a_start_is_tried_again_at_the_next(tmp_path: Path) -> None:
    async with recorded(tmp_path) as (store, changes):
        await changes.keep_scope(store.create_scope("a", CONFIG)[0])
        await load(store, changes, *AVAILABLE)
    async with recorded(tmp_path) as (store, changes):
        version = store.model("a", "m").versions[1]
        store.transition(version, Phase.FAILED, ModelhostError(Reason.SOURCE_NOT_FOUND, "gone"))
    async with recorded(tmp_path) as (store, changes):
        version = store.model("a", "m").versions[1]
        for phase in AVAILABLE:
            store.transition(version, phase)
        store.transition(version, Phase.RECOVERING)
        store.transition(version, Phase.FAILED, ModelhostError(Reason.VERSION_FAILED, "quarantined"))
    async with recorded(tmp_path) as (store, changes):
        assert store.model("a", "m").versions[1].phase is Phase.FAILED


async def test_what_was_used_last_is_loaded_first(tmp_path: Path) -> None:
    async with recorded(tmp_path) as (store, changes):
        await changes.keep_scope(store.create_scope("a", CONFIG)[0])
        for name, used in (("never", 0.0), ("first", 1.0), ("last", 3.0), ("then", 2.0)):
            (await load(store, changes, *AVAILABLE, model=name)).statistics.last_used = used
    order: list[str] = []

    async def note(version: Version) -> None:
        order.append(version.model)

    async with recorded(tmp_path) as (store, changes):
        await load_restored(store.all_versions(), note)
    assert order == ["last", "then", "first", "never"]


# Writing


async def test_many_changes_are_one_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with recorded(tmp_path) as (store, changes):
        await changes.keep_scope(store.create_scope("a", CONFIG)[0])
        writes = counted(monkeypatch)
        await asyncio.gather(*(load(store, changes, model=f"m{n}") for n in range(50)))
        # What came while the first was written went together.
        assert len(writes) <= 2
        assert sum(writes) == 50
        # Nothing that is kept has changed.
        store.transition(store.model("a", "m1").versions[1], Phase.LOADING)
        await load(store, changes, model="directory", is_kept=False)
        await changes.keep_scope(store.scope("a"))
        assert len(writes) <= 2


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each write has."""
    writes: list[int] = []
    write = Database.write

    def counting(database: Database, changes: Any, revision: int) -> None:
        writes.append(len(changes))
        write(database, changes, revision)

    monkeypatch.setattr(Database, "write", counting)
    return writes


async def test_what_cannot_be_written_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with recorded(tmp_path) as (store, changes):
        await changes.keep_scope(store.create_scope("a", CONFIG)[0])
        version = await load(store, changes, *AVAILABLE, labels=("stable",))
        await load(store, changes, *AVAILABLE, version=2)
        await load(store, changes, version=3, labels=("new", "next"))
        before = state(store)
        with monkeypatch.context() as patch:
            patch.setattr(Database, "write", cannot_write)
            model, scope = store.model("a", "m"), store.scope("a")
            asked = LoadRequest("a", "m", 1, "/m", OPTIONS, ("more",), request_id="load")
            labels = store.labels.before(model)
            store.accept_load(asked)
            unload_asked = UnloadRequest("a", "m", 1, request_id="unload")
            versions, _ = store.find_unload(unload_asked)
            for error in (
                await changes.keep_load(version, asked, labels),
                await changes.begin_unload(versions, unload_asked),
                await changes.set_labels(model, {"stable": 2, "new": 1}, []),
                await changes.configure_scope(scope, ScopeConfig(max_queue=8)),
                await changes.close_scope(store.begin_delete_scope("a", force=True)),
                await changes.set_setting("name", "value"),
            ):
                assert error is not None
                assert (error.reason, error.retry_after) == (Reason.STORAGE_FAILED, 1.0)
            assert state(store) == before
            assert version.phase is Phase.AVAILABLE
        # Nothing of it is remembered.
        assert store.find_unload(unload_asked)[1]
        await changes.set_labels(store.model("a", "m"), {"stable": 2}, [])
        expected = state(store)
    async with recorded(tmp_path) as (store, _):
        assert state(store) == expected


async def test_a_request_that_was_carried_out_is_remembered_though_nothing_can_be_written_when_it_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with recorded(tmp_path) as (store, changes):
        await changes.keep_scope(store.create_scope("a", CONFIG)[0])
        version = await load(store, changes, *AVAILABLE, request_id="load")
        await load(store, changes, *AVAILABLE, version=2)
        await unload(store, changes, "m", 2, request_id="unload")
        asked, unload_asked = LoadRequest("a", "m", 0, "/m", OPTIONS, request_id="load"), UnloadRequest("a", "m", 2)
        with monkeypatch.context() as patch:
            patch.setattr(Database, "write", cannot_write)
            store.set_tuning(version, Tuning.DONE, ())
            store.labels.add(version, ("of somebody else",))
            before = store.labels.before(store.model("a", "m"))
            assert store.accept_load(asked) == (version, False)
            assert await changes.keep_load(version, asked, before) is None
            again = replace(unload_asked, request_id="unload")
            versions, is_new = store.find_unload(again)
            assert await changes.begin_unload(versions, again) is None
        assert store.accept_load(asked) == (version, False)
        assert not is_new
        assert not store.find_unload(again)[1]


async def test_a_request_is_never_on_the_disk_without_what_it_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[dict[Any, Any]] = []
    write = Database.write

    def noting(database: Database, rows: Any, revision: int) -> None:
        written.append(rows)
        write(database, rows, revision)

    async with recorded(tmp_path) as (store, changes):
        await changes.keep_scope(store.create_scope("a", CONFIG)[0])
        monkeypatch.setattr(Database, "write", noting)
        asked = LoadRequest("a", "m", 1, "/m", OPTIONS, request_id="load")
        version, _ = store.accept_load(asked)
        loading = changes.keep_load(version, asked, None)
        # A task may begin later than the thread that writes.
        await asyncio.sleep(0.05)
        assert await loading is None
        unload_asked = UnloadRequest("a", "m", 1, request_id="unload")
        versions, _ = store.find_unload(unload_asked)
        leaving = changes.begin_unload(versions, unload_asked)
        await asyncio.sleep(0.05)
        assert await leaving is None
    with_requests = [rows for rows in written if any(key[0] == "requests" for key in rows)]
    assert [rows["versions", "a", "m", 1] is None for rows in with_requests] == [False, True]


async def test_what_was_built_on_a_change_that_is_undone_is_undone_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with recorded(tmp_path) as (store, changes):
        await changes.keep_scope(store.create_scope("a", CONFIG)[0])
        first = await load(store, changes, *AVAILABLE, labels=("stable",))
        for number in (2, 3):
            await load(store, changes, *AVAILABLE, version=number)
        model = store.model("a", "m")
        with monkeypatch.context() as patch:
            patch.setattr(Database, "write", lambda *_: time.sleep(0.1) or cannot_write())
            waiting = []
            for number in (2, 3):
                asked = LoadRequest("a", "m", number, "/m", OPTIONS, ("stable",), request_id=str(number))
                before = store.labels.before(model)
                version, _ = store.accept_load(asked)
                waiting.append(asyncio.create_task(changes.keep_load(version, asked, before)))
                # The second comes while the first is being written.
                await asyncio.sleep(0.02)
            assert all(error is not None for error in await asyncio.gather(*waiting))
        assert model.labels == {"stable": first.number}


async def test_what_cannot_be_written_down_stops_nobody_else(tmp_path: Path) -> None:
    async with recorded(tmp_path) as (store, changes):
        await changes.keep_scope(store.create_scope("a", CONFIG)[0])
        asked = LoadRequest("a", "odd", 1, "/\ud800", OPTIONS)
        version, _ = store.accept_load(asked)
        error = await changes.keep_load(version, asked, None)
        assert error is not None
        assert error.reason is Reason.STORAGE_FAILED
        for phase in (Phase.DRAINING, Phase.FREEING, Phase.UNLOADED):
            store.transition(version, phase)
        await load(store, changes)
        expected = state(store)
    async with recorded(tmp_path) as (store, _):
        assert state(store) == expected


async def test_requests_that_are_forgotten_leave_nothing(tmp_path: Path) -> None:
    async with recorded(tmp_path) as (store, changes):
        await changes.keep_scope(store.create_scope("a", CONFIG)[0])
        version = await load(store, changes, *AVAILABLE)
        groups = len(changes._recording._written)
        for number in range(20):
            await load(store, changes, version=1, request_id=str(number))
            store.loads.forget(f"a/{number}")
            await load(store, changes, version=1)
        assert len(changes._recording._written) == groups
        assert store.model("a", "m").versions == {1: version}


def cannot_write(*arguments: Any) -> None:
    raise sqlite3.OperationalError("database or disk is full")


# Whatever is done


NAMES = st.sampled_from(["m", "n"])
NUMBERS = st.integers(1, 3)
ACTIONS = st.one_of(
    st.tuples(st.just("load"), NAMES, NUMBERS, st.sampled_from([(), AVAILABLE, FAILED])),
    st.tuples(st.just("unload"), NAMES, NUMBERS, st.none()),
    st.tuples(st.just("label"), NAMES, NUMBERS, st.sampled_from(["stable", "canary"])),
    st.tuples(st.just("config"), st.none(), NUMBERS, st.none()),
    st.tuples(st.just("restart"), st.none(), st.none(), st.none()),
)


@settings(max_examples=12, deadline=None)
@given(st.lists(ACTIONS, max_size=12))
def test_the_journal_says_what_the_store_says(tmp_path_factory: pytest.TempPathFactory, actions: list[Any]) -> None:
    asyncio.run(_follow(tmp_path_factory.mktemp("data"), actions))


async def _follow(directory: Path, actions: list[Any]) -> None:
    async with recorded(directory) as (store, changes):
        await changes.keep_scope(store.create_scope("a", CONFIG)[0])
    expected = None
    while actions:
        async with recorded(directory) as (store, changes):
            assert expected is None or state(store) == expected
            while actions and (action := actions.pop(0))[0] != "restart":
                # What is not there cannot be unloaded, for one.
                with suppress(ModelhostError):
                    await _act(store, changes, *action)
            expected = state(store)
    async with recorded(directory) as (store, _):
        assert expected is None or state(store) == expected


async def _act(store: Store, changes: Changes, kind: str, model: str, number: int, what: Any) -> None:
    match kind:
        case "load":
            error = ModelhostError(Reason.SOURCE_INVALID, "no")
            if number not in getattr(store.scope("a").models.get(model), "versions", {}):
                await load(store, changes, *what, model=model, version=number, error=error)
        case "unload":
            await unload(store, changes, model, number)
            for version in store.scope("a").versions():
                if version.phase in (Phase.DRAINING, Phase.FREEING):
                    for phase in (Phase.FREEING, Phase.UNLOADED)[version.phase is Phase.FREEING :]:
                        store.transition(version, phase)
        case "label":
            await changes.set_labels(store.model("a", model), {what: number}, [])
        case "config":
            await changes.configure_scope(store.scope("a"), ScopeConfig(max_queue=number))
