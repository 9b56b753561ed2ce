"""What a service knows of the call it answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Call:
    """A call.

    Attributes:
        deadline: on the event loop's clock, None when the caller set none.
        caller: the connection it came by, e.g. "ipv4:10.0.0.7:51234".
    """

    deadline: float | None = None
    caller: str = ""
