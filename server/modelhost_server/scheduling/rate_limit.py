"""How many predictions a second each caller may ask a scope for."""

from __future__ import annotations

from ..errors import ModelhostError, Reason

# Callers that have not asked for a while are forgotten when there are more than these.
_MOST_CALLERS = 4096


class RateLimit:
    """A bucket of tokens for each caller of a scope: a second's worth may come at once.

    A bucket is one number, the time at which it is full again (GCRA, as in ATM and Redis' throttles).
    """

    def __init__(self) -> None:
        self._full_at: dict[str, float] = {}

    def take(self, caller: str, rate: float, now: float) -> None:
        """Takes one of a caller's tokens, of which it gets `rate` a second.

        Raises:
            ModelhostError: RATE_LIMIT: there is none.
        """
        full_at = max(now, self._full_at.get(caller, 0.0))
        wait = full_at - now - max(0.0, 1.0 - 1.0 / rate)
        if wait > 1e-9:
            raise ModelhostError(
                Reason.RATE_LIMIT,
                f"the caller may ask this scope for {rate:g} predictions a second; ask again in {wait:.3f} s",
                retry_after=wait,
                limit=rate,
            )
        if len(self._full_at) >= _MOST_CALLERS:
            self._full_at = {caller: time for caller, time in self._full_at.items() if time > now}
        self._full_at[caller] = full_at + 1.0 / rate
