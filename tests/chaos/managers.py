"""Changes of what is hosted: each model has one thread that changes it, so that its oracle knows what to expect."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import modelhost
import numpy as np
from support.telling import stamp, teller

from .judge import Judge, Outcome
from .oracle import CANARY, STABLE, History, Model, Source
from .server import ServerUnderTest

TIMEOUT = 30.0
# A converter has to import TensorFlow, and does all it does in idle time.
CONVERTING_TIMEOUT = 120.0
# All that was acknowledged must be there and answer again after so long.
RECOVERY = 120.0
_POLL = 0.1
_GOING = ("UNLOADING", "UNLOADED")


class ModelManager:
    """Loads, labels and unloads versions of one model, and finds out what became of what was not acknowledged."""

    def __init__(
        self, model: Model, server: ServerUnderTest, judge: Judge, sources: Path, seed: int, engine: str | None = None,
        is_large: bool = False,
    ) -> None:  # fmt: skip
        self.model = model
        self._server = server
        self._judge = judge
        self._sources = sources
        self._random = random.Random(seed)
        self._engine = engine
        self._is_large = is_large
        self._client = modelhost.Client(server.address)
        self._next = 1
        self._starts = server.starts
        self._timeout = TIMEOUT if engine in (None, "tensorflow") else CONVERTING_TIMEOUT

    def run(self, is_over: Callable[[], bool]) -> None:
        """Changes the model until it is over."""
        while not is_over():
            self.follow_server()
            self.change()
            time.sleep(self._random.uniform(0, 10 if self._is_large else 0.4))

    def close(self) -> None:
        """Hangs up."""
        self._client.close()

    def follow_server(self) -> None:
        """After a start of the server: finds out whether all is there, and waits until it answers."""
        starts, began = self._server.starts, time.monotonic()
        if starts != self._starts:
            self._starts = starts
            self.settle()
            self.check_answers()
            self._judge.recovered("server ready -> a model's versions all answer", time.monotonic() - began)

    def change(self) -> None:
        """One change, at random."""
        if self.model.stable() is None:
            self.load(labels=[STABLE])
            return
        changes = [self.swap, self.replace, self.canary, self.unload_one]
        self._random.choices(changes, weights=[4, 2, 2, 2])[0]()

    # Changes

    def swap(self) -> None:
        """A new version, the label on it, the old one away: each by itself."""
        old = self.model.stable()
        new = self.load()
        if new is None or old is None or not self.set_labels({STABLE: new}):
            return
        self.unload(old)

    def replace(self) -> None:
        """A new version takes the place of those before it."""
        self.load(labels=[STABLE], keep_older=False)

    def canary(self) -> None:
        """A label comes and goes."""
        on = self._random.choice([None, *self.model.live])
        self.set_labels({CANARY: on})

    def unload_one(self) -> None:
        """A version that has not the label goes."""
        others = [version for version in self.model.live if version != self.model.stable()]
        if others:
            self.unload(self._random.choice(others))

    def load(self, labels: list[str] | None = None, keep_older: bool = True) -> int | None:
        """The next version; its number when that was acknowledged."""
        version, self._next = self._next, self._next + 1
        model = self.model
        path = stamp(
            self._sources / f"{model.number}-{version}", model.number, version, "large" if self._is_large else "small"
        )
        can_upload = hasattr(self._client, "upload") and not self._is_large
        is_uploaded = can_upload and self._random.random() < 0.3
        source = Source(path, self._engine, self._is_large, is_uploaded, tuple(labels or ()), not keep_older)
        self._may_come(version, source)
        kind = "upload and load" if source.is_uploaded else "load"
        outcome = self._attempt(
            kind, version, lambda: self._load(version, source, source.labels, keep_older), self._timeout
        )
        if outcome.code:
            self.settle()
            return None
        del model.maybe[version]
        model.live[version] = source
        for label in source.labels:
            model.labels[label].confirm(version)
        if source.replaces:
            # Those that carry a label are still there.
            self.settle()
        return version

    def _may_come(self, version: int, source: Source) -> None:
        """From now on a version may be there, with what its load was asked for."""
        model = self.model
        model.maybe[version] = source
        if source.replaces:
            model.maybe.update({number: old for number, old in model.live.items() if number < version})
        for label in source.labels:
            model.labels[label].attempt(version)

    def _load(self, version: int, source: Source, labels: Sequence[str], keep_older: bool) -> None:
        upload = {"upload": True} if source.is_uploaded else {}
        self._client.load(
            self.model.full_name, source.path, version=version, labels=labels, keep_older=keep_older,
            engine=source.engine, evictable=source.evictable, timeout=self._timeout, **upload,  # type: ignore[arg-type]
        )  # fmt: skip

    def set_labels(self, changes: dict[str, int | None]) -> bool:
        """Puts labels on versions, and takes off those that are None; whether that was acknowledged."""
        for label, version in changes.items():
            self.model.labels[label].attempt(version)
        placed = {label: version for label, version in changes.items() if version is not None}
        remove = [label for label, version in changes.items() if version is None]
        outcome = self._attempt(
            "set labels", str(changes),
            lambda: self._client.set_labels(self.model.full_name, placed, remove=remove, timeout=TIMEOUT),
        )  # fmt: skip
        if outcome.code:
            self.settle()
            return False
        for label, version in changes.items():
            self.model.labels[label].confirm(version)
        return True

    def unload(self, version: int) -> None:
        """A version goes, and its labels with it."""
        model = self.model
        model.maybe[version] = model.live[version]
        carried = [label for label, history in model.labels.items() if version in history.since(history.certain)]
        for label in carried:
            model.labels[label].attempt(None)
        outcome = self._attempt(
            "unload", version, lambda: self._client.unload(model.full_name, version=version, timeout=TIMEOUT)
        )
        if outcome.code:
            self.settle()
            return
        self._forget(version)
        for label in carried:
            model.labels[label].confirm(None)

    def _forget(self, version: int) -> None:
        # First, so that whoever sees that it is not there can tell when that began.
        self.model.gone[version] = time.monotonic()
        self.model.live.pop(version, None)
        self.model.maybe.pop(version, None)

    # Finding out

    def settle(self) -> None:
        """Finds out what became of what was not acknowledged, and goes on once nothing is in doubt."""
        end = time.monotonic() + RECOVERY
        while not self._settle():
            if time.monotonic() > end:
                self._judge.violate(f"{self.model.full_name}: what FAILED can neither be loaded nor unloaded")
                return
            time.sleep(_POLL)

    def _settle(self) -> bool:
        """Compares what is there with what was acknowledged, and takes over the rest; whether that is certain now."""
        model = self.model
        info = self._look()
        if info is None:
            return True
        there = {version.version: version for version in info.versions if version.state not in _GOING}
        lost = model.live.keys() - model.maybe.keys() - there.keys()
        known = {**model.live, **model.maybe}
        # A load that failed stays in lists until it is unloaded.
        unknown = {number for number in there.keys() - known.keys() if there[number].state != "FAILED"}
        if lost or unknown:
            self._judge.violate(
                f"{model.full_name}: versions {sorted(there)}; lost: {sorted(lost)}, not asked for: {sorted(unknown)}"
            )
        for label, history in model.labels.items():
            value = info.labels.get(label)
            if value not in (allowed := history.since(history.certain)):
                self._judge.violate(f"{model.full_name}: label {label} is on {value}; expected one of {allowed}")
        for version in known.keys() - there.keys():
            self._forget(version)
        # A load that was never acknowledged may just as well have failed.
        model.live = {
            version: known[version]
            for version, found in there.items()
            if version in model.live or (version in known and found.state != "FAILED")
        }
        model.maybe = {}
        for label, history in model.labels.items():
            history.confirm(info.labels.get(label))
        failed = {version: found for version, found in there.items() if found.state == "FAILED"}
        unhealed = [version for version, found in failed.items() if not self._heal(version, found)]
        for version in unhealed:
            if version in model.live:
                model.maybe[version] = model.live[version]
            elif version in known:
                # The next start of the server tries again to load what is not unloaded.
                self._may_come(version, known[version])
        return not unhealed

    def _look(self) -> modelhost.ModelInfo | None:
        """What the server says of the model, once nothing is under way there any more; None when it does not say."""
        # What is being converted is still loading.
        end = time.monotonic() + RECOVERY + 3 * self._timeout
        last: object = None
        while time.monotonic() < end:
            try:
                info = self._client.model(self.model.full_name, timeout=TIMEOUT)
            except modelhost.NotFoundError:
                info = modelhost.ModelInfo(scope=self.model.scope, model=self.model.name, versions=(), labels={})
            except modelhost.ModelhostError as error:
                last = error
                time.sleep(_POLL)
                continue
            states = {version.version: version.state for version in info.versions}
            if last == (states, info.labels) and not {"LOADING", "UNLOADING"} & set(states.values()):
                return info
            # Twice the same: what a call that broke has begun may only be about to show.
            last = (states, info.labels)
            time.sleep(3 * _POLL)
            # What is seen need not be on the disk, unless something that came later is.
            if self._attempt("barrier", "", lambda: self._client.create_scope("default", exist_ok=True)).code:
                last = None
        self._judge.violate(f"{self.model.full_name} does not come to rest: {last}")
        return None

    def _heal(self, version: int, found: modelhost.VersionInfo) -> bool:
        """A version that FAILED: what was blamed for workers that we killed is loaded again, the rest unloaded.

        Returns:
            Whether that was acknowledged.
        """
        text = str(found.error)
        if version not in self.model.live or not self.model.live[version].path.exists():
            return not self._attempt("unload of what failed", version, lambda: self._client.unload(
                self.model.full_name, version=version, missing_ok=True, timeout=TIMEOUT
            )).code  # fmt: skip
        self._judge.note(
            "FAILED", found.error.reason if found.error else "", f"{self.model.full_name}@{version}: {text}"
        )
        source = self.model.live[version]
        return not self._attempt(
            "load of what failed", version, lambda: self._load(version, source, [], True), self._timeout
        ).code

    def check_answers(self) -> None:
        """Every version that was acknowledged answers, in time."""
        end = time.monotonic() + RECOVERY
        for version, source in list(self.model.live.items()):
            last = Outcome()
            while time.monotonic() < end:
                last = self._judge.attempt(
                    "predict, after a start", f"{self.model.full_name}@{version}", TIMEOUT,
                    lambda version=version: self._client.predict(
                        self.model.full_name, {"x": np.float32([7])}, version=version, timeout=TIMEOUT
                    ),
                )  # fmt: skip
                if last.value is not None:
                    found = teller(last.value["answer"])
                    if found != (self.model.number, version, (7.0,)):
                        self._judge.violate(f"{self.model.full_name}@{version} answers {found}")
                    break
                # What is too large to be there at the same time need not be.
                if last.is_quarantine or (source.evictable and last.code == "RESOURCE_EXHAUSTED"):
                    break
                if self._server.starts != self._starts:
                    return
                time.sleep(_POLL)
            else:
                self._judge.violate(f"{self.model.full_name}@{version} does not answer: {last}")

    def _attempt(self, kind: str, about: object, call: Callable[[], object], timeout: float = TIMEOUT) -> Outcome:
        return self._judge.attempt(kind, f"{self.model.full_name} {about}", timeout, call)


class ScopeManager(ModelManager):
    """The same in a scope that comes and goes."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._exists = History()

    def run(self, is_over: Callable[[], bool]) -> None:
        """Creates the scope, changes its model a few times, and deletes it, until it is over."""
        while not is_over():
            self.follow_server()
            if self._create():
                for _ in range(self._random.randint(1, 4)):
                    self.follow_server()
                    self.change()
            self._delete()

    def settle(self) -> None:
        """See ModelManager."""
        self._check_scope()
        super().settle()

    def _create(self) -> bool:
        self._exists.attempt(1)
        outcome = self._attempt(
            "create scope", "", lambda: self._client.create_scope(self.model.scope, exist_ok=True, timeout=TIMEOUT)
        )
        if outcome.code:
            self._check_scope()
            return False
        self._exists.confirm(1)
        return True

    def _check_scope(self) -> None:
        """Compares whether the scope is there with what was acknowledged, and takes it over."""
        while True:
            try:
                there = {scope.scope for scope in self._client.scopes(timeout=TIMEOUT)}
                break
            except modelhost.ModelhostError:
                time.sleep(_POLL)
        value = 1 if self.model.scope in there else None
        if value not in self._exists.since(self._exists.certain):
            self._judge.violate(f"scope {self.model.scope} is {'there' if value else 'not there'}, unlike acknowledged")
        self._exists.confirm(value)

    def _delete(self) -> None:
        model = self.model
        for version in list(model.live):
            model.maybe[version] = model.live[version]
        for history in model.labels.values():
            history.attempt(None)
        self._exists.attempt(None)
        outcome = self._attempt(
            "delete scope", "",
            lambda: self._client.delete_scope(model.scope, force=True, missing_ok=True, timeout=TIMEOUT),
        )  # fmt: skip
        if outcome.code:
            self.settle()
            return
        self._exists.confirm(None)
        for version in list(model.live):
            self._forget(version)
        for history in model.labels.values():
            history.confirm(None)
