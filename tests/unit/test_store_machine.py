"""The store under random sequences of all that hosting does to it, beside a model that is simple enough to trust."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.store.events import Event
from modelhost_server.store.operations import LoadRequest, UnloadRequest
from modelhost_server.store.phases import SERVED, TRANSITIONS, WANTED, Phase
from modelhost_server.store.records import ScopeConfig, Version
from test_store_phases import BROKEN, new_store, refused, request

SCOPES, MODELS, LABELS = ("default", "one", "two"), ("a", "b"), ("canary", "stable")
# What may come next without anybody asking for it.
NEXT = {
    Phase.WAITING: (Phase.LOADING, Phase.FAILED, Phase.EVICTED),
    Phase.LOADING: (Phase.AVAILABLE, Phase.FAILED),
    Phase.AVAILABLE: (Phase.EVICTED,),
    Phase.EVICTED: (Phase.RELOADING,),
    Phase.RELOADING: (Phase.AVAILABLE, Phase.EVICTED, Phase.FAILED),
    Phase.RECOVERING: (Phase.LOADING, Phase.FAILED),
    Phase.DRAINING: (Phase.FREEING,),
    Phase.FREEING: (Phase.UNLOADED,),
}
GOING = (Phase.DRAINING, Phase.FREEING)
# When their worker dies.
LOST = (Phase.LOADING, Phase.AVAILABLE, Phase.RELOADING)
EVENTS_KEPT = 25

Address = tuple[str, str, int]
addresses = st.tuples(st.sampled_from(["default", "default", "one", "two"]), st.sampled_from(MODELS), st.integers(0, 3))
Snapshot = tuple[dict[Address, tuple[int, Phase, str]], dict[tuple[str, str], tuple[tuple[str, int], ...]]]


@dataclass
class Expected:
    """What is known of a version without asking the store."""

    version: Version
    source: str
    labels: tuple[str, ...]
    keep_older: bool
    phase: Phase = Phase.WAITING
    handles: int = 0
    was_available: bool = False

    @property
    def has_been_served(self) -> bool:
        # One that is EVICTED before it was ever loaded is served, but only until its load begins and its worker dies.
        return self.was_available or self.phase in SERVED


class Hosting(RuleBasedStateMachine):
    """Drives a store as hosting does: a version is freed only when its handles are back."""

    def __init__(self) -> None:
        super().__init__()
        self.store = new_store(event_capacity=EVENTS_KEPT)
        self.events: list[Event] = []
        self.store.events.listen(self.events.append)
        self.checked = 0
        self.last_phase: dict[int, Phase] = {}
        self.scopes = {"default": False}
        self.hosted: dict[Address, Expected] = {}
        self.labels: dict[tuple[str, str], dict[str, int]] = {}
        self.highest: dict[tuple[str, str], int] = {}
        self.handles: list[Address] = []
        self.requests: list[tuple[LoadRequest, Version]] = []
        self.request_ids = itertools.count()
        self.watchers: list[tuple[int, Snapshot]] = []

    # The model

    def of(self, scope: str, model: str) -> dict[int, Expected]:
        return {number: e for (s, m, number), e in self.hosted.items() if (s, m) == (scope, model)}

    def within(self, *phases: Phase) -> list[Address]:
        return [address for address, expected in self.hosted.items() if expected.phase in phases]

    def move(self, address: Address, phase: Phase) -> None:
        """Takes a step, in the store and in the model."""
        expected = self.hosted[address]
        self.store.transition(expected.version, phase, BROKEN if phase is Phase.FAILED else None)
        self.moved(address, phase)

    def moved(self, address: Address, phase: Phase) -> None:
        *model, number = address
        key = (model[0], model[1])
        self.hosted[address].phase = phase
        if phase in SERVED:
            self.highest[key] = max(self.highest.get(key, 0), number)
            labels, self.hosted[address].labels = self.hosted[address].labels, ()
            self.labels.setdefault(key, {}).update(dict.fromkeys(labels, number))
            for other in self.of(*key).values():
                if other.version.key < self.hosted[address].version.key:
                    other.labels = tuple(label for label in other.labels if label not in labels)
            self.hosted[address].was_available |= phase is Phase.AVAILABLE
        elif phase is Phase.UNLOADED:
            del self.hosted[address]
            self.labels[key] = {name: n for name, n in self.labels.get(key, {}).items() if n != number}

    def unloading(self, addresses: list[Address], unload: UnloadRequest) -> None:
        versions, new = self.store.begin_unload(unload)
        assert new
        assert list(versions) == [self.hosted[address].version for address in addresses]
        for address in addresses:
            phase = self.hosted[address].phase
            if phase not in GOING:
                self.moved(address, Phase.DRAINING if phase in WANTED else Phase.FREEING)

    def unload_all(self, scope: str, model: str) -> None:
        addresses = [(scope, model, number) for number in sorted(self.of(scope, model), reverse=True)]
        self.unloading(addresses, UnloadRequest(scope, model, all_versions=True))

    def give_back(self, address: Address) -> None:
        self.handles.remove(address)
        self.hosted[address].handles -= 1
        self.hosted[address].version.release()

    def snapshot(self) -> Snapshot:
        versions, labels = {}, {}
        for scope in self.store.all_scopes():
            for version in scope.versions():
                versions[scope.name, version.model, version.number] = (version.key, version.phase, version.source)
            for model in scope.models.values():
                if model.labels:
                    labels[scope.name, model.name] = tuple(sorted(model.labels.items()))
        return versions, labels

    # Loads

    @initialize(wanted=st.lists(st.tuples(addresses, st.booleans()), min_size=2, max_size=6))
    def begin_with_some(self, wanted: list[tuple[Address, bool]]) -> None:
        self.create_scope("one")
        for (scope, model, number), labelled in wanted:
            labels = LABELS if labelled else ()
            self.load((scope, model, number), labels, source="/x", keep_older=True, with_id=False, at_once=True)

    @rule(
        address=addresses, labels=st.sampled_from([(), LABELS[:1], LABELS]), source=st.sampled_from(["/x", "/x", "/y"]),
        keep_older=st.booleans(), with_id=st.booleans(), at_once=st.booleans(),
    )  # fmt: skip
    def load(
        self, address: Address, labels: tuple[str, ...], source: str, keep_older: bool, with_id: bool, at_once: bool
    ) -> None:
        scope, model, number = address
        request_id = f"id{next(self.request_ids)}" if with_id else ""
        load = request(
            model, scope=scope, version=number, source=source, labels=labels, keep_older=keep_older,
            request_id=request_id,
        )  # fmt: skip
        live = [n for n, e in self.of(scope, model).items() if e.phase is not Phase.FAILED]
        chosen = number or max([0, self.highest.get((scope, model), 0), *live]) + 1
        existing = self.hosted.get((scope, model, chosen))
        reason = None
        if scope not in self.scopes:
            reason = Reason.SCOPE_NOT_FOUND
        elif self.scopes[scope]:
            reason = Reason.CONFLICT
        elif existing and existing.phase in GOING:
            reason = Reason.VERSION_UNLOADING
        elif existing and existing.phase is not Phase.FAILED and existing.source != load.source:
            reason = Reason.VERSION_ALREADY_EXISTS
        if reason:
            with refused(reason):
                self.store.accept_load(load)
            return
        version, new = self.store.accept_load(load)
        assert new == (existing is None or existing.phase is Phase.FAILED)
        assert version.number == chosen
        if new:
            self.hosted[scope, model, chosen] = Expected(version, load.source, load.labels, load.keep_older)
            if at_once:
                self.move((scope, model, chosen), Phase.LOADING)
                self.loaded((scope, model, chosen))
        else:
            assert existing is not None
            assert version is existing.version
            if existing.has_been_served:
                self.labels.setdefault((scope, model), {}).update(dict.fromkeys(load.labels, chosen))
            else:
                existing.labels = tuple(dict.fromkeys((*existing.labels, *load.labels)))
        if with_id:
            self.requests.append((load, version))

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def retry_load(self, data: st.DataObject) -> None:
        load, version = data.draw(st.sampled_from(self.requests))
        if load.scope in self.scopes:
            again, is_new = self.store.accept_load(load)
            assert not is_new
            # One that FAILED may have made way for another of its number.
            is_there = any(expected.version is version for expected in self.hosted.values())
            phase = version.phase if is_there else Phase.UNLOADED
            assert (again.number, again.created, again.phase) == (version.number, version.created, phase)
        else:
            with refused(Reason.SCOPE_NOT_FOUND):
                self.store.accept_load(load)

    def possible(self) -> list[tuple[Address, Phase]]:
        """The steps that hosting may take next of itself."""
        return [
            (address, phase)
            for address, expected in self.hosted.items()
            for phase in NEXT.get(expected.phase, ())
            if not (phase in (Phase.FREEING, Phase.EVICTED) and expected.handles)
        ]

    @precondition(lambda self: self.possible())
    @rule(data=st.data())
    def advance(self, data: st.DataObject) -> None:
        address, phase = data.draw(st.sampled_from(self.possible()))
        if phase is Phase.AVAILABLE:
            self.loaded(address)
        else:
            self.move(address, phase)
            if phase is Phase.FAILED:
                # Who waits for it to be loaded again waits no longer.
                for _ in range(self.hosted[address].handles):
                    self.give_back(address)
            self.finish_delete_scopes()

    def loaded(self, address: Address) -> None:
        """A load is done, and older versions go."""
        self.move(address, Phase.AVAILABLE)
        scope, model, number = address
        labelled = self.labels[scope, model].values()
        superseded = [] if self.hosted[address].keep_older else [
            (scope, model, n)
            for n, e in sorted(self.of(scope, model).items(), reverse=True)
            if n < number and n not in labelled and e.phase not in GOING and not (e.labels and e.phase in WANTED)
        ]  # fmt: skip
        found = self.store.superseded(self.hosted[address].version)
        assert found == [self.hosted[older].version for older in superseded]
        for older in superseded:
            self.unloading([older], UnloadRequest(scope, model, version=older[2]))

    # Workers

    @precondition(lambda self: self.within(*LOST))
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        scope, _, _ = data.draw(st.sampled_from(self.within(*LOST)))
        for address in [address for address in self.handles if address[0] == scope]:
            self.give_back(address)
        for address in self.within(*LOST):
            if address[0] == scope:
                self.move(address, Phase.RECOVERING)

    # Unloads

    @precondition(lambda self: self.hosted)
    @rule(data=st.data(), everything=st.booleans())
    def unload(self, data: st.DataObject, everything: bool) -> None:
        scope, model, number = address = data.draw(st.sampled_from(sorted(self.hosted)))
        labels = [label for label, n in self.labels.get((scope, model), {}).items() if n == number]
        if everything:
            self.unload_all(scope, model)
        elif labels:
            self.unloading([address], UnloadRequest(scope, model, label=data.draw(st.sampled_from(labels))))
        else:
            self.unloading([address], UnloadRequest(scope, model, version=number))

    @precondition(lambda self: self.hosted)
    @rule(data=st.data(), removed=st.sets(st.sampled_from(LABELS)))
    def set_labels(self, data: st.DataObject, removed: set[str]) -> None:
        scope, model, _ = data.draw(st.sampled_from(sorted(self.hosted)))
        there = self.of(scope, model)
        placed = {label: data.draw(st.sampled_from(sorted(there))) for label in LABELS if label not in removed}
        unwanted = [there[number].phase for number in placed.values() if there[number].phase not in WANTED]
        if unwanted:
            with refused(Reason.VERSION_FAILED if unwanted[0] is Phase.FAILED else Reason.VERSION_UNLOADING):
                self.store.labels.set(self.store.model(scope, model), placed, removed)
            return
        self.store.labels.set(self.store.model(scope, model), placed, removed)
        now = self.labels.setdefault((scope, model), {})
        for expected in there.values():
            expected.labels = ()
        for label in removed:
            now.pop(label, None)
        for label, number in placed.items():
            if there[number].has_been_served:
                now[label] = number
            else:
                there[number].labels = (*there[number].labels, label)

    # Predictions

    @rule(data=st.data(), address=addresses, named=st.sampled_from(["number", "label", "nothing"]))
    def acquire(self, data: st.DataObject, address: Address, named: str) -> None:
        if served := self.within(*SERVED):
            address = data.draw(st.sampled_from(served) | st.just(address))
        scope, model, choice = address
        self.acquire_choice(scope, model, {"number": choice, "label": LABELS[choice % 2], "nothing": 0}[named])

    def acquire_choice(self, scope: str, model: str, choice: int | str) -> None:
        there = self.of(scope, model)
        served = [n for n, e in there.items() if e.phase in SERVED]
        label = choice if isinstance(choice, str) else ""
        if isinstance(choice, str):
            number = self.labels.get((scope, model), {}).get(choice)
        else:
            number = choice or max(served, default=None)
        wanted = (scope, model, choice if isinstance(choice, int) else 0, label)
        if number not in served:
            with pytest.raises(ModelhostError) as caught:
                self.store.acquire(*wanted)
            assert caught.value.reason in self.reasons(scope, model, number, label)
            return
        version = self.store.acquire(*wanted)
        assert number is not None
        assert version is there[number].version
        assert version.phase in SERVED
        there[number].handles += 1
        self.handles.append((scope, model, number))

    def reasons(self, scope: str, model: str, number: int | None, label: str) -> set[Reason]:
        """Why a prediction may be refused; several when it names no version and there are several."""
        if scope not in self.scopes:
            return {Reason.SCOPE_NOT_FOUND}
        there = self.of(scope, model)
        if not there:
            return {Reason.MODEL_NOT_FOUND}
        if number is None and label:
            return {Reason.LABEL_NOT_FOUND}
        if number is not None and number not in there:
            return {Reason.VERSION_NOT_FOUND}
        phases = {there[number].phase} if number is not None else {expected.phase for expected in there.values()}
        return {
            Reason.VERSION_FAILED if phase is Phase.FAILED
            else Reason.VERSION_UNLOADING if phase in GOING
            else Reason.VERSION_LOADING
            for phase in phases
        }  # fmt: skip

    @precondition(lambda self: self.handles)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.give_back(data.draw(st.sampled_from(self.handles)))

    # Scopes

    @rule(scope=st.sampled_from(SCOPES))
    def create_scope(self, scope: str) -> None:
        if scope in self.scopes:
            with refused(Reason.SCOPE_ALREADY_EXISTS):
                self.store.create_scope(scope, ScopeConfig())
        else:
            assert self.store.create_scope(scope, ScopeConfig())[1]
            self.scopes[scope] = False

    @rule(scope=st.sampled_from(SCOPES[1:]), force=st.booleans())
    def delete_scope(self, scope: str, force: bool) -> None:
        models = sorted({model for s, model, _ in self.hosted if s == scope})
        reason = None
        if scope not in self.scopes:
            reason = Reason.SCOPE_NOT_FOUND
        elif models and not force:
            reason = Reason.SCOPE_NOT_EMPTY
        elif self.scopes[scope]:
            reason = Reason.CONFLICT
        if reason:
            with refused(reason):
                self.store.begin_delete_scope(scope, force)
            return
        self.store.begin_delete_scope(scope, force)
        self.scopes[scope] = True
        for model in models:
            self.unload_all(scope, model)

        self.finish_delete_scopes()

    def finish_delete_scopes(self) -> None:
        """Hosting's deletion ends with the last version."""
        for scope in [s for s, deleting in self.scopes.items() if deleting and all(a[0] != s for a in self.hosted)]:
            self.store.finish_delete_scope(self.store.scope(scope))
            del self.scopes[scope]
            self.highest = {key: number for key, number in self.highest.items() if key[0] != scope}

    # Watchers

    @precondition(lambda self: len(self.watchers) < 3)
    @rule()
    def watch(self) -> None:
        self.watchers.append((self.store.events.revision, self.snapshot()))

    # What always holds

    @invariant()
    def every_acknowledged_load_is_listed(self) -> None:
        listed, token = [], ""
        while True:
            models, token = self.store.models(page_size=2, page_token=token)
            listed += [version for model in models for version in model.versions.values()]
            if not token:
                break
        assert {id(version) for version in listed} == {id(expected.version) for expected in self.hosted.values()}
        assert {scope.name: scope.deleting for scope in self.store.all_scopes()} == self.scopes

    @invariant()
    def phases_and_handles_are_as_expected(self) -> None:
        for expected in self.hosted.values():
            assert expected.version.phase is expected.phase
            assert expected.version.handles == expected.handles

    @invariant()
    def no_handle_outlives_its_version(self) -> None:
        phases = {self.hosted[address].version.phase for address in self.handles}
        assert phases <= SERVED | {Phase.DRAINING}

    @invariant()
    def the_highest_version_that_is_served_is_the_default(self) -> None:
        for model in self.store.models()[0]:
            there = self.of(model.scope, model.name)
            best = max((n for n, e in there.items() if e.phase in SERVED), default=None)
            assert model.serving is (None if best is None else there[best].version)
            assert model.labels == self.labels.get((model.scope, model.name), {})

    @invariant()
    def no_revision_is_missing_and_no_phase_skipped(self) -> None:
        for event in self.events[self.checked :]:
            self.checked += 1
            assert event.revision == event.version.revision == self.checked
            key, phase = event.version.key, event.version.phase
            if key in self.last_phase:
                # A label put on or taken off is news, too.
                relabelled = phase is self.last_phase[key]
                assert relabelled or phase in TRANSITIONS[self.last_phase[key]]
            else:
                assert phase is Phase.WAITING
            self.last_phase[key] = phase
        assert self.store.events.revision == self.checked

    @invariant()
    def whoever_replays_the_events_knows_the_state(self) -> None:
        still_there = []
        for revision, (versions, labels) in self.watchers:
            if self.store.events.revision - revision > EVENTS_KEPT:
                with refused(Reason.REVISION_COMPACTED):
                    self.store.events.since(revision)
                continue
            still_there.append((revision, (versions, labels)))
            assert replayed(versions, labels, self.store.events.since(revision)) == self.snapshot()
        self.watchers = still_there


def replayed(
    versions: dict[Address, tuple[int, Phase, str]],
    labels: dict[tuple[str, str], tuple[tuple[str, int], ...]],
    events: list[Event],
) -> Snapshot:
    """What a watcher that began with this state makes of these events."""
    versions, labels = dict(versions), dict(labels)
    for event in events:
        version = event.version
        address = (version.scope, version.model, version.number)
        if version.phase is Phase.UNLOADED:
            del versions[address]
        else:
            versions[address] = (version.key, version.phase, version.source)
        labels[version.scope, version.model] = event.labels
    return versions, {model: there for model, there in labels.items() if there}


Hosting.TestCase.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
test_the_store_under_random_operations = Hosting.TestCase
