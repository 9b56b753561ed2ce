"""The store of weights: what is kept once, what is mapped, and what happens when files are not as they should be."""

from __future__ import annotations

import gc
import hashlib
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from modelhost_server.engines.weights import Blob, WeightStore

DATA = random.Random(0).randbytes(100_001)
NAME = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def store(directory: Path) -> WeightStore:
    return WeightStore(directory)


def file_of(directory: Path) -> Path:
    return directory / "weights" / NAME


def content(blob: Blob | None) -> bytes:
    assert blob is not None
    return bytes(blob.view(0, blob.size))


def mappings(directory: Path) -> list[str]:
    """The lines of this process's memory map that are files of the store."""
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if str(directory) in line]


def test_what_is_put_is_found_under_the_hash_of_its_bytes(store: WeightStore, directory: Path) -> None:
    assert content(store.put(DATA)) == DATA
    assert [path.name for path in (directory / "weights").iterdir()] == [NAME]
    assert content(store.get(NAME, len(DATA))) == DATA
    assert content(WeightStore(directory).get(NAME, len(DATA))) == DATA


def test_equal_bytes_are_one_blob(store: WeightStore, directory: Path) -> None:
    first, second, other = store.put(DATA), store.put(bytearray(DATA)), store.put(DATA[1:])
    assert first is second is store.get(NAME, len(DATA))
    assert other is not first
    assert len(mappings(directory)) == 2


def test_a_view_is_a_part_of_the_bytes(store: WeightStore) -> None:
    blob = store.put(DATA)
    assert bytes(blob.view(64, 1000)) == DATA[64:1064]


def test_nobody_can_write_to_what_is_shared(store: WeightStore, directory: Path) -> None:
    blob = store.put(DATA)
    (mapping,) = mappings(directory)
    assert mapping.split()[1] == "r--p"
    assert blob.size == len(DATA)


def test_a_blob_is_unmapped_with_its_last_user_and_not_before(store: WeightStore, directory: Path) -> None:
    first = store.put(DATA)
    second = store.put(DATA)
    del first
    gc.collect()
    assert len(mappings(directory)) == 1
    assert content(second) == DATA
    del second
    gc.collect()
    assert mappings(directory) == []
    assert content(store.get(NAME, len(DATA))) == DATA


def test_no_file_stays_open(store: WeightStore) -> None:
    before = len(os.listdir("/proc/self/fd"))
    blobs = [store.put(DATA[i:]) for i in range(20)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert len({blob.name for blob in blobs}) == 20


@pytest.mark.parametrize("there", [b"", DATA[:-1], DATA + b"x"], ids=["empty", "truncated", "too long"])
def test_a_file_of_the_wrong_size_is_not_used_and_written_again(
    store: WeightStore, directory: Path, there: bytes
) -> None:
    file_of(directory).parent.mkdir(parents=True)
    file_of(directory).write_bytes(there)
    assert store.get(NAME, len(DATA)) is None
    assert content(store.put(DATA)) == DATA
    assert file_of(directory).read_bytes() == DATA


def test_a_file_that_is_deleted_stays_mapped_and_is_written_again(store: WeightStore, directory: Path) -> None:
    blob = store.put(DATA)
    file_of(directory).unlink()
    assert content(blob) == DATA
    assert store.get(NAME, len(DATA)) is None
    assert store.put(DATA) is blob
    assert file_of(directory).read_bytes() == DATA


def test_what_is_used_is_touched(store: WeightStore, directory: Path) -> None:
    blob = store.put(DATA)
    store.write_index("digest", [1])
    files = [file_of(directory), directory / "index" / "digest.json"]
    for file in files:
        os.utime(file, (1000, 1000))
    store.get(NAME, len(DATA))
    store.read_index("digest")
    assert [time.time() - file.stat().st_mtime < 60 for file in files] == [True, True]
    assert blob.users == 0


def test_many_threads_put_the_same_at_once(store: WeightStore, directory: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        blobs = list(pool.map(lambda _: store.put(DATA), range(64)))
    assert len({id(blob) for blob in blobs}) == 1
    assert [path.name for path in (directory / "weights").iterdir()] == [NAME]
    assert len(mappings(directory)) == 1


def test_many_processes_put_the_same_at_once(directory: Path) -> None:
    program = (
        "import sys, pathlib, random; from modelhost_server.engines.weights import WeightStore\n"
        "store = WeightStore(pathlib.Path(sys.argv[1]))\n"
        "for i in range(20):\n"
        "    data = random.Random(i).randbytes(200_000)\n"
        "    blob = store.put(data); assert bytes(blob.view(0, blob.size)) == data\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(directory)]) for _ in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    files = list((directory / "weights").iterdir())
    assert len(files) == 20
    assert all(hashlib.sha256(file.read_bytes()).hexdigest() == file.name for file in files)


def test_a_store_that_cannot_be_written_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    # Root may write where others may not, but not below a file.
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        WeightStore(tmp_path / "file").put(DATA)
    assert WeightStore(tmp_path / "file").read_index("digest") is None


def test_a_full_disk_leaves_nothing_half_written(store: WeightStore, directory: Path) -> None:
    limited = (
        "import resource, signal, sys, pathlib; from modelhost_server.engines.weights import WeightStore\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try:\n    WeightStore(pathlib.Path(sys.argv[1])).put(b'x' * 100_000)\n"
        "except OSError as error:\n    print(error.strerror)\n"
    )
    done = subprocess.run([sys.executable, "-c", limited, str(directory)], capture_output=True, text=True, check=True)
    assert done.stdout == "File too large\n"
    assert list((directory / "weights").iterdir()) == []
    assert content(store.put(DATA)) == DATA


def test_an_index_comes_back_and_a_damaged_one_is_none(store: WeightStore, directory: Path) -> None:
    assert store.read_index("digest") is None
    store.write_index("digest", {"a": [1, 2]})
    assert store.read_index("digest") == {"a": [1, 2]}
    file = directory / "index" / "digest.json"
    for damaged in (file.read_bytes()[:-1], b"", b"\xff\xfe"):
        file.write_bytes(damaged)
        assert store.read_index("digest") is None
    assert [path.name for path in (directory / "index").iterdir()] == ["digest.json"]


def test_users_are_counted(store: WeightStore) -> None:
    one, two = store.put(DATA), store.put(DATA[1:])
    store.hold({one, two})
    store.hold({one})
    assert (one.users, two.users) == (2, 1)
    store.release({one, two})
    assert (one.users, two.users) == (1, 0)
