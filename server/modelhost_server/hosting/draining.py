"""The end of a server: new work is refused, and long streams are told to end."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ModelhostError, Reason


class Draining:
    """Whether the server is shutting down, and who wants to know when it does."""

    def __init__(self) -> None:
        self.has_begun = False
        self._listeners: set[Callable[[], object]] = set()

    def begin(self) -> None:
        """Refuses new work from now on, and tells the listeners."""
        self.has_begun = True
        for listener in tuple(self._listeners):
            listener()

    def listen(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Calls `listener` when draining begins, at once if it has; the answer ends that."""
        if self.has_begun:
            listener()
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    def check_accepting(self) -> None:
        """Raises ModelhostError, SERVER_DRAINING, once the server is shutting down."""
        if self.has_begun:
            raise ModelhostError(Reason.SERVER_DRAINING, "the server is shutting down; ask another, or again later")
