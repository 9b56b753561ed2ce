"""Regions of the client: ranges are used again when they may be, memory is given back, nothing is left behind."""

from __future__ import annotations

import gc
import itertools
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from modelhost._regions import Range, Region

PAGE = 4096
MB = 1 << 20


@pytest.fixture
def region() -> Iterator[Region]:
    region = Region(1 << 30)
    yield region
    region.close()


def taken(region: Region, size: int) -> Range:
    found = region.allocate(size)
    assert found is not None
    return found


def test_ranges_do_not_overlap_and_are_used_again(region: Region) -> None:
    choose = random.Random(1)
    used: list[Range] = []
    for _ in range(2000):
        if used and choose.random() < 0.5:
            used.pop(choose.randrange(len(used))).free()
        else:
            used.append(taken(region, choose.randrange(1, 50 * PAGE)))
        places = sorted((one.offset, one.size) for one in used)
        assert all(start + size <= then for (start, size), (then, _) in itertools.pairwise(places))
    for one in used:
        one.free()
    assert taken(region, 1 << 30).offset == 0


def test_a_full_region_has_no_room() -> None:
    region = Region(8 * PAGE)
    first, _ = taken(region, 4 * PAGE), taken(region, 3 * PAGE + 1)
    assert region.allocate(1) is None
    first.free()
    assert taken(region, 2 * PAGE).offset == 0
    region.close()


def test_what_is_retired_is_never_used_again(region: Region) -> None:
    one = taken(region, 200 * MB)
    one.retire()
    assert not region.is_worn
    other = taken(region, 100 * MB)
    assert other.offset == one.size
    other.retire()
    assert region.is_worn


def pages_in_memory(region: Region) -> int:
    return os.fstat(region._fd).st_blocks * 512


def test_memory_is_given_back_when_nothing_is_used(region: Region) -> None:
    ranges = [taken(region, 50 * MB) for _ in range(4)]
    assert pages_in_memory(region) == 200 * MB
    for one in ranges:
        one.free()
    taken(region, PAGE)
    assert pages_in_memory(region) == 64 * MB


def test_where_there_is_no_memory_there_is_no_range(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    taken(region, PAGE).free()
    monkeypatch.setattr("os.posix_fallocate", full)
    # What is there already can be used all the same.
    taken(region, PAGE)
    assert region.allocate(PAGE) is None


def test_the_file_is_its_owners_and_goes_with_it() -> None:
    region = Region(MB)
    path = Path("/dev/shm", region.name)
    assert path.stat().st_mode & 0o777 == 0o600
    assert region.name.startswith("modelhost-")
    region.close()
    region.close()
    assert not path.exists()


def test_what_is_in_a_closed_region_stays() -> None:
    region = Region(MB)
    one = taken(region, 10)
    one.view[:5] = b"still"
    region.unlink()
    region.close()
    assert bytes(one.view[:5]) == b"still"


def test_a_region_closes_after_its_last_prediction() -> None:
    region = Region(MB)
    assert region.enter()
    region.close()
    assert not region.enter()
    taken(region, 10).view[:5] = b"still"
    fd = region._fd
    assert os.fstat(fd).st_size == MB
    region.leave()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_a_region_that_nobody_has_any_more_is_gone() -> None:
    region = Region(MB)
    fd = region._fd
    region.unlink()
    del region
    gc.collect()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_threads_may_share_a_region(region: Region) -> None:
    wrong = []

    def use(mark: int) -> None:
        for _ in range(300):
            one = taken(region, 2 * PAGE)
            one.view[:] = bytes([mark]) * one.size
            if bytes(one.view) != bytes([mark]) * one.size:
                wrong.append(mark)
            one.free()

    threads = [threading.Thread(target=use, args=(mark,)) for mark in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
