"""What a service knows of the call it answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Call:
    """A call: `deadline` on the event loop's clock, None when the caller set none."""

    deadline: float | None = None
