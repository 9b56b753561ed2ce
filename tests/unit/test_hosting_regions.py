"""Regions: files of callers, opened with care."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from modelhost_server.config import ServerConfig
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.hosting.regions import Regions

SIZE = 4096
Make = Callable[..., int]


@pytest.fixture
def regions(tmp_path: Path) -> Regions:
    return Regions(True, tmp_path, limit=3)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes files as callers do, and lets go of them."""
    fds: list[int] = []

    def make(name: str = "modelhost-a", size: int = SIZE, lock: bool = True) -> int:
        fd = os.open(tmp_path / name, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(fd, size)
        if lock:
            fcntl.flock(fd, fcntl.LOCK_EX)
        fds.append(fd)
        return fd

    yield make
    for fd in fds:
        os.close(fd)


def refused(reason: Reason, call: Callable[[], object]) -> str:
    with pytest.raises(ModelhostError) as caught:
        call()
    assert caught.value.reason is reason
    return caught.value.message


def test_both_sides_see_what_the_other_wrote(regions: Regions, make: Make) -> None:
    fd = make()
    regions.register("r", "modelhost-a", SIZE)
    os.pwrite(fd, b"from the caller", 100)
    target = bytearray(15)
    regions.range("r", 100, 15).read_into(memoryview(target))
    assert target == b"from the caller"
    regions.range("r", SIZE - 10, 10).write_from(memoryview(b"the server"))
    assert os.pread(fd, 100, SIZE - 10) == b"the server"
    assert [(region.name, region.byte_size) for region in regions.list()[0]] == [("r", SIZE)]


def test_a_file_without_a_name_goes_on(regions: Regions, make: Make, tmp_path: Path) -> None:
    fd = make()
    regions.register("r", "modelhost-a", SIZE)
    (tmp_path / "modelhost-a").unlink()
    regions.register("r", "modelhost-a", SIZE)
    regions.range("r", 0, 2).write_from(memoryview(b"hi"))
    assert os.pread(fd, 2, 0) == b"hi"


@pytest.mark.parametrize(
    ("offset", "size"), [(0, SIZE + 1), (SIZE, 1), (SIZE + 1, 0), (2**64 - 1, 2**64 - 1), (1, SIZE)]
)
def test_ranges_end_where_the_region_does(regions: Regions, make: Make, offset: int, size: int) -> None:
    make(size=2 * SIZE)
    regions.register("r", "modelhost-a", SIZE)
    assert "4096 bytes" in refused(Reason.REGION_INVALID, lambda: regions.range("r", offset, size))
    assert len(regions.range("r", 0, SIZE)) == SIZE


def test_a_file_that_has_been_cut_short_hurts_nobody(regions: Regions, make: Make) -> None:
    fd = make()
    regions.register("r", "modelhost-a", SIZE)
    os.ftruncate(fd, 10)
    whole = regions.range("r", 0, SIZE)
    with pytest.raises(OSError, match="cut short"):
        whole.read_into(memoryview(bytearray(SIZE)))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a",
        "modelhost-",
        "../modelhost-a",
        "modelhost-/../x",
        "/dev/shm/modelhost-a",
        "modelhost-a\n",
        "modelhost-é",
    ],
)
def test_only_plain_names_are_opened(regions: Regions, make: Make, name: str) -> None:
    make()
    assert "expected a name in" in refused(Reason.REGION_INVALID, lambda: regions.register("r", name, SIZE))


def test_what_is_no_file_of_a_caller_is_refused(regions: Regions, make: Make, tmp_path: Path) -> None:
    make("other")
    (tmp_path / "modelhost-link").symlink_to(tmp_path / "other")
    (tmp_path / "modelhost-directory").mkdir()
    os.mkfifo(tmp_path / "modelhost-pipe")
    make("modelhost-unlocked", lock=False)
    for name in ("link", "directory", "pipe", "unlocked", "missing"):
        message = refused(Reason.REGION_INVALID, lambda name=name: regions.register("r", f"modelhost-{name}", 1))  # type: ignore[misc]
        assert f"modelhost-{name}" in message
    assert regions.list() == ([], "")


