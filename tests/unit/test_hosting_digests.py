"""Content has one hash, whatever it is called and whenever it is asked for."""

import json
import os
from pathlib import Path

import pytest
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.hosting.digests import Digests


def model(folder: Path, weights: bytes = b"weights") -> str:
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.data").write_bytes(weights)
    return str(folder)


async def test_equal_content_has_an_equal_digest_and_other_content_another(tmp_path):
    digests = Digests(tmp_path / "cache")
    first = await digests.of(model(tmp_path / "a"))
    assert await digests.of(model(tmp_path / "b")) == first
    assert await digests.of(model(tmp_path / "c", b"Weights")) != first


async def test_names_of_files_count(tmp_path):
    digests = Digests(tmp_path / "cache")
    first = await digests.of(model(tmp_path / "a"))
    path = model(tmp_path / "b")
    os.rename(tmp_path / "b" / "saved_model.pb", tmp_path / "b" / "saved_model.pbtxt")
    assert await digests.of(path) != first


async def test_a_change_is_seen(tmp_path):
    digests = Digests(tmp_path / "cache")
    path = model(tmp_path / "a")
    first = await digests.of(path)
    file = tmp_path / "a" / "variables" / "variables.data"
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=(1, 1))
    assert await digests.of(path) != first


async def test_what_looks_unchanged_is_not_read_again(tmp_path):
    path = model(tmp_path / "a")
    file = tmp_path / "a" / "variables" / "variables.data"
    first = await Digests(tmp_path / "cache").of(path)
    looks = file.stat()
    with file.open("r+b") as opened:
        opened.write(b"W")
    os.utime(file, ns=(looks.st_atime_ns, looks.st_mtime_ns))
    assert await Digests(tmp_path / "cache").of(path) == first


async def test_a_damaged_or_unwritable_memory_costs_only_time(tmp_path):
    path = model(tmp_path / "a")
    first = await Digests(tmp_path / "cache").of(path)
    for memo in (tmp_path / "cache" / "digests").iterdir():
        memo.write_text("{")
    assert await Digests(tmp_path / "cache").of(path) == first
    (tmp_path / "file").touch()
    assert await Digests(tmp_path / "file").of(path) == first


@pytest.mark.parametrize("written", ["[]", "1", "[" * 100_000, '{{"looks": {looks}, "digest": "../../elsewhere"}}',
                                     '{{"looks": {looks}, "digest": 7}}'])  # fmt: skip
async def test_what_models_write_into_the_memory_is_not_believed(tmp_path, written):
    path = model(tmp_path / "a")
    first = await Digests(tmp_path / "cache").of(path)
    (memo,) = (tmp_path / "cache" / "digests").iterdir()
    memo.write_text(written.format(looks=json.dumps(json.loads(memo.read_text())["looks"])))
    assert await Digests(tmp_path / "cache").of(path) == first


async def test_a_memory_that_is_a_pipe_or_a_link_or_endless_is_not_read(tmp_path):
    path = model(tmp_path / "a")
    first = await Digests(tmp_path / "cache").of(path)
    (memo,) = (tmp_path / "cache" / "digests").iterdir()
    for make in (os.mkfifo, lambda place: place.symlink_to("/dev/zero"), lambda place: place.touch()):
        memo.unlink()
        make(memo)
        if memo.is_file():
            os.truncate(memo, 1 << 36)
        assert await Digests(tmp_path / "cache").of(path) == first


async def test_a_file_is_content_too_and_nothing_is_an_error(tmp_path):
    (tmp_path / "m.tflite").write_bytes(b"TFL3")
    assert len(await Digests(tmp_path).of(str(tmp_path / "m.tflite"))) == 64
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(ModelhostError) as caught:
        await Digests(tmp_path).of(str(tmp_path / "m.tflite" / "below"))
    assert caught.value.reason is Reason.SOURCE_NOT_FOUND
