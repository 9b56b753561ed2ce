"""Watches of both clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import modelhost
import pytest
from google.rpc import code_pb2
from support.service import CHANGED, EXISTING, PROGRESS, SYNCED, Refused, Served, event

GONE = Refused(code_pb2.UNAVAILABLE, "SERVER_DRAINING")
STOP = Refused(code_pb2.PERMISSION_DENIED, "PERMISSION_DENIED")


def watched(client: Any, **options: Any) -> list[tuple[str, int]]:
    """The events until the service ends the watch with STOP."""
    seen: list[modelhost.WatchEvent] = []
    with pytest.raises(modelhost.PermissionDeniedError):
        client.stream(seen, "watch", **options)
    return [(event.type, event.revision) for event in seen]


def test_a_watch_goes_on_where_it_was(client: Any, served: Served) -> None:
    served.service.watches = [
        [event(EXISTING, 5), event(SYNCED, 7), event(CHANGED, 8), event(PROGRESS, 0), GONE],
        [GONE],
        [event(CHANGED, 9), STOP],
    ]
    assert watched(client) == [("EXISTING", 5), ("SYNCED", 7), ("CHANGED", 8), ("PROGRESS", 0), ("CHANGED", 9)]
    assert [request.from_revision for request in served.service.seen("WatchModels")] == [0, 8, 8]


def test_a_watch_that_breaks_before_it_is_synced_begins_anew(client: Any, served: Served) -> None:
    served.service.watches = [[event(EXISTING, 5), GONE], [event(EXISTING, 5), event(SYNCED, 7), STOP]]
    assert watched(client) == [("EXISTING", 5), ("EXISTING", 5), ("SYNCED", 7)]
    assert [request.from_revision for request in served.service.seen("WatchModels")] == [0, 0]


def test_a_watch_whose_revision_is_gone_begins_anew(client: Any, served: Served) -> None:
    served.service.watches = [
        [Refused(code_pb2.OUT_OF_RANGE, "REVISION_COMPACTED")],
        [event(EXISTING, 50), event(SYNCED, 60), STOP],
    ]
    assert watched(client, from_revision=3) == [("EXISTING", 50), ("SYNCED", 60)]
    assert [request.from_revision for request in served.service.seen("WatchModels")] == [3, 0]


def test_a_watch_needs_a_server_to_begin_with(connect: Callable[..., Any]) -> None:
    client = connect("unix:/no/such/socket")
    with pytest.raises(modelhost.UnreachableError):
        client.watch()
