"""The arena: ranges never overlap, come back whole, and what was touched goes back to the system."""

from __future__ import annotations

import mmap
import os
import random
import threading
from bisect import bisect_left, insort
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from modelhost_server.ipc.arena import ARENA_BYTES, Arena, create_arena_fd

PAGE = mmap.PAGESIZE
MEBIBYTE = 1 << 20
WARM_BYTES = 64 * MEBIBYTE


@pytest.fixture
def fd() -> Iterator[int]:
    fd = create_arena_fd()
    yield fd
    os.close(fd)


@pytest.fixture
def arena(fd: int) -> Iterator[Arena]:
    arena = Arena(fd)
    yield arena
    arena.close()


def resident(fd: int) -> int:
    return os.fstat(fd).st_blocks * 512


def allocated(arena: Arena, size: int) -> int:
    offset = arena.allocate(size)
    assert offset is not None
    return offset


class Allocations(RuleBasedStateMachine):
    """Compares the arena with a list of what is in use, from which every answer can be told."""

    def __init__(self) -> None:
        super().__init__()
        self.fd = create_arena_fd()
        self.arena = Arena(self.fd)
        self.used: list[tuple[int, int]] = []

    def teardown(self) -> None:
        self.arena.close()
        os.close(self.fd)

    @rule(
        size=st.one_of(
            st.integers(1, 4 * PAGE),
            st.integers(1, 5).map(lambda n: n * PAGE),
            st.integers(1, 5).map(lambda n: n << 32),
        )
    )
    def allocate(self, size: int) -> None:
        pages = -(-size // PAGE) * PAGE
        expected = 0
        for offset, taken in self.used:
            if offset - expected >= pages:
                break
            expected = offset + taken
        fits = ARENA_BYTES - expected >= pages
        assert self.arena.allocate(size) == (expected if fits else None)
        if fits:
            insort(self.used, (expected, pages))

    @precondition(lambda self: self.used)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        offset, pages = data.draw(st.sampled_from(self.used))
        del self.used[bisect_left(self.used, (offset, pages))]
        self.arena.free(offset)
        with pytest.raises(KeyError):
            self.arena.free(offset)

    @rule(offset=st.integers(-1, 4 * PAGE))
    def free_something_else(self, offset: int) -> None:
        if all(offset != used for used, _ in self.used):
            with pytest.raises(KeyError):
                self.arena.free(offset)

    @precondition(lambda self: not self.used)
    @rule()
    def take_everything(self) -> None:
        assert self.arena.allocate(ARENA_BYTES) == 0
        assert self.arena.allocate(1) is None
        self.arena.free(0)

    @invariant()
    def the_bytes_in_use_are_counted(self) -> None:
        assert self.arena.used_bytes == sum(pages for _, pages in self.used)


Allocations.TestCase.settings = settings(max_examples=80, deadline=None)
test_allocations_are_the_lowest_that_fit = Allocations.TestCase


def test_ranges_hold_what_was_written_whatever_is_freed_around_them(arena: Arena) -> None:
    choose = random.Random(1)
    content: dict[int, bytes] = {}
    for step in range(400):
        if content and choose.random() < 0.45:
            offset = choose.choice(sorted(content))
            assert arena.view(offset, len(content[offset])) == content.pop(offset)
            arena.free(offset)
        else:
            data = bytes([step % 256]) * choose.randrange(1, 5 * PAGE)
            offset = allocated(arena, len(data))
            assert offset % PAGE == 0
            arena.view(offset, len(data))[:] = data
            content[offset] = data
    for offset, data in content.items():
        assert arena.view(offset, len(data)) == data


def test_lanes_may_allocate_at_once(arena: Arena) -> None:
    wrong: list[int] = []

    def lane(number: int) -> None:
        for _ in range(300):
            offset = allocated(arena, PAGE)
            view = arena.view(offset, 8)
            view[:] = bytes([number]) * 8
            if view != bytes([number]) * 8:
                wrong.append(offset)
            arena.free(offset)

    lanes = [threading.Thread(target=lane, args=(number,)) for number in range(4)]
    for thread in lanes:
        thread.start()
    for thread in lanes:
        thread.join()
    assert wrong == []
    assert arena.used_bytes == 0


@pytest.mark.parametrize(
    ("offset", "size"),
    [(-1, 1), (0, -1), (0, ARENA_BYTES + 1), (ARENA_BYTES, 1), (ARENA_BYTES - 1, 2), (ARENA_BYTES + 1, 0), (2**64, 1)],
)
def test_a_view_outside_the_arena_is_refused(arena: Arena, offset: int, size: int) -> None:
    with pytest.raises(ValueError, match="outside the arena"):
        arena.view(offset, size)


@pytest.mark.parametrize(("offset", "size"), [(0, 0), (ARENA_BYTES, 0), (ARENA_BYTES - 1, 1), (5, 7)])
def test_a_view_inside_has_the_size_asked_for(arena: Arena, offset: int, size: int) -> None:
    assert len(arena.view(offset, size)) == size


def test_both_sides_see_the_same_bytes(fd: int, arena: Arena) -> None:
    other = Arena(fd)
    offset = allocated(arena, 5)
    arena.view(offset, 5)[:] = b"hello"
    assert bytes(other.view(offset, 5)) == b"hello"
    other.close()


def test_a_new_arena_costs_nothing_and_an_empty_one_little(fd: int, arena: Arena) -> None:
    assert os.fstat(fd).st_size == ARENA_BYTES
    assert resident(fd) == 0
    for _ in range(2):
        offsets = [allocated(arena, 8 * MEBIBYTE) for _ in range(4)]
        for offset in offsets:
            arena.view(offset, 8 * MEBIBYTE)[:] = b"x" * (8 * MEBIBYTE)
        assert resident(fd) == 32 * MEBIBYTE
        for offset in offsets:
            arena.free(offset)
        assert resident(fd) <= WARM_BYTES


def test_the_first_megabytes_stay_warm(fd: int, arena: Arena) -> None:
    offset = allocated(arena, MEBIBYTE)
    arena.view(offset, MEBIBYTE)[:] = b"x" * MEBIBYTE
    arena.free(offset)
    assert resident(fd) == MEBIBYTE


def test_memory_given_back_reads_as_zeros(arena: Arena) -> None:
    size = 2 * WARM_BYTES
    offset = allocated(arena, size)
    arena.view(offset, size)[:] = b"x" * size
    arena.free(offset)
    assert bytes(arena.view(offset + size - PAGE, PAGE)) == bytes(PAGE)


def test_a_closed_arena_is_gone_once_nobody_looks_at_it(fd: int) -> None:
    arena = Arena(fd)
    view = arena.view(0, 4)
    view[:] = b"kept"
    arena.close()
    assert bytes(view) == b"kept"
    with pytest.raises(ValueError):
        arena.view(0, 4)


def test_an_arena_does_not_reach_programs_that_are_started(fd: int) -> None:
    assert not os.get_inheritable(fd)


def test_ranges_of_nothing_are_ranges_too(arena: Arena) -> None:
    assert allocated(arena, 0) != allocated(arena, 1)


def test_trimming_gives_back_what_stayed_warm_once_nothing_is_in_use(fd: int, arena: Arena) -> None:
    first, second = allocated(arena, MEBIBYTE), allocated(arena, MEBIBYTE)
    for offset in (first, second):
        arena.view(offset, MEBIBYTE)[:] = b"x" * MEBIBYTE
    arena.free(first)
    arena.trim()
    assert resident(fd) == 2 * MEBIBYTE, "the second is in use"
    arena.free(second)
    arena.trim()
    assert resident(fd) == 0
