"""Streams under way, which end when their callers lose what they had: a stream may outlive its caller's token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ..access.authenticator import Authenticator
from ..errors import ModelhostError, Reason
from ..services.call import Call

_Result = TypeVar("_Result")


class Session:
    """A stream, and its caller."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self._error: ModelhostError | None = None
        # Who waits in here, and can be woken without harm.
        self._waiter: asyncio.Task[Any] | None = None

    def end(self, error: ModelhostError) -> None:
        """Has the stream end with an error: at once, or at its next message if it waits for its caller just now."""
        if self._error is None:
            self._error = error
            if self._waiter is not None:
                self._waiter.cancel()

    async def wait(self, work: Awaitable[_Result]) -> _Result:
        """What comes of `work`, as long as the stream goes on.

        Raises:
            ModelhostError: the stream is to end.
        """
        task = self._waiter = asyncio.current_task()
        assert task is not None
        try:
            result = await work
        except asyncio.CancelledError:
            # The caller may have left at the same time.
            if self._error is None or task.uncancel():
                raise
            raise self._error from None
        finally:
            self._waiter = None
        self.check()
        return result

    def check(self) -> None:
        """Raises why the stream is to end, if it is."""
        if self._error is not None:
            raise self._error

    async def checked(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Requests, as long as the stream goes on."""
        async for request in requests:
            self.check()
            yield request


class Sessions:
    """All of them."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        self._sessions: set[Session] = set()
        authenticator.listen(self._look)

    @contextmanager
    def opened(self, call: Call) -> Iterator[Session]:
        """A session, for as long as its stream is there."""
        session = Session(call)
        self._sessions.add(session)
        try:
            yield session
        finally:
            self._sessions.discard(session)

    def _look(self) -> None:
        for session in tuple(self._sessions):
            call = session.call
            if call.identity is None:
                continue
            try:
                identity = self._authenticator.identify(call.credentials)
            except ModelhostError as error:
                session.end(error)
                continue
            if identity != call.identity:
                session.end(ModelhostError(Reason.UNAUTHENTICATED, "what the caller may do has changed; call again"))
