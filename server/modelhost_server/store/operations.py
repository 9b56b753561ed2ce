"""What callers ask of the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields

from ..samples import Sample
from .records import Description, Loaded, LoadOptions
from .requests import scoped_id


@dataclass(frozen=True, slots=True)
class AskedLoad:
    """What of a load is remembered, and counts when requests are compared.

    `version` 0 means the number of the source's newest sub-directory, or, when it has none, the next number. With
    `replaces`, there may be a version of this number: it serves until the new one is AVAILABLE, and goes on when that
    fails.
    """

    scope: str
    model: str
    version: int
    source: str
    options: LoadOptions
    labels: tuple[str, ...] = ()
    keep_older: bool = False
    replaces: bool = False
    request_id: str = ""
    derived_from: int = 0
    derivation: str = ""

    @property
    def memory_id(self) -> str:
        """See `scoped_id`."""
        return scoped_id(self.scope, self.request_id)


@dataclass(frozen=True, slots=True)
class LoadRequest(AskedLoad):
    """A load as asked for, with samples to warm it up with, and what its source was found to be.

    `found_version` is the number of the source's newest sub-directory, or 0. `check_loaded` raises ModelhostError when
    what was loaded is not what was asked for. What asks for a version that is not kept asks again when the server is
    started again. A caller's source may not be anywhere.
    """

    samples: tuple[Sample, ...] = ()
    samples_file: str = ""
    path: str = ""
    found_version: int = 0
    check_loaded: Callable[[Loaded], None] | None = None
    description: Description = field(default_factory=Description)
    is_kept: bool = True
    is_callers: bool = False

    @property
    def asked(self) -> AskedLoad:
        """What is remembered: samples and labels of outputs may be large."""
        return AskedLoad(**{each.name: getattr(self, each.name) for each in fields(AskedLoad)})


@dataclass(frozen=True, slots=True)
class UnloadRequest:
    """An unload as asked for: one version by number or label, or all of them."""

    scope: str
    model: str
    version: int = 0
    label: str = ""
    all_versions: bool = False
    request_id: str = ""

    @property
    def memory_id(self) -> str:
        """See `scoped_id`."""
        return scoped_id(self.scope, self.request_id)
