"""What the keepers of all scopes share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..sources.sources import Sources
from ..store.records import Version
from ..store.store import Store
from ..workers.template import Templates
from .admission import Admission, Budget
from .conversion import Conversion
from .room import Room
from .tuning import Tuner
from .waiting import Waiting


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
