"""Uploads on disk: what stays, what goes, and what nobody sees."""

import asyncio
import hashlib
import os
import time

import pytest
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.sources import uploads as module
from modelhost_server.sources.manifest import FILES, Manifest, UploadedFile
from modelhost_server.sources.uploads import Uploads
from modelhost_server.sources.workspace import Workspace

HOUR = 3601.0


def manifest_of(**files):
    described = (UploadedFile(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items())
    return Manifest(FILES, tuple(described))


async def sent(uploads, scope="default", **files):
    manifest = manifest_of(**files)
    await uploads.prepare(scope, manifest)
    receiving = await uploads.receive(scope, manifest.id)
    for index, data in enumerate(files.values()):
        await receiving.write(index, 0, data)
    await receiving.finish()
    await receiving.close()
    return manifest.id


@pytest.fixture
async def uploads(tmp_path):
    made = Uploads(tmp_path / "uploads", limit=1000)
    await made.start()
    yield made
    made.close()


@pytest.fixture
def later(monkeypatch):
    """Lets time pass."""
    passed = [0.0]
    monkeypatch.setattr(module.time, "time", lambda now=time.time: now() + passed[0])
    return lambda seconds: passed.__setitem__(0, passed[0] + seconds)


def found(uploads, scope, upload):
    try:
        return uploads.path(scope, f"upload:{upload}").is_dir()
    except ModelhostError:
        return False


async def test_an_upload_that_no_version_uses_goes_after_an_hour(uploads, later):
    used, unused = await sent(uploads, a=b"used"), await sent(uploads, a=b"unused")
    later(HOUR / 2)
    await uploads.collect(lambda: {("default", used)})
    assert found(uploads, "default", unused)
    later(HOUR)
    await uploads.collect(lambda: {("default", used)})
    assert found(uploads, "default", used)
    assert not found(uploads, "default", unused)
    assert not any((uploads._folder._trash).glob("*"))


async def test_the_least_recently_used_go_first_when_they_are_too_much(uploads, later):
    first, second = await sent(uploads, a=b"1" * 600), await sent(uploads, a=b"2" * 600)
    await uploads.collect(set)
    assert found(uploads, "default", second), "it is about to be loaded"
    later(700)
    assert found(uploads, "default", first)
    await uploads.collect(set)
    assert not found(uploads, "default", second)
    assert found(uploads, "default", first)


async def test_a_scope_sees_its_own_uploads_and_takes_them_along(uploads):
    upload = await sent(uploads, "a", x=b"x")
    assert found(uploads, "a", upload)
    assert not found(uploads, "b", upload)
    prepared = await uploads.prepare("b", manifest_of(x=b"x"))
    assert not prepared.is_complete
    with pytest.raises(ModelhostError) as failed:
        await uploads.receive("c", upload)
    assert failed.value.reason is Reason.UPLOAD_NOT_FOUND
    await uploads.remove_scope("a")
    assert not found(uploads, "a", upload)


async def test_several_announce_the_same_at_once(uploads):
    for number in range(20):
        manifest = manifest_of(a=b"%d" % number)
        prepared = await asyncio.gather(*(uploads.prepare("default", manifest) for _ in range(4)))
        assert {each.missing for each in prepared} == {((0, 0),)}


async def test_a_scope_is_removed_while_one_sends_to_it(uploads, tmp_path):
    manifest = manifest_of(x=b"xyz")
    await uploads.prepare("a", manifest)
    receiving = await uploads.receive("a", manifest.id)
    await receiving.write(0, 0, b"x")
    await uploads.remove_scope("a")
    with pytest.raises(ModelhostError) as failed:
        await receiving.write(0, 1, b"y")
    assert failed.value.reason is Reason.UPLOAD_NOT_FOUND
    await receiving.close()
    assert not (tmp_path / "uploads" / "a").exists()


async def test_what_has_arrived_is_kept_for_an_hour_also_by_the_next_server(tmp_path, later):
    manifest = manifest_of(x=b"xyz")
    first = Uploads(tmp_path, 1000)
    await first.start()
    await first.prepare("a", manifest)
    receiving = await first.receive("a", manifest.id)
    await receiving.write(0, 0, b"xy")
    # It is killed: nothing is closed.
    second = Uploads(tmp_path, 1000)
    await second.start()
    assert (await second.prepare("a", manifest)).missing == ((0, 2),)
    await receiving.close()
    later(HOUR)
    third = Uploads(tmp_path, 1000)
    await third.start()
    assert (await third.prepare("a", manifest)).missing == ((0, 0),)
    for each in (first, second, third):
        each.close()


async def test_a_version_that_comes_back_with_the_server_finds_its_upload(tmp_path, later):
    first = Uploads(tmp_path, 1000)
    await first.start()
    upload = await sent(first, x=b"x")
    first.close()
    later(10 * HOUR)
    second = Uploads(tmp_path, 1000)
    await second.start()
    # Which versions there are may not be known yet.
    await second.collect(set)
    assert found(second, "default", upload)
    second.close()


async def test_a_full_disk_leaves_nothing(uploads, monkeypatch):
    manifest = manifest_of(x=b"xyz")
    await uploads.prepare("a", manifest)
    receiving = await uploads.receive("a", manifest.id)
    await receiving.write(0, 0, b"x")
    real, full = receiving._pieces._file, open("/dev/full", "ab", buffering=0)  # noqa: SIM115, ASYNC230
    receiving._pieces._file = full
    with pytest.raises(ModelhostError) as failed:
        await receiving.write(0, 1, b"y")
    assert (failed.value.reason, failed.value.retry_after) == (Reason.STORAGE_FAILED, 30.0)
    await receiving.close()
    real.close()
    assert (await uploads.prepare("a", manifest)).missing == ((0, 0),)


async def test_an_upload_the_disk_has_no_room_for_is_refused_before_it_is_sent(tmp_path):
    uploads = Uploads(tmp_path, 1 << 62)
    await uploads.start()
    with pytest.raises(ModelhostError) as failed:
        await uploads.prepare("a", Manifest(FILES, (UploadedFile("x", 1 << 60, "0" * 64),)))
    assert failed.value.reason is Reason.STORAGE_FAILED
    uploads.close()


async def test_too_many_uploads_that_nobody_completes(uploads):
    for number in range(64):
        await uploads.prepare("a", manifest_of(x=str(number).encode()))
    with pytest.raises(ModelhostError) as failed:
        await uploads.prepare("a", manifest_of(x=b"one more"))
    assert failed.value.reason is Reason.UPLOAD_LIMIT
    await uploads.prepare("b", manifest_of(x=b"another scope"))


async def test_the_completion_goes_on_when_the_caller_leaves(uploads):
    manifest = manifest_of(x=b"xyz")
    await uploads.prepare("a", manifest)
    receiving = await uploads.receive("a", manifest.id)
    await receiving.write(0, 0, b"xyz")

    async def finish():
        try:
            await receiving.finish()
        finally:
            await receiving.close()

    finishing = asyncio.create_task(finish())
    await asyncio.sleep(0)
    finishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await finishing
    assert found(uploads, "a", manifest.id)


def test_a_directory_of_a_process_that_died_is_removed_by_the_next(tmp_path):
    left = tmp_path / "process-left"
    (left / "uploads").mkdir(parents=True)
    (left / "lock").touch()
    first = Workspace(tmp_path)
    assert not left.exists()
    second = Workspace(tmp_path)
    assert first.folder.is_dir()
    first.close()
    second.close()
    assert os.listdir(tmp_path) == ["lock"]
