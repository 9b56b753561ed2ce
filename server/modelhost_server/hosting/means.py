"""What keepers share: those of all scopes, and those who change what the workers of one scope hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..sources.sources import Sources
from ..store.records import Scope, Version
from ..store.store import Store
from ..workers.template import Templates
from .admission import Admission, Budget
from .background import Background
from .blame import Blame
from .conversion import Conversion
from .placement import Placement
from .room import Room
from .tuning import Tuner
from .turns import Turns
from .waiting import Waiting
from .workforce import Workforce


@dataclass(frozen=True, slots=True)
class Means:
    """Stores, processes and limits that a keeper uses and others use, too."""

    store: Store
    sources: Sources
    templates: Templates
    conversion: Conversion
    tuner: Tuner
    admission: Admission
    room: Room
    server_budget: Budget
    waiting: Waiting
    cache_dir: Path
    on_available: Callable[[Version], None]


@dataclass(frozen=True, slots=True)
class ScopeMeans:
    """A scope, its workers, and what whoever changes what these hold must know of the others who do.

    Attributes:
        turns: at changing what the workers hold.
        budgets: that what they hold must fit into.
        server: what all scopes share.
    """

    scope: Scope
    workers: Workforce
    placement: Placement
    turns: Turns
    blame: Blame
    budgets: Sequence[Budget]
    background: Background
    server: Means
