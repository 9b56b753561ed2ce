"""What is to be followed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .policy import Latest, VersionPolicy

_NEWEST = Latest()


@dataclass(frozen=True, slots=True)
class ModelDirectory:
    """A directory of one model's versions, each in a sub-directory that its number names.

    Attributes:
        labels: the versions that labels are to be on.
    """

    scope: str
    model: str
    base_path: str
    policy: VersionPolicy = _NEWEST
    labels: Mapping[str, int] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """The scope and the model."""
        return self.scope, self.model
