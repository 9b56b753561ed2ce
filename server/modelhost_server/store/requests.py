"""Remembers which requests were carried out, so that a retry is answered and not carried out again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from ..errors import ModelhostError, Reason

C = TypeVar("C", bound=Hashable)
# The versions that a request was about: their numbers, and when they were made. Not the versions themselves, which
# would stay in memory long after they are gone.
Outcome = tuple[tuple[int, float], ...]
_CAPACITY = 10_000
_MAX_ID = 128


def scoped_id(scope: str, request_id: str) -> str:
    """The id of a request as it is remembered: ids tell nothing to, and collide with nothing of, who works in another
    scope.

    Raises:
        ModelhostError: INVALID_REQUEST when it is too long.
    """
    if len(request_id) > _MAX_ID:
        raise ModelhostError(
            Reason.INVALID_REQUEST,
            f"request_id: expected at most {_MAX_ID} characters; got {len(request_id)}",
            field="request_id",
        )
    return f"{scope}/{request_id}" if request_id else ""


class RequestMemory(Generic[C]):
    """The newest request ids, what they asked for, and what came of it."""

    def __init__(self, capacity: int = _CAPACITY) -> None:
        self._seen: OrderedDict[str, tuple[C, Outcome]] = OrderedDict()
        self._capacity = capacity
        # Called with the id when a request was remembered or forgotten.
        self.on_change: Callable[[str], None] = lambda request_id: None

    def recall(self, request_id: str, content: C) -> Outcome | None:
        """What came of this request; None when it is new or has no id.

        Raises:
            ModelhostError: INVALID_REQUEST when the id was used for something else.
        """
        if request_id not in self._seen:
            return None
        asked, outcome = self._seen[request_id]
        if asked != content:
            raise ModelhostError(
                Reason.INVALID_REQUEST,
                "request_id: this id was used for a different request; use a new one (a UUID) for each operation",
                field="request_id",
            )
        return outcome

    def remember(self, request_id: str, content: C, outcome: Outcome) -> None:
        """Notes what came of a request."""
        if request_id:
            self._seen[request_id] = (content, outcome)
            self.on_change(request_id)
            while len(self._seen) > self._capacity:
                self.forget(next(iter(self._seen)))

    def forget(self, request_id: str) -> None:
        """Forgets a request, if it is known: it was not carried out after all, or is too old."""
        if self._seen.pop(request_id, None) is not None:
            self.on_change(request_id)

    def get(self, request_id: str) -> tuple[C, Outcome] | None:
        """What a request asked for and what came of it."""
        return self._seen.get(request_id)
