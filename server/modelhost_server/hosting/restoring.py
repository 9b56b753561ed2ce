"""Brings back what was hosted before the server was started: all of it is there at once, and loaded by and by."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from ..journal.journal import Content
from ..store.operations import AskedLoad
from ..store.phases import Phase
from ..store.records import Scope, ScopeConfig, Version
from ..store.store import Store

logger = logging.getLogger(__name__)

# Loads at the same time: what callers ask for meanwhile must not wait for hundreds.
_AT_ONCE = 2


def restore(store: Store, content: Content, defaults: ScopeConfig) -> None:
    """Puts scopes, versions, labels and remembered requests where they were."""
    for scope in content.scopes:
        store.restore_scope(scope)
    there = {scope.name for scope in store.all_scopes()}
    # A scope that a directory's models are in has come with them, and is not kept for itself.
    for name in {*(v.scope for v in content.versions), *(m[0] for m in content.models)} - there:
        store.restore_scope(Scope(name, defaults, is_kept=False))
    for version in content.versions:
        store.restore_version(version)
    for name, model, highest, labels in content.models:
        store.restore_model(name, model, highest, labels)
    for kept in content.requests:
        request = kept.request
        if isinstance(request, AskedLoad):
            store.loads.remember(request.memory_id, request, kept.outcome)
        else:
            store.unloads.remember(request.memory_id, request, kept.outcome)


async def load_restored(versions: Sequence[Version], load: Callable[[Version], Awaitable[None]]) -> None:
    """Loads what was wanted: what was used last first."""
    began = time.monotonic()
    waiting = [version for version in versions if version.phase is Phase.WAITING]
    waiting.sort(key=lambda version: (version.statistics.last_used, version.created), reverse=True)
    turns = asyncio.Semaphore(_AT_ONCE)

    async def load_one(version: Version) -> None:
        async with turns:
            await load(version)

    await asyncio.gather(*map(load_one, waiting))
    failed = sum(version.phase is Phase.FAILED for version in waiting)
    logger.log(
        logging.WARNING if failed else logging.INFO,
        "restored %d versions in %.1f s; %d failed", len(waiting) - failed, time.monotonic() - began, failed,
    )  # fmt: skip
