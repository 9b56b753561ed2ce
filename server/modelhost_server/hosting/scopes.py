"""Makes scopes, changes and deletes them."""

from __future__ import annotations

import asyncio

from ..errors import ModelhostError
from ..sources.uploads import Uploads
from ..store.operations import UnloadRequest
from ..store.records import Scope, ScopeConfig
from ..store.store import Store
from .changes import Changes
from .keepers import Keepers
from .means import Means
from .unloads import Unloads

# A scope is there at once, its worker usually in a tenth of a second; longer than this nobody is kept waiting.
_WORKER_START_SECONDS = 5.0


class Scopes:
    """What callers have done to scopes."""

    def __init__(
        self, store: Store, keepers: Keepers, means: Means, changes: Changes, unloads: Unloads, uploads: Uploads
    ) -> None:
        self._store = store
        self._keepers = keepers
        self._means = means
        self._changes = changes
        self._unloads = unloads
        self._uploads = uploads

    async def create(self, name: str, config: ScopeConfig, allow_existing: bool = False, is_kept: bool = True) -> Scope:
        """Creates a scope and starts its worker; answers when that is ready, unless it takes unusually long. One
        that is kept comes back when the server is started again.

        Raises:
            ModelhostError: INVALID_NAME, SCOPE_ALREADY_EXISTS, STORAGE_FAILED.
        """
        scope, is_new = self._store.create_scope(name, config, allow_existing)
        starting = []
        if is_new:
            scope.is_kept = False
            starting = [self._keepers.start(scope, self._means)]
        if is_kept:
            await self._changes.carry_out(self._keep(scope, is_new))
        if starting:
            await asyncio.wait(starting, timeout=_WORKER_START_SECONDS)
        return scope

    async def _keep(self, scope: Scope, is_new: bool) -> ModelhostError | None:
        error = await self._changes.keep_scope(scope)
        if error is not None and is_new and not scope.deleting:
            scope.deleting = True
            await self._delete(scope)
        return error

    async def update(self, name: str, config: ScopeConfig) -> Scope:
        """Changes a scope's configuration.

        Raises:
            ModelhostError: SCOPE_NOT_FOUND, STORAGE_FAILED.
        """
        scope = self._store.scope(name)
        await self._changes.carry_out(self._reconfigure(scope, config))
        return scope

    async def _reconfigure(self, scope: Scope, config: ScopeConfig) -> ModelhostError | None:
        before = scope.config
        error = await self._changes.configure_scope(scope, config)
        if error is None:
            await self._keepers.of(scope.name).reconfigure(before)
        return error

    async def delete(self, name: str, force: bool) -> None:
        """Unloads a scope's models, when forced to, and ends its worker.

        Raises:
            ModelhostError: SCOPE_NOT_FOUND, SCOPE_NOT_EMPTY, INVALID_REQUEST, CONFLICT.
        """
        scope = self._store.begin_delete_scope(name, force)
        await self._changes.carry_out(self._close_and_delete(scope))

    async def _close_and_delete(self, scope: Scope) -> ModelhostError | None:
        error = await self._changes.close_scope(scope)
        if error is None:
            await self._delete(scope)
        return error

    async def _delete(self, scope: Scope) -> None:
        # One after the other: meanwhile, others may go by themselves.
        while model := next(iter(scope.models), None):
            versions, _ = self._store.begin_unload(UnloadRequest(scope.name, model, all_versions=True))
            await self._unloads.carry_out(versions)
        await self._keepers.end(scope)
        self._store.finish_delete_scope(scope)
        self._keepers.forget(scope)
        await self._uploads.remove_scope(scope.name)
