"""Has the journal say what the store says. All that has changed since is written at once, by one thread."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import sqlite3
from concurrent.futures import ThreadPoolExecutor

from ..errors import ModelhostError, Reason
from ..journal.database import Key, Row
from ..journal.journal import Journal
from ..journal.rows import LOAD, UNLOAD, model_rows, request_rows, scope_rows, setting_rows
from ..store.events import Event
from ..store.records import Scope
from ..store.store import Store
from .background import Background

logger = logging.getLogger(__name__)

_USES_SECONDS = 10.0
# What could not be written is tried again this often, whether or not anybody asks for more.
_RETRY_SECONDS = 1.0

# Rows that are written together: the table and what names them, as far as that is common to them.
_Group = tuple[str, ...]


class Recording:
    """Follows the store's changes, and writes them down.

    Args:
        journal: where they go; without one, nothing is kept.
    """

    def __init__(self, store: Store, journal: Journal | None) -> None:
        self._store = store
        self._journal = journal
        self._changed: set[_Group] = set()
        self._waiters: list[asyncio.Future[None]] = []
        self._wake = asyncio.Event()
        # The keys of the rows of each group that are on the disk.
        self._written: dict[_Group, frozenset[Key]] = {}
        self._noted_uses: dict[tuple[str, str, int], float] = {}
        self._is_writing = False
        self._is_failing = False
        self._settings: dict[str, str] = {}
        # In what order requests came, for when there are too many.
        self._positions = itertools.count(1)
        self._background = Background("journal")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")

    def start(self) -> None:
        """Begins to follow; what the store says now is what the journal says."""
        if self._journal is None:
            return
        rows = self._journal.database.rows
        self._settings = {key[1]: row[1] for key, row in rows.items() if key[0] == "settings"}
        last = max((row[2] for key, row in rows.items() if key[0] == "requests"), default=0)
        self._positions = itertools.count(last + 1)
        self._store.events.listen(self._on_event)
        self._store.loads.on_change = lambda request_id: self._mark(LOAD, request_id)
        self._store.unloads.on_change = lambda request_id: self._mark(UNLOAD, request_id)
        for key in rows:
            self._written[_group_of(key)] = self._written.get(_group_of(key), frozenset()) | {key}
        self._background.run(self._write_changes())
        self._background.run(self._write_uses())

    # What has changed

    def _on_event(self, event: Event) -> None:
        self.mark_model(event.version.scope, event.version.model)

    def mark_model(self, scope: str, model: str) -> None:
        """Something about a model, or a version of it, has changed without an event."""
        self._mark("models", scope, model)

    def mark_scope(self, scope: Scope) -> None:
        """A scope has changed, has come or is going."""
        self._mark("scopes", scope.name)
        for model in {*scope.models, *scope.highest, *scope.coming_labels}:
            self.mark_model(scope.name, model)

    def setting(self, name: str) -> str:
        """A setting; "" when it was never made."""
        return self._settings.get(name, "")

    def set_setting(self, name: str, value: str) -> None:
        """Makes a setting."""
        self._settings[name] = value
        self._mark("settings", name)

    def has_request(self, kind: str, request_id: str) -> bool:
        """Whether it is on the disk that a request was carried out."""
        return self._journal is not None and ("requests", kind, request_id) in self._journal.database.rows

    def _mark(self, *group: str) -> None:
        if self._journal is not None:
            self._changed.add(group)
            self._wake.set()

    async def settled(self) -> None:
        """Returns when all that has changed until now is on the disk.

        Raises:
            ModelhostError: STORAGE_FAILED when it cannot be written now; what is not undone then is tried again.
        """
        if not self._changed and not self._is_writing:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._wake.set()
        await waiter

    # Writing

    async def _write_changes(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiters, self._waiters = self._waiters, []
            error = await self._write()
            if error is not None:
                # Who came meanwhile may have built on what is undone now; so what was done last is undone first.
                waiters = [*waiters, *self._waiters][::-1]
                self._waiters = []
            for waiter in waiters:
                if waiter.done():
                    continue
                if error is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(error)
            if error is not None:
                loop.call_later(_RETRY_SECONDS, self._wake.set)
                # Those who waited undo what they did before the rest is written.
                await asyncio.sleep(0)

    async def _write(self) -> ModelhostError | None:
        """Writes what has changed; why that was not possible."""
        assert self._journal is not None, "without a journal nothing is marked"
        groups, self._changed = self._changed, set()
        database = self._journal.database
        self._is_writing = True
        try:
            rows = {group: self._rows(group) for group in groups}
            changes: dict[Key, Row | None] = {}
            for group, now in rows.items():
                changes |= dict.fromkeys(self._written.get(group, frozenset()) - now.keys())
                changes |= {key: row for key, row in now.items() if database.rows.get(key) != row}
            if not changes:
                return None
            await asyncio.get_running_loop().run_in_executor(
                self._thread, database.write, changes, self._store.events.revision
            )
        # A ValueError is text that cannot be written down.
        except (sqlite3.Error, OSError, ValueError) as error:
            self._changed |= groups
            if not self._is_failing:
                logger.error("the journal cannot be written; no change is accepted until it can: %s", error)
            self._is_failing = True
            return ModelhostError(
                Reason.STORAGE_FAILED, f"the change cannot be written to the server's disk and is not made: {error}",
                retry_after=_RETRY_SECONDS,
            )  # fmt: skip
        finally:
            self._is_writing = False
        for group, now in rows.items():
            if now:
                self._written[group] = frozenset(now)
            else:
                self._written.pop(group, None)
        if self._is_failing:
            logger.info("the journal can be written again")
        self._is_failing = False
        if not self._changed:
            self._thread.submit(database.tidy)
        return None

    def _rows(self, group: _Group) -> dict[Key, Row]:
        """What is to be written of a group."""
        kind, *names = group
        match kind:
            case "models":
                scope = self._scope(names[0])
                return model_rows(scope, names[1]) if scope is not None else {}
            case "scopes":
                scope = self._scope(names[0])
                return scope_rows(scope) if scope is not None else {}
            case "settings":
                return setting_rows(names[0], self._settings[names[0]])
            case _:
                return self._request_rows(kind, names[0])

    def _scope(self, name: str) -> Scope | None:
        return next((scope for scope in self._store.all_scopes() if scope.name == name), None)

    def _request_rows(self, kind: str, request_id: str) -> dict[Key, Row]:
        assert self._journal is not None, "without a journal nothing is marked"
        known = self._store.loads.get(request_id) if kind == LOAD else self._store.unloads.get(request_id)
        if known is None:
            return {}
        row = self._journal.database.rows.get(("requests", kind, request_id))
        return request_rows(row[2] if row else next(self._positions), *known)

    async def _write_uses(self) -> None:
        """Writes now and then when versions were last used: in what order they are to come back."""
        while True:
            await asyncio.sleep(_USES_SECONDS)
            await asyncio.get_running_loop().run_in_executor(self._thread, self._note_uses, self._uses())

    def _uses(self) -> dict[tuple[str, str, int], float]:
        kept = (version for version in self._store.all_versions() if version.is_kept)
        return {(v.scope, v.model, v.number): v.statistics.last_used for v in kept if v.statistics.last_used}

    def _note_uses(self, uses: dict[tuple[str, str, int], float]) -> None:
        assert self._journal is not None, "without a journal nothing is noted"
        if uses == self._noted_uses:
            return
        # It is worth no error: it only says which comes first.
        with contextlib.suppress(sqlite3.Error):
            self._journal.database.write_uses(uses)
            self._noted_uses = uses

    async def close(self) -> None:
        """Writes what is not written yet, as far as that is possible."""
        if self._journal is None:
            return
        with contextlib.suppress(ModelhostError):
            await self.settled()
        await self._background.cancel()
        self._thread.submit(self._note_uses, self._uses())
        await asyncio.to_thread(self._thread.shutdown)


def _group_of(key: Key) -> _Group:
    table, *names = key
    match table:
        case "versions":
            return ("models", *names[:2])
        case "requests":
            return tuple(names)
        case _:
            return key