@pytest.mark.parametrize("size", [0, SIZE + 1])
def test_a_region_is_no_larger_than_its_file(regions: Regions, make: Make, size: int) -> None:
    make()
    assert "1 to 4096" in refused(Reason.REGION_INVALID, lambda: regions.register("r", "modelhost-a", size))


def test_a_name_means_one_region(regions: Regions, make: Make) -> None:
    make()
    regions.register("r", "modelhost-a", SIZE)
    refused(Reason.REGION_ALREADY_EXISTS, lambda: regions.register("r", "modelhost-a", 1))
    refused(Reason.INVALID_NAME, lambda: regions.register("a/b", "modelhost-a", SIZE))


def test_an_unregistered_region_is_closed_when_its_last_range_is_done(
    regions: Regions, make: Make, tmp_path: Path
) -> None:
    def opened() -> int:
        return [file.path for file in psutil.Process().open_files()].count(str(tmp_path / "modelhost-a"))

    fd = make()
    regions.register("r", "modelhost-a", SIZE)
    in_use = regions.range("r", 0, 4)
    regions.unregister("r", allow_missing=False)
    refused(Reason.REGION_NOT_FOUND, lambda: regions.range("r", 0, 4))
    in_use.write_from(memoryview(b"last"))
    assert os.pread(fd, 4, 0) == b"last"
    assert opened() == 2
    del in_use
    assert opened() == 1
    refused(Reason.REGION_NOT_FOUND, lambda: regions.unregister("r", allow_missing=False))
    regions.unregister("r", allow_missing=True)


def test_regions_of_callers_that_have_gone_are_forgotten(regions: Regions, make: Make) -> None:
    callers = {name: make(f"modelhost-{name}") for name in "abcd"}
    for name in "abc":
        regions.register(name, f"modelhost-{name}", SIZE)
    refused(Reason.REGION_LIMIT, lambda: regions.register("d", "modelhost-d", SIZE))
    # As the kernel does when a process ends.
    fcntl.flock(callers["a"], fcntl.LOCK_UN)
    regions.register("d", "modelhost-d", SIZE)
    assert [region.name for region in regions.list()[0]] == ["b", "c", "d"]
    first, token = regions.list(2)
    assert [region.name for region in (*first, *regions.list(2, token)[0])] == ["b", "c", "d"]
    fcntl.flock(callers["c"], fcntl.LOCK_UN)
    regions.forget_abandoned()
    assert [region.name for region in regions.list()[0]] == ["b", "d"]


def test_when_it_is_off_it_says_how_to_turn_it_on() -> None:
    regions = Regions(False)
    for call in (
        lambda: regions.register("r", "modelhost-a", SIZE),
        lambda: regions.unregister("r", True),
        lambda: regions.list(),
        lambda: regions.range("r", 0, 1),
    ):
        assert "--shared-memory on" in refused(Reason.UNSUPPORTED, call)


@pytest.mark.parametrize(
    ("setting", "listen", "shared"),
    [
        ("auto", ["127.0.0.1:8500", "[::1]:8500", "localhost:0", "unix:/run/m.sock"], True),
        ("auto", ["127.0.0.1:8500", "0.0.0.0:8501"], False),
        ("auto", ["[::]:8500"], False),
        ("auto", ["example.com:8500"], False),
        ("on", ["0.0.0.0:8500"], True),
        ("off", ["127.0.0.1:8500"], False),
    ],
)
def test_who_may_share_memory(setting: str, listen: list[str], shared: bool) -> None:
    config = ServerConfig(shared_memory=setting, listen=tuple(listen), insecure=True)  # type: ignore[arg-type]
    assert config.shares_memory is shared
