"""The host: what services ask for, done. Joins the store, the scopes' keepers and the worker template."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import ModelhostError, Reason
from ..journal.journal import Journal
from ..samples import keep_samples
from ..sandbox.rights import Rights
from ..sources.sources import Sources
from ..store.events import DEFAULT_CAPACITY
from ..store.labels import LabelsBefore
from ..store.names import DEFAULT_SCOPE, check_name
from ..store.operations import LoadRequest, UnloadRequest
from ..store.phases import SERVED, Phase
from ..store.records import Loaded, Model, ScopeConfig, Version
from ..store.resolve import not_available
from ..store.store import Store
from ..workers.template import Templates
from .admission import Admission, Budget
from .background import Background
from .changes import Changes, Undone
from .cleaning import FILES, MODELS, OVERRIDES, SAMPLES, WORK, Cleaner, remove_unused
from .conversion import Conversion
from .converting import Converting
from .digests import Digests
from .draining import Draining
from .idling import Idling
from .keepers import Keepers
from .means import Means
from .predictions import Predictions
from .recording import Recording
from .regions import ByOwner, Regions, keep_forgetting
from .restoring import load_restored, restore
from .room import Room
from .scopes import Scopes
from .tuning import CANDIDATES, Tuner
from .unloads import Unloads
from .upkeep import give_back_when_idle, keep_bounds, keep_collecting
from .waiting import Waiting

_SETTLED = SERVED | {Phase.FAILED, Phase.DRAINING, Phase.FREEING, Phase.UNLOADED}


class Host:
    """Everything that is hosted, and the ways to change and use it. All methods are called on the event loop."""

    def __init__(
        self,
        cache_dir: Path,
        sources: Sources,
        scope_defaults: ScopeConfig | None = None,
        engines: Sequence[str] = CANDIDATES,
        memory_limit_bytes: int = 0,
        cache_limit_bytes: int = 0,
        shares_memory: bool = False,
        journal: Journal | None = None,
        rights: Rights | None = None,
    ) -> None:
        rights = rights or Rights(sandboxed=False)
        # From the clock, so that a watcher of a restarted server cannot take a new change for one it knows; and where
        # that was set back, above what there has been in any case.
        before = journal.database.revision + DEFAULT_CAPACITY if journal is not None else 0
        self.store = Store(first_revision=max(before, time.time_ns() // 1_000_000))
        self.recording = Recording(self.store, journal)
        self._changes = Changes(self.store, self.recording)
        self._background = Background("host")
        self.keepers = Keepers()
        self.unloads = Unloads(self.store, self.keepers, self._background)
        self._journal = journal
        self._waiting = Waiting(self.store)
        self.scope_defaults = scope_defaults or ScopeConfig()
        self.cache_dir = cache_dir
        self.sources = sources
        # Files that versions need and that cannot be made again; without a journal they go the way of the rest.
        self.files_dir = journal.directory if journal is not None else cache_dir
        made = str(self.files_dir / MODELS)
        self.converting = Converting(replace(rights, writable=(*rights.writable, made)), sources.scratch)
        self.regions = ByOwner(lambda: Regions(shares_memory))
        self._templates = Templates(rights)
        digests = Digests(cache_dir)
        self.tuner = Tuner(self.store, cache_dir, self.converting, digests, engines, self.keepers.switch)
        self._means = Means(
            self.store,
            sources,
            self._templates,
            Conversion(cache_dir, self.converting, digests),
            self.tuner,
            Admission(cache_dir),
            Room(self.keepers.may_evict, self.keepers.evict, self.keepers.give_back),
            Budget("the server", lambda: memory_limit_bytes, self.keepers.memory_in_use, self._versions),
            self._waiting,
            cache_dir,
            self._on_available,
        )
        data_dir = journal.directory if journal is not None else None
        self._cleaner = Cleaner(cache_dir, cache_limit_bytes, self._paths_in_use, data_dir)
        self.scopes = Scopes(self.store, self.keepers, self._means, self._changes, self.unloads, sources.uploads)
        self._idling = Idling(self.store, lambda version: self._background.run(self.keepers.evict(version)))
        self.draining = Draining()
        self.predictions = Predictions(self.store, self.keepers, self.draining)

    # Life

    async def start(self) -> None:
        """Starts the template, the scope "default" and what was there before; that is loaded by and by.

        Raises:
            ModelhostError: WORKER_UNAVAILABLE.
        """
        await self.sources.uploads.start()
        for name in FILES if self._journal is not None else ():
            # Workers may read there as far as it is there when their templates are started.
            (self.files_dir / name).mkdir(exist_ok=True)
        await self._templates.get(with_tensorflow=False).start()
        versions: Sequence[Version] = ()
        if self._journal is not None:
            content = self._journal.read()
            versions = content.versions
            restore(self.store, content, self.scope_defaults)
            # What a server left that was killed, and what belongs to versions that have gone.
            for work in (self.files_dir / MODELS).glob(f"{WORK}*"):
                await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
            for folder in (OVERRIDES, SAMPLES):
                used = self._paths_in_use()
                await asyncio.to_thread(remove_unused, self._journal.directory / folder, used, time.time())
            for scope in self.store.all_scopes():
                self.keepers.start(scope, self._means)
        self.recording.start()
        if DEFAULT_SCOPE not in self.keepers:
            await self.scopes.create(DEFAULT_SCOPE, self.scope_defaults, is_kept=False)
        if versions:
            self._background.run(load_restored(versions, self._load))
        self._background.run(give_back_when_idle(lambda: self.predictions.count))
        self._background.run(keep_forgetting(self.regions))
        self._background.run(keep_bounds(self.keepers.keep_bounds))
        self._background.run(keep_collecting(self.sources.uploads, self._versions))

    @property
    def is_durable(self) -> bool:
        """Whether what callers were told outlives the server."""
        return self._journal is not None

    @property
    def predicting(self) -> bool:
        """Whether predictions are under way."""
        return any(version.handles for scope in self.store.all_scopes() for version in scope.versions())

    async def close(self) -> None:
        """Ends all workers and the template."""
        self.draining.has_begun = True
        await self.tuner.close()
        await self._changes.close()
        # Before the workers end: a load that fails for that is to be tried again at the next start.
        await self.recording.close()
        await self._background.cancel()
        await self.keepers.close()
        await self._templates.stop()
        await asyncio.to_thread(self.sources.close)

    # Models

    async def load(self, request: LoadRequest, wait: bool) -> Version:
        """Loads a version; answers when it is AVAILABLE, or at once when not told to wait.

        Raises:
            ModelhostError: what `Sources.resolve` and `Store.accept_load` raise; why the load failed.
        """
        return await self.load_settled(await self.begin_load(request), wait)

    async def begin_load(self, request: LoadRequest) -> Version:
        """Accepts a load and starts it.

        Raises:
            ModelhostError: what `Sources.resolve` and `Store.accept_load` raise; STORAGE_FAILED.
        """
        self.draining.check_accepting()
        # Names and scope first: they are cheaper to get right than a source, and no reason to touch the disk.
        scope = self.store.scope(request.scope)
        check_name("model", request.model)
        found = await self.sources.resolve(scope.name, request.source, request.version, request.is_callers)
        samples_file = await self._kept_samples(request)
        request = replace(
            request, scope=scope.name, path=found.path, found_version=found.number, samples=(),
            samples_file=samples_file,
        )  # fmt: skip
        model = scope.models.get(request.model)
        before = self.store.labels.before(model) if model is not None else None
        version, is_new = self.store.accept_load(request)
        await self._changes.carry_out(self._keep_and_load(version, request, None if is_new else before))
        return version

    async def _keep_and_load(
        self, version: Version, request: LoadRequest, before: LabelsBefore | None
    ) -> ModelhostError | None:
        error = await self._changes.keep_load(version, request, before)
        is_new = before is None
        if error is not None and is_new:
            self.unloads.discard(version)
        elif is_new and version.phase is Phase.WAITING:
            self._background.run(self._load(version))
        elif version.phase is Phase.EVICTED:
            try:
                self.keepers.of(version.scope).reloading.begin(version)
            except ModelhostError as refused:
                return error or refused
        return error

    async def _kept_samples(self, request: LoadRequest) -> str:
        try:
            return await asyncio.to_thread(keep_samples, self.files_dir / SAMPLES, request.samples)
        except OSError as error:
            raise ModelhostError(
                Reason.STORAGE_FAILED, f"warmup: it cannot be written to the server's disk: {error.strerror}",
                field="warmup", retry_after=1.0,
            ) from None  # fmt: skip

    async def load_settled(self, version: Version, wait: bool = True) -> Version:
        """The version, once its load has ended (or at once, when not told to wait).

        Raises:
            ModelhostError: why the load failed; STORAGE_FAILED when what came of it could not be written down.
        """
        if wait and version.phase is Phase.RELOADING:
            await self.keepers.of(version.scope).reloading.wait(version)
        elif wait:
            await self._waiting.until(version, _SETTLED)
            if version.is_kept:
                await self._settled(version)
            if version.phase not in SERVED:
                raise self._load_error(version)
        return version

    async def _settled(self, version: Version) -> None:
        # Its labels have moved, and older versions go.
        try:
            await self.recording.settled()
        except ModelhostError as error:
            if version.phase not in SERVED:
                # Why it failed is what the caller is to know.
                return
            raise ModelhostError(
                Reason.STORAGE_FAILED,
                f"{version.resource} is there, but what changed with it cannot be written to the server's disk yet; "
                "it is tried until it can: ask again",
                retry_after=error.retry_after,
            ) from None

    async def learn(self, version: Version) -> Loaded:
        """What a version that is served takes and gives. One that has not been in memory in this server's life is
        loaded for that.

        Raises:
            ModelhostError: what `Reloading.wait` raises.
        """
        if version.loaded is None:
            await self.keepers.of(version.scope).reloading.wait(version)
        assert version.loaded is not None, "it has been loaded now"
        return version.loaded

    async def _load(self, version: Version) -> None:
        if version.phase is not Phase.WAITING:
            # It was unloaded before its turn came, with its scope maybe.
            return
        if self.store.scope(version.scope).config.memory_first:
            await self.unloads.carry_out(self.unloads.retire_superseded(version))
        await self.keepers.load(version)

    def _on_available(self, version: Version) -> None:
        self.unloads.start(self.unloads.retire_superseded(version))
        # What is loaded later, whatever its number, is to stay when this one is loaded again.
        version.keep_older = True
        self._background.run(self._cleaner.clean())

    def _paths_in_use(self) -> set[str]:
        paths: set[str] = set()
        for version in self._versions():
            paths.update(
                (version.source, version.path, version.samples_file, version.choice.artifact if version.choice else "")
            )
        return paths - {""}

    def _versions(self) -> list[Version]:
        return [version for scope in self.store.all_scopes() for version in scope.versions()]

    @staticmethod
    def _load_error(version: Version) -> ModelhostError:
        if version.phase is Phase.FAILED and version.error is not None:
            # A version that failed is in a wrong state later on; the load that failed says why in its own code.
            return version.error
        return not_available(version)

    async def unload(self, request: UnloadRequest, wait: bool) -> Sequence[Version]:
        """Unloads; answers when that is done, or at once when not told to wait.

        Raises:
            ModelhostError: what `Store.find_unload` raises; STORAGE_FAILED.
        """
        request = replace(request, scope=self.store.scope(request.scope).name)
        versions, _ = self.store.find_unload(request)
        leaving = self._changes.begin_unload(versions, request)
        await self._changes.carry_out(self._leave_and_unload(versions, leaving))
        if wait:
            await self.unloads.carry_out(versions)
        return versions

    async def _leave_and_unload(self, versions: Sequence[Version], leaving: Awaitable[Undone]) -> Undone:
        error = await leaving
        if error is None:
            self.unloads.start(versions)
        return error

    async def set_labels(self, model: Model, labels: Mapping[str, int], removed: Collection[str]) -> None:
        """Puts labels on versions of a model and takes others off, all or none.

        Raises:
            ModelhostError: what `Labels.set` raises; STORAGE_FAILED.
        """
        await self._changes.carry_out(self._changes.set_labels(model, labels, removed))

    async def set_setting(self, name: str, value: str) -> None:
        """Makes a setting of the server, for its next starts, too.

        Raises:
            ModelhostError: STORAGE_FAILED.
        """
        await self._changes.carry_out(self._changes.set_setting(name, value))
