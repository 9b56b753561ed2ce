"""What becomes of models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from modelhost.v1 import model_pb2, model_service_pb2

from ._async_connection import AsyncConnection
from ._errors import DeadlineExceededError, RevisionCompactedError, UnavailableError, UnreachableError
from ._messages import watch_event
from ._types import WatchEvent

_RECONNECT_SECONDS = (0.1, 5.0)
_REVISION_TYPES = (model_service_pb2.WATCH_EVENT_TYPE_SYNCED, model_service_pb2.WATCH_EVENT_TYPE_CHANGED)


class AsyncWatches(AsyncConnection):
    """Watches models."""

    def watch(
        self,
        scope: str | None = None,
        model: str | None = None,
        *,
        from_revision: int = 0,
        signatures: bool = False,
        progress: bool = False,
    ) -> AsyncIterator[WatchEvent]:
        """Tells every change of every version, without gaps and without end.

        A watch begins with an EXISTING event for each version there is, then SYNCED, then a CHANGED event for each
        change. After a break of the connection it goes on where it was. Should the server no longer have all changes
        since then, the watch begins anew: EXISTING events come again, and what is not among them by the next SYNCED
        is gone.

        Args:
            scope: only this scope; all when None.
            model: only this model of `scope`, or of "default".
            from_revision: leave out what exists, and tell only changes after this revision.
            signatures: also tell the versions' signatures.
            progress: also tell the progress of loads, as PROGRESS events.

        Raises:
            UnreachableError: no server answered to begin with.
        """
        request = model_service_pb2.WatchModelsRequest(
            scope=scope or "",
            model=model or "",
            from_revision=from_revision,
            view=model_pb2.MODEL_VIEW_FULL if signatures else model_pb2.MODEL_VIEW_BASIC,
            include_progress=progress,
        )
        return self._watch(request, None)

    async def _watch(
        self, request: model_service_pb2.WatchModelsRequest, end: float | None
    ) -> AsyncIterator[WatchEvent]:
        """The events of a watch; `end`, by the monotonic clock, bounds it."""
        # One that goes on from a revision has seen the server before.
        connected = request.from_revision > 0
        pause, longest_pause = _RECONNECT_SECONDS
        while True:
            timeout = None if end is None else end - time.monotonic()
            if timeout is not None and timeout <= 0:
                raise DeadlineExceededError(f"{self.target} was not reached within the timeout")
            call = self._stubs.models.WatchModels(request, timeout=timeout, metadata=self._metadata)
            try:
                with self._told_errors():
                    async for message in call:
                        connected = True
                        pause, _ = _RECONNECT_SECONDS
                        # An EXISTING event's revision says nothing of the versions that are still to be told.
                        if message.type in _REVISION_TYPES:
                            request.from_revision = message.revision
                        yield watch_event(message)
            except RevisionCompactedError:
                if request.from_revision == 0:
                    raise
                request.from_revision = 0
                continue
            except UnreachableError:
                if not connected:
                    raise
            except UnavailableError:
                pass
            finally:
                call.cancel()
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest_pause)
