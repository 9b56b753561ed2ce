"""The host: what services ask for, done. Joins the store, the scopes' keepers and the worker template."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..errors import ModelhostError, Reason
from ..memory import give_back
from ..samples import keep_samples
from ..store.names import DEFAULT_SCOPE, check_name
from ..store.operations import LoadRequest, UnloadRequest
from ..store.phases import SERVED, Phase
from ..store.records import EngineChoice, Loaded, Scope, ScopeConfig, Version
from ..store.resolve import not_available
from ..store.store import Store
from ..tensors import RawTensor
from ..workers.template import Templates
from .admission import Admission, Budget
from .background import Background
from .checks import NATIVE_CHECKS, Checks
from .cleaning import Cleaner
from .conversion import Conversion
from .converting import Converting
from .digests import Digests
from .idling import Idling
from .keeper import ScopeKeeper
from .many import Outcome, Target, predict_many
from .means import Means
from .postponed import postpone
from .prediction import Begun, begin
from .regions import Regions
from .room import Room
from .sources import resolve_source
from .tuning import CANDIDATES, Tuner
from .waiting import Waiting

logger = logging.getLogger(__name__)

# A scope is there at once, its worker usually in a tenth of a second; longer than this nobody is kept waiting.
_WORKER_START_SECONDS = 5.0
# A server that is asked for nothing for this long is idle.
_IDLE_SECONDS = 5.0
_SETTLED = SERVED | {Phase.FAILED, Phase.DRAINING, Phase.FREEING, Phase.UNLOADED}


class Host:
    """Everything that is hosted, and the ways to change and use it. All methods are called on the event loop."""

    def __init__(
        self,
        cache_dir: Path,
        scope_defaults: ScopeConfig | None = None,
        engines: Sequence[str] = CANDIDATES,
        memory_limit_bytes: int = 0,
        cache_limit_bytes: int = 0,
        shares_memory: bool = False,
    ) -> None:
        # From the clock, so that a watcher of a restarted server cannot take a new change for one it knows.
        self.store = Store(first_revision=time.time_ns() // 1_000_000)
        self._waiting = Waiting(self.store)
        self.scope_defaults = scope_defaults or ScopeConfig()
        self.converting = Converting()
        self.cache_dir = cache_dir
        self.regions = Regions(shares_memory)
        self._templates = Templates()
        digests = Digests(cache_dir)
        self.tuner = Tuner(self.store, cache_dir, self.converting, digests, engines, self._switch)
        self._means = Means(
            self.store,
            self._templates,
            Conversion(cache_dir, self.converting, digests),
            self.tuner,
            Admission(cache_dir),
            Room(self._may_evict, self.evict),
            Budget("the server", lambda: memory_limit_bytes, self._private, self._versions),
            self._waiting,
            cache_dir,
            self._on_available,
        )
        self._cleaner = Cleaner(cache_dir, cache_limit_bytes, self._paths_in_use)
        self._keepers: dict[str, ScopeKeeper] = {}
        self._unloads: dict[int, asyncio.Task[None]] = {}
        self._background = Background("host")
        self._idling = Idling(self.store, lambda version: self._background.run(self.evict(version)))
        self.draining = False
        # Asked for so far.
        self._predictions = 0
        self._drain_listeners: set[Callable[[], object]] = set()

    # Life

    async def start(self) -> None:
        """Starts the template and the scope "default".

        Raises:
            ModelhostError: WORKER_UNAVAILABLE.
        """
        await self._templates.get(with_tensorflow=False).start()
        await self.create_scope(DEFAULT_SCOPE, self.scope_defaults)
        self._background.run(self._give_back_when_idle())
        self._background.run(self.regions.keep_forgetting())

    async def _give_back_when_idle(self) -> None:
        """Returns what large tensors left, once nobody asks for more: until then the next one takes it over."""
        given = 0
        while True:
            before = self._predictions
            await asyncio.sleep(_IDLE_SECONDS)
            if given != self._predictions == before:
                given = before
                await asyncio.to_thread(give_back)

    def drain(self) -> None:
        """Refuses new work from now on, and tells the long streams to end."""
        self.draining = True
        for listener in tuple(self._drain_listeners):
            listener()

    def on_drain(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Calls `listener` when draining begins, at once if it has; the answer ends that."""
        if self.draining:
            listener()
        self._drain_listeners.add(listener)
        return lambda: self._drain_listeners.discard(listener)

    @property
    def predicting(self) -> bool:
        """Whether predictions are under way."""
        return any(version.handles for scope in self.store.all_scopes() for version in scope.versions())

    async def close(self) -> None:
        """Ends all workers and the template."""
        self.draining = True
        await self.tuner.close()
        await self._background.cancel()
        await asyncio.gather(*(keeper.close() for keeper in self._keepers.values()))
        await self._templates.stop()

    def check_accepting(self) -> None:
        """Raises ModelhostError, SERVER_DRAINING, once the server is shutting down."""
        if self.draining:
            raise ModelhostError(Reason.SERVER_DRAINING, "the server is shutting down; ask another, or again later")

    # Scopes

    def keeper(self, scope: str) -> ScopeKeeper:
        """The keeper of a scope that exists."""
        return self._keepers[scope]

    async def create_scope(self, name: str, config: ScopeConfig, allow_existing: bool = False) -> Scope:
        """Creates a scope and starts its worker; answers when that is ready, unless it takes unusually long.

        Raises:
            ModelhostError: INVALID_NAME, SCOPE_ALREADY_EXISTS.
        """
        scope, is_new = self.store.create_scope(name, config, allow_existing)
        if is_new:
            keeper = self._keepers[name] = ScopeKeeper(scope, self._means)
            await asyncio.wait([keeper.start()], timeout=_WORKER_START_SECONDS)
        return scope

    async def update_scope(self, name: str, config: ScopeConfig) -> Scope:
        """Changes a scope's configuration.

        Raises:
            ModelhostError: SCOPE_NOT_FOUND.
        """
        scope = self.store.scope(name)
        change = self._background.run(self._keepers[scope.name].reconfigure(config))
        await asyncio.shield(change)
        return scope

    async def delete_scope(self, name: str, force: bool) -> None:
        """Unloads a scope's models, when forced to, and ends its worker.

        Raises:
            ModelhostError: SCOPE_NOT_FOUND, SCOPE_NOT_EMPTY, INVALID_REQUEST, CONFLICT.
        """
        scope = self.store.begin_delete_scope(name, force)
        await asyncio.shield(self._background.run(self._delete(scope)))

    async def _delete(self, scope: Scope) -> None:
        for model in list(scope.models):
            versions, _ = self.store.begin_unload(UnloadRequest(scope.name, model, all_versions=True))
            await _joined(self._start_unloads(versions))
        await self._keepers[scope.name].close()
        self.store.finish_delete_scope(scope)
        del self._keepers[scope.name]

    # Models

    async def load(self, request: LoadRequest, wait: bool) -> Version:
        """Loads a version; answers when it is AVAILABLE, or at once when not told to wait.

        Raises:
            ModelhostError: what `resolve_source` and `Store.accept_load` raise; why the load failed.
        """
        return await self.load_settled(await self.begin_load(request), wait)

    async def begin_load(self, request: LoadRequest) -> Version:
        """Accepts a load and starts it.

        Raises:
            ModelhostError: what `resolve_source` and `Store.accept_load` raise.
        """
        self.check_accepting()
        # Names and scope first: they are cheaper to get right than a source, and no reason to touch the disk.
        scope = self.store.scope(request.scope)
        check_name("model", request.model)
        found = await resolve_source(request.source, request.version)
        samples_file = await asyncio.to_thread(keep_samples, self.cache_dir / "samples", request.samples)
        request = replace(
            request, scope=scope.name, path=found.path, found_version=found.number, samples=(),
            samples_file=samples_file,
        )  # fmt: skip
        version, is_new = self.store.accept_load(request)
        if is_new:
            self._background.run(self._load(version))
        elif version.phase is Phase.EVICTED:
            self._keepers[version.scope].reloading.begin(version)
        return version

    async def load_settled(self, version: Version, wait: bool = True) -> Version:
        """The version, once its load has ended (or at once, when not told to wait).

        Raises:
            ModelhostError: why the load failed.
        """
        if wait and version.phase is Phase.RELOADING:
            await self._keepers[version.scope].reloading.wait(version)
        elif wait:
            await self._waiting.until(version, _SETTLED)
            if version.phase not in SERVED:
                raise self._load_error(version)
        return version

    async def learn(self, version: Version) -> Loaded:
        """What a version that is served takes and gives. One that has not been in memory in this server's life is
        loaded for that.

        Raises:
            ModelhostError: what `Reloading.wait` raises.
        """
        if version.loaded is None:
            await self._keepers[version.scope].reloading.wait(version)
        assert version.loaded is not None, "it has been loaded now"
        return version.loaded

    async def _load(self, version: Version) -> None:
        if self.store.scope(version.scope).config.memory_first:
            await _joined(self._start_unloads(self._supersede(version)))
        await self._keepers[version.scope].load(version)

    def _on_available(self, version: Version) -> None:
        self._start_unloads(self._supersede(version))
        self._background.run(self._cleaner.clean())

    def _paths_in_use(self) -> set[str]:
        paths: set[str] = set()
        for version in self._versions():
            paths.update((version.path, version.samples_file, version.choice.artifact if version.choice else ""))
        return paths - {""}

    async def _switch(self, version: Version, choice: EngineChoice) -> None:
        await self._keepers[version.scope].switch(version, choice)

    def _versions(self) -> list[Version]:
        return [version for scope in self.store.all_scopes() for version in scope.versions()]

    async def _private(self) -> int:
        return sum(await asyncio.gather(*(keeper.memory_in_use() for keeper in self._keepers.values())))

    def _may_evict(self, version: Version) -> bool:
        return self._keepers[version.scope].may_evict(version)

    async def evict(self, version: Version) -> None:
        """Takes a version out of memory, if it is evictable and idle; its next prediction loads it again."""
        await self._keepers[version.scope].evict(version)

    def _supersede(self, version: Version) -> list[Version]:
        superseded = self.store.superseded(version)
        for old in superseded:
            self.store.retire(old)
        return superseded

    @staticmethod
    def _load_error(version: Version) -> ModelhostError:
        if version.phase is Phase.FAILED and version.error is not None:
            # A version that failed is in a wrong state later on; the load that failed says why in its own code.
            return version.error
        return not_available(version)

    async def unload(self, request: UnloadRequest, wait: bool) -> Sequence[Version]:
        """Unloads; answers when that is done, or at once when not told to wait.

        Raises:
            ModelhostError: what `Store.begin_unload` raises.
        """
        versions, _ = self.store.begin_unload(replace(request, scope=self.store.scope(request.scope).name))
        unloads = self._start_unloads(versions)
        if wait:
            await _joined(unloads)
        return versions

    def discard(self, version: Version) -> None:
        """Begins to unload a version, whether or not callers see it."""
        self.store.retire(version)
        self._start_unloads([version])

    def _start_unloads(self, versions: Sequence[Version]) -> list[asyncio.Task[None]]:
        """The tasks that unload these versions; started here, unless they are under way."""
        tasks = []
        for version in versions:
            if version.phase is Phase.UNLOADED:
                continue
            task = self._unloads.get(version.key)
            if task is None:
                task = self._background.run(self._keepers[version.scope].unload(version))
                self._unloads[version.key] = task
                task.add_done_callback(partial(self._forget_unload, version.key))
            tasks.append(task)
        return tasks

    def _forget_unload(self, key: int, task: asyncio.Task[None]) -> None:
        self._unloads.pop(key, None)

    # Predictions

    def begin_prediction(
        self,
        scope: str,
        model: str,
        version: int,
        label: str,
        signature: str,
        inputs: Mapping[str, RawTensor],
        output_filter: Sequence[str] = (),
        *,
        deadline: float | None = None,
        caller: str = "",
        priority: int = 0,
        checks: Checks = NATIVE_CHECKS,
    ) -> Begun:
        """Begins to run a signature of a version.

        Raises:
            ModelhostError, ForeignError: SERVER_DRAINING, and what `Store.acquire` and `prediction.begin` raise.
        """
        self.check_accepting()
        self._predictions += 1
        acquired = self.store.acquire(scope, model, version, label)
        if acquired.phase is Phase.AVAILABLE:
            acquired.statistics.hit_count += 1
            start = begin
        else:
            start = postpone
        return start(
            self._keepers[acquired.scope], acquired, signature, inputs, output_filter,
            deadline=deadline, caller=caller, priority=priority, checks=checks,
        )  # fmt: skip

    async def predict_many(
        self,
        scope: str,
        targets: Sequence[Target],
        inputs: Mapping[str, RawTensor],
        output_filter: Sequence[str] = (),
        caller: str = "",
    ) -> list[Outcome]:
        """Runs several models of a scope on the same inputs; what became of each, in order.

        Raises:
            ModelhostError: SERVER_DRAINING, SCOPE_NOT_FOUND.
        """
        self.check_accepting()
        name = self.store.scope(scope).name
        acquired: list[tuple[Version, str] | ModelhostError] = []
        for target in targets:
            try:
                version = self.store.acquire(name, target.model, target.version, target.label)
            except ModelhostError as error:
                acquired.append(error)
            else:
                acquired.append((version, target.signature))
        return await predict_many(self._keepers[name], acquired, inputs, output_filter, caller)


async def _joined(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Waits for the tasks; when the caller leaves, they go on."""
    await asyncio.gather(*(asyncio.shield(task) for task in tasks))
