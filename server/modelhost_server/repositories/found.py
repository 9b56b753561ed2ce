"""What a follower knows of one version's directory."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ..errors import ModelhostError, Reason
from ..store.phases import SERVED, Phase
from ..store.records import Version
from .directory import Look
from .policy import retry_delay


@dataclass(slots=True)
class Found:
    """A version's directory, and what has become of it.

    Attributes:
        path: where it is.
        is_there: whether it was, at the last look.
        look: the last look into it.
        is_whole: nothing is missing, and nobody was writing at the last look.
        version: the store's record of what was loaded from here.
        failure: why the last load failed, until the directory changes or a load succeeds.
        noted: the record whose failure has been noted.
    """

    path: str
    is_there: bool = True
    look: Look | None = None
    is_whole: bool = False
    version: Version | None = None
    failure: ModelhostError | None = None
    failures: int = 0
    retry_at: float = 0.0
    noted: Version | None = None

    @property
    def lack(self) -> str:
        """Why it is not whole."""
        missing = self.look.missing if self.look is not None else ""
        return f"{missing} is missing" if missing else "it has just changed"

    @property
    def needs_look(self) -> bool:
        """Whether what is in the directory matters now; that of a version that serves does not."""
        return not self.is_whole or self.failure is not None

    def note_look(self, new: Look, now: float, wait: float) -> None:
        """Notes a look; a directory that is not as it was when a load failed has another chance at once."""
        if self.look is not None and new.fingerprint != self.look.fingerprint:
            self.failure, self.failures, self.retry_at = None, 0, 0.0
        self.is_whole = new.is_whole(self.look, now, wait)
        self.look = new

    def note_phase(self) -> None:
        """Notes how the last load ended, once it has."""
        version = self.version
        if version is None or version is self.noted:
            return
        if version.phase in SERVED:
            self.failure, self.failures = None, 0
        elif version.phase is Phase.FAILED:
            self.noted = version
            self.note_failure(version.error or ModelhostError(Reason.INTERNAL, "the load failed"))

    def note_failure(self, error: ModelhostError) -> None:
        """Notes that a load failed."""
        self.failure = error
        self.failures += 1
        self.retry_at = asyncio.get_running_loop().time() + retry_delay(self.failures)

    @property
    def may_be_tried(self) -> bool:
        """Whether a load may begin now. A version in quarantine stays there until its directory changes."""
        if self.failure is not None and self.failure.reason is Reason.VERSION_FAILED:
            return False
        return self.is_whole and asyncio.get_running_loop().time() >= self.retry_at
