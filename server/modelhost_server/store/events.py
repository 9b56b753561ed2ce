"""The log of changes that watchers read: revisions without gaps, bounded in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import ModelhostError, Reason
from .records import Version

DEFAULT_CAPACITY = 10_000


@dataclass(frozen=True, slots=True)
class Event:
    """A version as it was right after a change."""

    revision: int
    version: Version
    labels: tuple[tuple[str, int], ...]


class EventLog:
    """Keeps the newest events; readers ask for those after the last one they saw."""

    def __init__(self, capacity: int = DEFAULT_CAPACITY, first_revision: int = 0) -> None:
        self._events: deque[Event] = deque(maxlen=capacity)
        self._listeners: set[Callable[[Any], None]] = set()
        self.revision = first_revision

    def append(self, event: Event) -> None:
        """Adds the event of the next revision, and tells the listeners."""
        self._events.append(event)
        self.revision = event.revision
        self.tell(event)

    def tell(self, event: Event) -> None:
        """Tells the listeners of a change that is not for the log."""
        for listener in tuple(self._listeners):
            listener(event)

    def since(self, revision: int) -> list[Event]:
        """The events later than `revision`, oldest first.

        Raises:
            ModelhostError: REVISION_COMPACTED when some of them are no longer kept, or the revision is another
                server's (its number has not been reached here).
        """
        missing = self.revision - revision
        if not 0 <= missing <= len(self._events):
            oldest = self.revision - len(self._events)
            raise ModelhostError(
                Reason.REVISION_COMPACTED,
                f"from_revision: expected {oldest} to {self.revision}, whose changes are kept; got {revision}; "
                "watch from 0 to begin with a snapshot",
                field="from_revision",
                oldest_revision=oldest,
            )
        return [self._events[i] for i in range(len(self._events) - missing, len(self._events))]

    def listen(self, listener: Callable[[Any], None]) -> Callable[[], None]:
        """Calls `listener` with every new event; the answer ends that."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)
