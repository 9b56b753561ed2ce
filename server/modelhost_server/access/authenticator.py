"""From what callers come with to who they are."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..errors import ModelhostError, Reason
from .access_file import AccessFile
from .identity import Credentials, Identity
from .tokens import is_token, token_id

logger = logging.getLogger(__name__)

# A token that is revoked is of no use after this long.
_LOOK_SECONDS = 0.5


class Authenticator:
    """Knows callers by the access file, and follows that file.

    Raises:
        OSError: it is not there or not right.
    """

    def __init__(self, path: Path) -> None:
        self._file = AccessFile(path)
        self._stamp = self._file.stamp()
        self._known = self._file.read()
        self._listeners: set[Callable[[], None]] = set()
        # Not the one that requests are worked on in: whoever keeps that busy would put off the end of his token.
        self._thread = ThreadPoolExecutor(1, "access")

    def identify(self, credentials: Credentials) -> Identity:
        """Who comes with these. A token, where there is one, says it alone, whatever the certificate is.

        Raises:
            ModelhostError: UNAUTHENTICATED.
        """
        if credentials.authorization:
            scheme, _, token = credentials.authorization.partition(" ")
            token = token.strip()
            found = self._known.tokens.get(token_id(token))
            # Hashed and compared in any case: how long it takes tells nothing of which ids there are.
            is_its = is_token(token, found.hash if found is not None else None)
            if is_its and found is not None and found.is_good(time.time()) and scheme.lower() == "bearer":
                return found.identity
            raise ModelhostError(
                Reason.UNAUTHENTICATED, "the token is unknown, has expired or was revoked; ask for another one"
            )
        subject = self._known.subjects.get(credentials.subject) if credentials.subject else None
        if subject is not None:
            return subject.identity
        raise ModelhostError(
            Reason.UNAUTHENTICATED,
            "this server answers callers it knows: expected a token, as `authorization: Bearer mh_...`, or a client "
            "certificate that is registered; got neither",
        )

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Calls `listener` whenever somebody may have lost what he had; the answer ends that."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    async def follow(self) -> None:
        """Follows the file, without end. While it cannot be read, what was read last counts."""
        loop, trouble = asyncio.get_running_loop(), ""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                stamp = await loop.run_in_executor(self._thread, self._file.stamp)
                if stamp != self._stamp:
                    self._known = await loop.run_in_executor(self._thread, self._file.read)
                    self._stamp = stamp
                trouble = ""
            except (OSError, ValueError) as error:
                if str(error) != trouble:
                    trouble = str(error)
                    logger.error("%s; what was read last counts until it can be read again", trouble)
            # In any case: what expires leaves the file as it is.
            for listener in tuple(self._listeners):
                listener()
