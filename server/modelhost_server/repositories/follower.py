"""Follows the directory of one model, and hosts what it holds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from concurrent.futures import Executor

from ..errors import ModelhostError, Reason
from ..hosting.host import Host
from ..store.names import model_resource, version_resource
from ..store.operations import LoadRequest, UnloadRequest
from ..store.phases import SERVED, WANTED, Phase
from ..store.records import LoadOptions, Version
from .directory import Look, look_at_versions
from .found import Found
from .model_directory import ModelDirectory
from .policy import chosen, to_retire

logger = logging.getLogger(__name__)

# What can be wrong besides a version, whose number is above these.
_DIRECTORY, _HOSTING = 0, -1
_NOT_LOOKED_AT = "has not been looked at yet"


class Follower:
    """Hosts what a model's directory holds, and goes on doing so. It unloads no version that somebody else loaded.

    Args:
        poll_wait: seconds between two looks at the directory; 0 to look once, less to never look.
        threads: where the disk is asked.
    """

    def __init__(self, host: Host, directory: ModelDirectory, poll_wait: float, threads: Executor) -> None:
        self.directory = directory
        self._host = host
        self._poll_wait = poll_wait
        self._threads = threads
        # Why the directory cannot be read; "" while it can.
        self._unreadable = _NOT_LOOKED_AT
        self._found: dict[int, Found] = {}
        self._labels: dict[str, int] = {}
        self._said: dict[int, str] = {}
        self._wake = asyncio.Event()
        self._look_due = True
        # Something has changed since what is wanted was last compared with what is hosted.
        self._is_news = True
        self._timer: asyncio.TimerHandle | None = None
        self._settled = asyncio.Event()
        self._task = asyncio.create_task(self._follow())

    # For whoever asks

    def change(self, directory: ModelDirectory) -> None:
        """Follows it in another way from now on."""
        if directory.base_path != self.directory.base_path:
            # What was found elsewhere is hosted until it is known what is here.
            self._unreadable = _NOT_LOOKED_AT
            for found in self._found.values():
                found.is_there = False
        self.directory = directory
        self._put_labels()
        self._settled.clear()
        self._is_news = True
        self._be_due()

    def wake(self) -> None:
        """Something about the model has changed in the store."""
        self._is_news = True
        self._wake.set()

    @property
    def trouble(self) -> str:
        """Why there is nothing to host; "" while there is something, or may be soon."""
        why = self._unreadable
        if not why and not self._there():
            why = "has no version to host: expected sub-directories named by the numbers of versions"
        return f"the directory {self.directory.base_path} {why}" if why else ""

    async def settled(self) -> tuple[int, ModelhostError] | None:
        """Waits until all that is wanted has been tried; why the newest of it is not AVAILABLE, with its number."""
        await self._settled.wait()
        wanted, pending = self._wanted(), self.pending()
        if wanted:
            newest = max(wanted)
            failure = self._found[newest].failure or self._failure_of_others(newest)
            return (newest, failure) if failure is not None else None
        if pending:
            return max(pending), pending[max(pending)]
        return 0, ModelhostError(Reason.SOURCE_NOT_FOUND, self.trouble or "it is not to be hosted any more")

    def pending(self) -> dict[int, ModelhostError]:
        """Why versions that are there are not hosted."""
        pending: dict[int, ModelhostError] = {}
        for number in self._there():
            found = self._found[number]
            if found.failure is not None:
                pending[number] = found.failure
            elif not found.is_whole:
                pending[number] = ModelhostError(
                    Reason.VERSION_LOADING, f"{found.path} is not complete: {found.lack}", retry_after=1.0
                )
        return pending

    async def stop(self) -> None:
        """Ends following; what is hosted stays."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
        self._settled.set()

    async def abandon(self) -> None:
        """Ends following, and begins to unload what was hosted."""
        await self.stop()
        await self._unload(set(self._ours()))

    # Following

    async def _follow(self) -> None:
        while self._poll_wait >= 0:
            self._wake.clear()
            try:
                while self._look_due:
                    self._look_due = False
                    await self._look()
                if self._is_news:
                    self._is_news = False
                    await self._host_wanted()
                    self._say(_HOSTING, "")
            except ModelhostError as error:
                self._is_news = True
                self._say(_HOSTING, error.message)
            except Exception:
                # Whatever it was, the next look may find it mended, and the other models must not know of it.
                self._is_news = True
                logger.exception("%s: following its directory failed", model_resource(*self.directory.key))
            await self._wake.wait()

    def _be_due(self) -> None:
        self._look_due = True
        self._wake.set()

    async def _look(self) -> None:
        """Looks at the directory; what is there now takes the place of what was there."""
        base_path = self.directory.base_path
        there = {number: found for number, found in self._found.items() if found.is_there}
        known = {number: found.path for number, found in there.items() if not found.needs_look}
        loop = asyncio.get_running_loop()
        looks: Mapping[int, tuple[str, Look | None]] = {}
        unreadable = ""
        try:
            looks = await loop.run_in_executor(self._threads, look_at_versions, base_path, known)
        except OSError as error:
            unreadable = f"cannot be read: {error.strerror}"
        finally:
            if self._poll_wait > 0:
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = loop.call_later(self._poll_wait, self._be_due)
        if self.directory.base_path != base_path:
            # It was to be another one meanwhile; the look at that is due.
            return
        if unreadable:
            # What is hosted stays: the directory may be back soon.
            self._unreadable, self._is_news = unreadable, True
        # Most looks find what was there before, all of it known: that must cost next to nothing.
        elif self._unreadable or len(known) < len(there) or looks != {n: (path, None) for n, path in known.items()}:
            self._unreadable, self._is_news = "", True
            self._note_looks(looks)

    def _note_looks(self, looks: Mapping[int, tuple[str, Look | None]]) -> None:
        now = time.time()
        for number, (path, new) in looks.items():
            found = self._found.get(number) or Found(path)
            if found.path != path or not found.is_there:
                # Another directory, even where the path is that of one that was there before.
                found = Found(path, version=found.version, noted=found.version)
            self._found[number] = found
            if new is not None:
                found.note_look(new, now, self._poll_wait)
        for number, found in self._found.items():
            found.is_there = number in looks

    def _there(self) -> set[int]:
        """Of the versions that are there, those that the policy says."""
        return chosen(self.directory.policy, [number for number, found in self._found.items() if found.is_there])

    def _wanted(self) -> set[int]:
        """Of the versions that are there as a whole, those that the policy says."""
        whole = [number for number, found in self._found.items() if found.is_there and found.is_whole]
        return chosen(self.directory.policy, whole)

    # Hosting

    async def _host_wanted(self) -> None:
        """Loads and retires what is to be, as far as it can be now; called again after each change."""
        for number, found in self._found.items():
            found.note_phase()
            self._say(number, found.failure.message if found.failure is not None else "")
        self._say(_DIRECTORY, self.trouble)
        wanted = self._wanted()
        if wanted:
            await self._ensure_scope()
        hosted = {number: version.phase for number, version in self._ours().items()}
        phases = {number: self._phase(number) for number in wanted}
        memory_first = bool(wanted) and self._host.store.scope(self.directory.scope).config.memory_first
        is_empty = not self._unreadable and not self._there()
        await self._unload(to_retire(hosted, phases, at_once=is_empty or memory_first))
        for number in sorted(wanted, reverse=True):
            await self._load(number)
        self._put_labels()
        self._forget()
        if not self._look_due and self._is_settled():
            self._settled.set()

    async def _ensure_scope(self) -> None:
        name = self.directory.scope
        if all(scope.name != name for scope in self._host.store.all_scopes()):
            await self._host.scopes.create(name, self._host.scope_defaults, is_kept=False)

    def _version(self, number: int) -> Version | None:
        """The store's record of a version, whoever loaded it."""
        try:
            return self._host.store.model(*self.directory.key).versions.get(number)
        except ModelhostError:
            return None

    def _phase(self, number: int) -> Phase | None:
        version = self._version(number)
        return version.phase if version is not None else None

    def _failure_of_others(self, number: int) -> ModelhostError | None:
        """Why a version failed that somebody else loaded: it is theirs, but it does not serve."""
        version = self._version(number)
        return version.error if version is not None and version.phase is Phase.FAILED else None

    def _ours(self) -> dict[int, Version]:
        """The versions that were loaded from here, and are not on their way out."""
        return {
            number: found.version
            for number, found in self._found.items()
            if found.version is not None and found.version is self._version(number)
            and (found.version.phase in WANTED or found.version.phase is Phase.FAILED)
        }  # fmt: skip

    async def _load(self, number: int) -> None:
        found, there = self._found[number], self._version(number)
        if there is not None and there is not found.version:
            return
        if there is not None and there.phase is not Phase.FAILED:
            if there.source != found.path and there.phase in WANTED:
                await self._unload({number})
            return
        if not found.may_be_tried:
            return
        scope, model = self.directory.key
        request = LoadRequest(scope, model, number, found.path, LoadOptions(), keep_older=True, is_kept=False)
        try:
            found.version = await self._host.begin_load(request)
        except ModelhostError as error:
            found.note_failure(error)

    async def _unload(self, numbers: set[int]) -> None:
        scope, model = self.directory.key
        for number in sorted(numbers):
            if number not in self._ours():
                continue
            logger.info("%s: it is not among the versions to host any more", version_resource(scope, model, number))
            # Who said "memory first" wants it given back before the next load begins.
            wait = self._host.store.scope(scope).config.memory_first
            await self._host.unload(UnloadRequest(scope, model, number), wait)

    def _put_labels(self) -> None:
        """Puts labels on the versions that serve; takes off those that are not asked for any more."""
        store, wanted = self._host.store, self.directory.labels
        for label, number in self._labels.items():
            version = self._version(number)
            if label not in wanted and version is not None:
                store.labels.remove(version, label)
        self._labels = dict(wanted)
        for label, number in wanted.items():
            version = self._version(number)
            if version is not None and version.phase in SERVED:
                store.labels.add(version, (label,), of_directory=True)

    def _forget(self) -> None:
        for number, found in list(self._found.items()):
            if not found.is_there and (found.version is None or found.version is not self._version(number)):
                del self._found[number]
                self._said.pop(number, None)

    def _is_settled(self) -> bool:
        """Whether all that is wanted has been tried."""
        wanted = self._wanted()
        if not wanted:
            # What is not complete may become so, if somebody looks again.
            return bool(self.trouble) or self._poll_wait == 0
        return all(
            self._found[number].failure is not None or self._phase(number) in SERVED | {Phase.FAILED}
            for number in wanted
        )

    # What is said of it

    def _say(self, number: int, text: str) -> None:
        """Logs what is wrong with a version, or besides the versions, once."""
        if text and self._said.get(number) != text:
            key = self.directory.key
            logger.warning("%s: %s", version_resource(*key, number) if number > 0 else model_resource(*key), text)
        self._said[number] = text
