"""Who is to blame when a worker dies, and what is said of it. Pure functions of what was going on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from ..errors import ModelhostError, Reason
from ..workers.worker import WorkerEnd

# A version is quarantined when it has this much blame for the last few minutes.
QUARANTINE_AT = 3.0
_WINDOW_SECONDS = 300.0
_BACKOFF_FIRST = 0.1
_BACKOFF_MAX = 10.0
# A worker that lived this long has its death not counted as one of a series.
_STABLE_SECONDS = 30.0
# Lines of a worker's log that the error of a quarantined version quotes.
_LOG_TAIL = 5


@dataclass(slots=True)
class Blame:
    """Deaths of a scope's workers, and each version's share in them, by the version's key."""

    shares: dict[int, list[tuple[float, float]]] = field(default_factory=dict)
    deaths_in_series: int = 0

    def note_death(self, now: float, lived: float, suspects: Collection[int]) -> list[int]:
        """Notes a death, shared among the versions that were running or being loaded.

        Args:
            now: time in seconds.
            lived: how long the worker had lived, in seconds.
            suspects: keys of the versions.

        Returns:
            The keys of those that are to be quarantined.
        """
        self.deaths_in_series = 1 if lived >= _STABLE_SECONDS else self.deaths_in_series + 1
        for key in suspects:
            self.shares.setdefault(key, []).append((now, 1.0 / len(suspects)))
        for key, shares in list(self.shares.items()):
            self.shares[key] = [share for share in shares if share[0] > now - _WINDOW_SECONDS]
            if not self.shares[key]:
                del self.shares[key]
        # Rounding must not grant a version one death more.
        guilty = [key for key in suspects if self.of(key) > QUARANTINE_AT - 1e-6]
        for key in guilty:
            del self.shares[key]
        return guilty

    def of(self, key: int) -> float:
        """A version's blame, in deaths."""
        return sum(share for _, share in self.shares.get(key, ()))

    def backoff(self) -> float:
        """Seconds to wait before the next worker is started: none after the first death, then ever more."""
        if self.deaths_in_series <= 1:
            return 0.0
        return min(_BACKOFF_FIRST * 2.0 ** (self.deaths_in_series - 2), _BACKOFF_MAX)


def death_error(end: WorkerEnd) -> ModelhostError:
    """What is said of a version while it is being loaded again."""
    return ModelhostError(
        Reason.WORKER_DIED, f"its worker {end.cause}; the version is being loaded again", cause=end.cause
    )


def quarantine_error(end: WorkerEnd) -> ModelhostError:
    """What is said of a version that kept killing its workers."""
    tail = " | ".join(end.log[-_LOG_TAIL:])
    return ModelhostError(
        Reason.VERSION_FAILED,
        f"quarantined: it was running or loading each time its worker died (last: {end.cause}). Mend the model, then "
        f"load it again.{f' The end of the log: {tail}' if tail else ''}",
        cause=end.cause,
    )
