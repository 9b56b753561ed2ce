"""Whether a worker holds much more memory than its models need. A pure function of what was measured."""

from __future__ import annotations

from collections.abc import Collection

from ..store.records import Version

_TOLERATED_BYTES = 64 << 20
_TOLERATED_SHARE = 0.5


def worth_replacing(anonymous: int, baseline: int, versions: Collection[Version]) -> bool:
    """Whether to replace a worker after an unload.

    A fresh worker is ready in a tenth of a second, so one without models is always worth replacing: that gives back
    everything, whatever the engine's allocator kept.

    Args:
        anonymous: the worker's anonymous memory now, in bytes. Weights mapped from files do not count: they are there
            as long as a version uses them, whichever was loaded first.
        baseline: what it was before the first load.
        versions: what the worker still holds.
    """
    if not versions:
        return True
    needed = sum(version.loaded.anonymous_bytes for version in versions if version.loaded is not None)
    excess = anonymous - baseline - needed
    return excess > max(_TOLERATED_BYTES, _TOLERATED_SHARE * needed)
