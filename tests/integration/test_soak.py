"""A short form of `make soak`."""

from __future__ import annotations

from soak.soaking import grown, soak

# Of so few loads memory says little: what the first of them took is not all in use again.
MEMORY_GROWTH = 1.3
# Pools begin a thread when all they have are busy; one that each load left behind would be many more.
MORE_THREADS = 6
THREADS = ("server: threads", "workers: threads")


def test_loads_and_predictions_leave_nothing_behind():
    first, last = soak(100, 500, first=0.3, engines=("tensorflow",), fill=False, quiet_seconds=2.0)
    for name in THREADS:
        assert last[name] <= first[name] + MORE_THREADS, (first, last)
    counts = [name for name in grown(first, last) if not name.endswith(("MB", *THREADS))]
    assert not counts, (first, last)
    assert not [name for name in first if name.endswith(" MB") and last[name] > MEMORY_GROWTH * first[name]], (
        first,
        last,
    )
