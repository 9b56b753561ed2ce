"""Who a caller says to be, and who it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

ALL_SCOPES = "*"


class Role(IntEnum):
    """What one may do in a scope; each role has what is above it, too."""

    # No role: for whom a scope does not exist.
    NONE = 0
    # Predictions, and reading what is hosted.
    PREDICT = 1
    # Loads, unloads, labels, uploads, optimizations.
    MANAGE = 2
    # The scope itself: creating, changing and deleting it. On all scopes: the server.
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a caller came with, as it came.

    Attributes:
        authorization: the `authorization` header; empty when there is none. Never to be seen in a log.
        subject: the common name of its client certificate, which an authority that we trust has signed; empty when
            there is none.
    """

    authorization: str = field(default="", repr=False)
    subject: str = ""


NO_CREDENTIALS = Credentials()


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller that is known.

    Attributes:
        name: of the team, person or program; several tokens and certificates may be one's.
        grants: its role on each scope it has one on; on `ALL_SCOPES`, too.
    """

    name: str
    grants: Mapping[str, Role] = field(default_factory=dict)

    def role_on(self, scope: str) -> Role:
        """Its role on a scope."""
        grants = self.grants
        return max(grants.get(scope, Role.NONE), grants.get(ALL_SCOPES, Role.NONE))
