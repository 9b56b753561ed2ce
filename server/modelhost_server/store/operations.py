"""What callers ask of the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..samples import Sample
from .records import Description, Loaded, LoadOptions
from .requests import scoped_id


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """A load as asked for, and what its source was found to be.

    `version` 0 means `found_version`, the number of the source's newest sub-directory; when that is 0, too, the next
    number. With `replaces`, there may be a version of this number: it serves until the new one is AVAILABLE, and goes
    on when that fails. `check_loaded` raises ModelhostError when what was loaded is not what was asked for. What asks
    for a version that is not kept asks again when the server is started again. A caller's source may not be anywhere.
    What was found does not count when requests are compared.
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
    samples: tuple[Sample, ...] = field(default=(), compare=False)
    derived_from: int = 0
    derivation: str = ""
    samples_file: str = field(default="", compare=False)
    path: str = field(default="", compare=False)
    found_version: int = field(default=0, compare=False)
    check_loaded: Callable[[Loaded], None] | None = field(default=None, compare=False)
    description: Description = field(default_factory=Description, compare=False)
    is_kept: bool = field(default=True, compare=False)
    is_callers: bool = field(default=False, compare=False)

    @property
    def memory_id(self) -> str:
        """See `scoped_id`."""
        return scoped_id(self.scope, self.request_id)


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
