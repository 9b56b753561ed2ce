"""Changes that callers are told of only once they are written down; those that cannot be written are undone."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Mapping, Sequence
from typing import Any

from ..errors import ModelhostError
from ..journal.rows import LOAD, UNLOAD
from ..store.labels import LabelsBefore
from ..store.operations import LoadRequest, UnloadRequest
from ..store.phases import Phase
from ..store.records import Model, Scope, ScopeConfig, Version
from ..store.store import Store
from .background import Background
from .recording import Recording

# Why a change is undone, if it is.
Undone = ModelhostError | None


class Changes:
    """Makes changes in the store and has them recorded; each method answers why it has undone what it did."""

    def __init__(self, store: Store, recording: Recording) -> None:
        self._store = store
        self._recording = recording
        # One at a time, where what was before has to be known to be put back.
        self._turn = asyncio.Lock()
        self._background = Background("changes")

    async def carry_out(self, change: Coroutine[Any, Any, Undone]) -> None:
        """Waits for a change, which is carried out or undone whether or not the caller still waits.

        Raises:
            ModelhostError: why it was undone.
        """
        error = await asyncio.shield(self._background.run(change))
        if error is not None:
            raise error

    async def close(self) -> None:
        """Ends what is under way."""
        await self._background.cancel()

    async def _written(self) -> Undone:
        try:
            await self._recording.settled()
        except ModelhostError as error:
            return error
        return None

    # Scopes

    async def keep_scope(self, scope: Scope) -> Undone:
        """Has a scope come back when the server is started again."""
        was_kept, scope.is_kept = scope.is_kept, True
        self._recording.mark_scope(scope)
        error = await self._written()
        if error is not None:
            scope.is_kept = was_kept
            self._recording.mark_scope(scope)
        return error

    async def configure_scope(self, scope: Scope, config: ScopeConfig) -> Undone:
        """Changes a scope's configuration."""
        async with self._turn:
            before, was_kept = scope.config, scope.is_kept
            self._store.update_scope(scope.name, config)
            scope.is_kept = True
            self._recording.mark_scope(scope)
            error = await self._written()
            if error is not None:
                self._store.update_scope(scope.name, before)
                scope.is_kept = was_kept
                self._recording.mark_scope(scope)
            return error

    async def close_scope(self, scope: Scope) -> Undone:
        """Has a scope that is `deleting`, with all that it holds, not come back."""
        self._recording.mark_scope(scope)
        error = await self._written()
        if error is not None:
            scope.deleting = False
            self._recording.mark_scope(scope)
        return error

    # Models

    async def keep_load(self, version: Version, request: LoadRequest, before: LabelsBefore | None) -> Undone:
        """Has a version that was accepted come back. `before` is None when the version is new, and the caller's to take
        back.
        """
        if not version.is_kept:
            return None
        self._recording.mark_model(version.scope, version.model)
        error = await self._written()
        if self._recording.has_request(LOAD, request.memory_id):
            # It is asked again, and there is nothing to write.
            return None
        if error is not None:
            self._store.loads.forget(request.memory_id)
            model = self._store.scope(version.scope).models.get(version.model)
            if before is not None and model is not None:
                self._put_back_labels(model, request.labels, before)
        return error

    def begin_unload(self, versions: Sequence[Version], request: UnloadRequest) -> Coroutine[Any, Any, Undone]:
        """Has versions not come back, then retires them: one that is being unloaded cannot be kept any more.

        To be called in the step that remembers the request, so that one transaction has both: of a request that is
        known to be on the disk it is taken for granted that what it asked for is, too.
        """
        staying = [version for version in versions if version.phase is not Phase.UNLOADED]
        for version in staying:
            version.is_leaving = True
        self._recording.mark_model(request.scope, request.model)
        return self._unload(versions, staying, request)

    async def _unload(self, versions: Sequence[Version], staying: Sequence[Version], request: UnloadRequest) -> Undone:
        is_recorded = request.request_id or any(version.is_kept for version in versions)
        error = await self._written() if is_recorded else None
        if error is None or self._recording.has_request(UNLOAD, request.memory_id):
            for version in versions:
                self._store.retire(version)
            return None
        self._store.unloads.forget(request.memory_id)
        for version in staying:
            version.is_leaving = False
        self._recording.mark_model(request.scope, request.model)
        return error

    async def set_labels(self, model: Model, labels: Mapping[str, int], removed: Collection[str]) -> Undone:
        """Puts labels on versions of a model and takes others off, all or none."""
        async with self._turn:
            before = self._store.labels.before(model)
            try:
                self._store.labels.set(model, labels, removed)
            except ModelhostError as wrong:
                return wrong
            self._recording.mark_model(model.scope, model.name)
            error = await self._written()
            if error is not None:
                self._put_back_labels(model, (*labels, *removed), before)
            return error

    def _put_back_labels(self, model: Model, labels: Collection[str], before: LabelsBefore) -> None:
        self._store.labels.put_back(model, labels, before)
        self._recording.mark_model(model.scope, model.name)

    # Settings

    async def set_setting(self, name: str, value: str) -> Undone:
        """Makes a setting of the server."""
        async with self._turn:
            before = self._recording.setting(name)
            self._recording.set_setting(name, value)
            error = await self._written()
            if error is not None:
                self._recording.set_setting(name, before)
            return error
