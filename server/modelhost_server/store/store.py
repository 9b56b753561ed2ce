"""The store: the server's record of what is hosted. Every change goes through here and becomes an event."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ..errors import ModelhostError, Reason, brief
from .events import DEFAULT_CAPACITY, Event, EventLog
from .labels import Labels, coming_labels
from .names import DEFAULT_SCOPE, MAX_LENGTH, check_label, check_name, scope_resource
from .numbers import check_number, check_same, next_number
from .operations import AskedLoad, LoadRequest, UnloadRequest
from .pages import page
from .phases import SERVED, WANTED, Phase, check_transition
from .records import Candidate, Loaded, LoadOptions, Model, Progress, Scope, ScopeConfig, Tuning, Version
from .requests import Outcome, RequestMemory
from .resolve import find_model, find_version, next_to_serve, not_available, served_version
from .succession import forget, superseded, take_place

# Whether a scope is there for who asks.
Sees = Callable[[str], bool]


def _all(scope: str) -> bool:
    return True


def no_scope(name: str) -> ModelhostError:
    """What is told of a scope that is not there."""
    return ModelhostError(
        Reason.SCOPE_NOT_FOUND,
        f"there is no scope {brief(name)}; create it first (modelhost scope create)",
        resource=scope_resource(name[:MAX_LENGTH]),
    )


class Store:
    """Scopes, models, versions, their phases and handles; `labels` are changed on their own."""

    def __init__(self, event_capacity: int = DEFAULT_CAPACITY, first_revision: int = 0) -> None:
        self.events = EventLog(event_capacity, first_revision)
        self.labels = Labels(self.scope, self._changed)
        self._scopes: dict[str, Scope] = {}
        self._keys = itertools.count(1)
        self.loads: RequestMemory[AskedLoad] = RequestMemory()
        self.unloads: RequestMemory[UnloadRequest] = RequestMemory()
        self._progress_listeners: set[Callable[[Version], None]] = set()

    # Scopes

    def create_scope(self, name: str, config: ScopeConfig, allow_existing: bool = False) -> tuple[Scope, bool]:
        """A new scope, and True; or the one that exists with this configuration, and False.

        Raises:
            ModelhostError: INVALID_NAME, SCOPE_ALREADY_EXISTS.
        """
        check_name("scope", name)
        existing = self._scopes.get(name)
        if existing is not None:
            if allow_existing and existing.config == config and not existing.deleting:
                return existing, False
            how = "with another configuration" if allow_existing else "already"
            if existing.deleting:
                how = "and is being deleted"
            raise ModelhostError(
                Reason.SCOPE_ALREADY_EXISTS, f"scope {brief(name)} exists {how}", resource=scope_resource(name)
            )
        scope = self._scopes[name] = Scope(name, config)
        return scope, True

    def scope(self, name: str) -> Scope:
        """The scope of this name ("default" when empty).

        Raises:
            ModelhostError: SCOPE_NOT_FOUND.
        """
        scope = self._scopes.get(name or DEFAULT_SCOPE)
        if scope is None:
            raise no_scope(name)
        return scope

    def scopes(self, page_size: int = 0, page_token: str = "", sees: Sees = _all) -> tuple[list[Scope], str]:
        """A page of the scopes by name, of those that `sees` says yes to, and the next page's token."""
        names = [(name,) for name in sorted(self._scopes) if sees(name)]
        keys, token = page(names, page_size, page_token, "scopes")
        return [self._scopes[name] for (name,) in keys], token

    def all_scopes(self) -> Sequence[Scope]:
        """Every scope."""
        return list(self._scopes.values())

    def all_versions(self) -> Sequence[Version]:
        """Every version that callers see."""
        models = [model for scope in self._scopes.values() for model in scope.models.values()]
        return [version for model in models for version in model.versions.values()]

    def update_scope(self, name: str, config: ScopeConfig) -> Scope:
        """Changes a scope's configuration."""
        scope = self.scope(name)
        scope.config = config
        return scope

    def begin_delete_scope(self, name: str, force: bool) -> Scope:
        """Closes a scope to new models, before it is deleted.

        Raises:
            ModelhostError: SCOPE_NOT_FOUND, SCOPE_NOT_EMPTY, INVALID_REQUEST, CONFLICT.
        """
        scope = self.scope(name)
        if scope.name == DEFAULT_SCOPE:
            raise ModelhostError(Reason.INVALID_REQUEST, "the scope 'default' cannot be deleted", field="scope")
        if scope.models and not force:
            raise ModelhostError(
                Reason.SCOPE_NOT_EMPTY,
                f"scope {brief(name)} still holds models ({len(scope.models)}); unload them, or delete with force",
                resource=scope_resource(name),
            )
        if scope.deleting:
            raise ModelhostError(Reason.CONFLICT, f"scope {brief(name)} is being deleted by another request")
        scope.deleting = True
        return scope

    def finish_delete_scope(self, scope: Scope) -> None:
        """Forgets a scope that holds no models any more."""
        assert not scope.models, "a scope is deleted after its models"
        del self._scopes[scope.name]

    # Loading and unloading

    def accept_load(self, request: LoadRequest) -> tuple[Version, bool]:
        """Accepts a load: its version, and whether it is new (False for a repeated request).

        Raises:
            ModelhostError: SCOPE_NOT_FOUND, INVALID_NAME, INVALID_REQUEST, VERSION_ALREADY_EXISTS, CONFLICT.
        """
        scope = self.scope(request.scope)
        check_name("model", request.model)
        for label in request.labels:
            check_label(label)
        wanted = request.version or request.found_version
        check_number(wanted)
        asked = request.asked
        outcome = self.loads.recall(asked.memory_id, asked)
        if outcome is not None:
            return self._made(request, outcome)[0], False
        if scope.deleting:
            raise ModelhostError(Reason.CONFLICT, f"scope {brief(scope.name)} is being deleted")
        model = scope.models.get(request.model)
        number = wanted or next_number(scope, request.model)
        existing = model.versions.get(number) if model else None
        is_taken = existing is not None and existing.phase is not Phase.FAILED
        if existing is not None and is_taken and not request.replaces:
            check_same(existing, request)
            self.labels.add(existing, request.labels)
            self.loads.remember(asked.memory_id, asked, _outcome((existing,)))
            return existing, False
        if model is None:
            model = scope.models[request.model] = Model(scope.name, request.model)
        version = Version(
            scope.name, request.model, number, next(self._keys), request.source, request.path, request.options,
            (*request.labels, *coming_labels(scope, request.model, number)), request.keep_older,
            request.samples_file, request.check_loaded, request.description, request.derived_from, request.derivation,
            is_kept=request.is_kept,
        )  # fmt: skip
        if is_taken:
            model.others.append(version)
        else:
            model.versions[number] = version
        self.loads.remember(asked.memory_id, asked, _outcome((version,)))
        self._changed(version, is_seen=not is_taken)
        return version, True

    def begin_unload(self, request: UnloadRequest) -> tuple[tuple[Version, ...], bool]:
        """The versions to unload, now taking no new handles, and whether this is news (False for a repeated request).

        Raises:
            ModelhostError: what `find_unload` raises.
        """
        versions, is_new = self.find_unload(request)
        if is_new:
            for version in versions:
                self.retire(version)
        return versions, is_new

    def _made(self, request: AskedLoad | UnloadRequest, outcome: Outcome) -> tuple[Version, ...]:
        """The versions that a remembered request was about; those that are gone as they were last, UNLOADED."""
        scope = self.scope(request.scope)
        model = scope.models.get(request.model)
        there = (*model.versions.values(), *model.others) if model is not None else ()
        by_making = {(version.number, version.created): version for version in there}
        return tuple(by_making.get(made) or _gone(scope.name, request.model, *made) for made in outcome)

    def find_unload(self, request: UnloadRequest) -> tuple[tuple[Version, ...], bool]:
        """The versions to unload, and whether this is news (False for a repeated request); remembers the request.

        Raises:
            ModelhostError: SCOPE_NOT_FOUND, MODEL_NOT_FOUND, VERSION_NOT_FOUND, LABEL_NOT_FOUND.
        """
        outcome = self.unloads.recall(request.memory_id, request)
        if outcome is not None:
            return self._made(request, outcome), False
        model = find_model(self.scope(request.scope), request.model)
        versions: tuple[Version, ...]
        if request.all_versions:
            versions = (*model.newest_first(), *model.others)
        else:
            found = find_version(model, request.version, request.label)
            versions = (found, *model.others_of(found.number))
        self.unloads.remember(request.memory_id, request, _outcome(versions))
        return versions, True

    def retire(self, version: Version) -> None:
        """Begins to unload a version: it takes no new handles from now on."""
        if version.phase in WANTED:
            self.transition(version, Phase.DRAINING)
        elif version.phase is Phase.FAILED:
            self.transition(version, Phase.FREEING)

    def superseded(self, version: Version) -> list[Version]:
        """The versions that a version takes the place of."""
        return superseded(self.scope(version.scope).models[version.model], version)

    def transition(self, version: Version, phase: Phase, error: ModelhostError | None = None) -> None:
        """Moves a version to another phase; the only place that does.

        Raises:
            IllegalTransitionError: a bug.
        """
        before = version.phase
        check_transition(before, phase)
        version.phase = phase
        # It stays when the version is AVAILABLE again: it says why its last recovery was needed. But why there
        # was no memory for a reload is over with the next one.
        if error is not None or before is Phase.RELOADING:
            version.error = error
        scope = self.scope(version.scope)
        model = scope.models[version.model]
        if phase is Phase.AVAILABLE:
            version.available_since = time.time()
            version.is_restored = False
        elif phase is Phase.EVICTED and before is not Phase.RELOADING:
            version.statistics.eviction_count += 1
        if phase in SERVED:
            take_place(model, version)
            scope.highest[version.model] = max(scope.highest.get(version.model, 0), version.number)
            self.labels.add_wanted(version)
        # While another has its number, callers see that one.
        is_seen = version not in model.others
        if phase is Phase.UNLOADED:
            scope.past.add(version.statistics)
            if version.loaded is not None:
                # Events tell of the version for long; what ran it held examples.
                version.loaded.runners.clear()
            forget(model, version)
            if not model.versions:
                del scope.models[model.name]
        model.serving = served_version(model)
        self._changed(version, is_seen)

    def set_loaded(self, version: Version, loaded: Loaded) -> None:
        """Notes what a worker said of a version it loaded."""
        version.loaded = loaded
        version.statistics.load_ns = loaded.load_ns

    def set_tuning(self, version: Version, tuning: Tuning, candidates: tuple[Candidate, ...]) -> None:
        """Notes where the search for a faster engine stands, and what was tried."""
        version.tuning, version.candidates = tuning, candidates
        if version.phase in WANTED:
            self._changed(version)

    def set_progress(self, version: Version, progress: Progress) -> None:
        """Notes where a load stands. Not an event: progress has no revision."""
        version.progress = progress
        if version in self.scope(version.scope).models[version.model].others:
            return
        for listener in tuple(self._progress_listeners):
            listener(version)

    def listen_to_progress(self, listener: Callable[[Version], None]) -> Callable[[], None]:
        """Calls `listener` with every version whose load makes progress; the answer ends that."""
        self._progress_listeners.add(listener)
        return lambda: self._progress_listeners.discard(listener)

    def _changed(self, version: Version, is_seen: bool = True) -> None:
        version.revision = self.events.revision + is_seen
        model = self.scope(version.scope).models.get(version.model)
        labels = tuple(sorted(model.labels.items())) if model else ()
        then = replace(version, statistics=copy.copy(version.statistics), progress=copy.copy(version.progress))
        tell = self.events.append if is_seen else self.events.tell
        tell(Event(version.revision, then, labels))

    # After a start

    def restore_scope(self, scope: Scope) -> None:
        """Puts a scope where it was."""
        self._scopes[scope.name] = scope

    def restore_version(self, version: Version) -> None:
        """Puts a version where it was."""
        version.key = next(self._keys)
        models = self.scope(version.scope).models
        model = models.setdefault(version.model, Model(version.scope, version.model))
        model.versions[version.number] = version
        model.serving = served_version(model)
        self._changed(version)

    def restore_model(self, scope_name: str, name: str, highest: int, labels: Mapping[str, int]) -> None:
        """Puts labels where they were; those of versions that are not there wait for them."""
        scope = self.scope(scope_name)
        if highest:
            scope.highest[name] = highest
        self.labels.restore(scope, name, labels)

    # Looking up

    def model(self, scope: str, model: str) -> Model:
        """A model.

        Raises:
            ModelhostError: SCOPE_NOT_FOUND, INVALID_NAME, MODEL_NOT_FOUND.
        """
        return find_model(self.scope(scope), model)

    def models(
        self, scope: str = "", page_size: int = 0, page_token: str = "", sees: Sees = _all
    ) -> tuple[list[Model], str]:
        """A page of the models by scope and name, and the next page's token. When `scope` is empty, of all scopes that
        `sees` says yes to.
        """
        scopes = [self.scope(scope)] if scope else [found for name, found in self._scopes.items() if sees(name)]
        keys = sorted((s.name, model) for s in scopes for model in s.models)
        chosen, token = page(keys, page_size, page_token, f"models/{scope}")
        return [self._scopes[s].models[m] for s, m in chosen], token

    def acquire(self, scope: str, model: str, version: int = 0, label: str = "") -> Version:
        """A handle on the version that a prediction asks for; give it back by `version.release()`. It is served, but
        may have to be loaded again (`version.phase` tells), and keeps the handle meanwhile: nobody evicts it between
        its load and its prediction.

        Raises:
            ModelhostError: SCOPE_NOT_FOUND, MODEL_NOT_FOUND, VERSION_NOT_FOUND, LABEL_NOT_FOUND, VERSION_LOADING,
                VERSION_FAILED, VERSION_UNLOADING.
        """
        found = find_model(self.scope(scope), model)
        chosen = found.serving if not (version or label) else find_version(found, version, label)
        if chosen is None or (chosen.phase is not Phase.AVAILABLE and chosen.phase not in SERVED):
            raise not_available(chosen or next_to_serve(found))
        chosen.handles += 1
        return chosen


def _outcome(versions: Sequence[Version]) -> Outcome:
    return tuple((version.number, version.created) for version in versions)


def _gone(scope: str, model: str, number: int, created: float) -> Version:
    return Version(scope, model, number, 0, "", "", LoadOptions(), phase=Phase.UNLOADED, created=created)
