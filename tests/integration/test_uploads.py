"""Models that are sent: complete or not at all, resumed, and refused when they are not what was announced."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile

import grpc
import modelhost
import pytest
from modelhost.v1 import model_service_pb2 as pb
from support.calls import eventually, failure, half, load
from support.server import BOTH_TRANSPORTS, ServerProcess, Stubs
from support.uploads import files_of, pieces, prepare, send

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND


@pytest.fixture
def client(server):
    with modelhost.Client(server.address) as client:
        yield client


def upload(stubs, messages):
    return stubs.models.UploadModel(iter(messages), timeout=30)


def piece(prepared, scope, index=0, offset=0, data=b""):
    return pb.UploadModelRequest(scope=scope, upload=prepared.upload, file=index, offset=offset, data=data)


def zipped(folder):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files_of(folder).items():
            archive.writestr(name, data)
    return packed.getvalue()


def tarred(folder, *extra):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(folder, arcname=folder.name)
        for info in extra:
            archive.addfile(info)
    return packed.getvalue()


@BOTH_TRANSPORTS
def test_a_directory_and_archives(stubs, scope, models):
    folder = models / "half_plus_two"
    sources = [
        send(stubs, scope, files_of(folder)),
        send(stubs, scope, {"m.zip": zipped(folder)}, pb.UPLOAD_FORMAT_ARCHIVE),
        send(stubs, scope, {"m.tar.gz": tarred(folder)}, pb.UPLOAD_FORMAT_ARCHIVE),
        send(stubs, scope, {f"7/{path}": data for path, data in files_of(folder).items()}),
    ]
    assert all(source.startswith("upload:") for source in sources)
    numbers = [load(stubs, scope, f"m{place}", source).version for place, source in enumerate(sources)]
    assert numbers == [1, 1, 1, 7]
    assert [half(stubs, scope, f"m{place}") for place in range(4)] == [4.0] * 4


@BOTH_TRANSPORTS
def test_what_is_there_is_not_sent_again_and_what_was_cut_off_is_resumed(stubs, scope, models):
    files = {**files_of(models / "half_plus_two"), "blob": bytes(range(256)) * 20_000}
    first = prepare(stubs, scope, files)
    assert not first.complete
    assert first.source == f"upload:{first.upload}"
    sent = threading.Event()

    def half_of_it():
        for message in pieces(scope, first, files, 100_000):
            yield message
            if message.offset > 1_000_000:
                break
        # As when the caller is cut off: the stream does not end.
        sent.wait(30)

    call = stubs.models.UploadModel.future(half_of_it(), timeout=60)
    blob = list(files).index("blob")

    def arrived():
        return {part.file: part.offset for part in prepare(stubs, scope, files).missing}.get(blob, 0)

    eventually(lambda: arrived() > 1_000_000)
    assert failure(lambda: upload(stubs, [piece(first, scope)]))[:2] == (grpc.StatusCode.ABORTED, "CONFLICT")
    assert failure(lambda: load(stubs, scope, "m", first.source))[1] == "SOURCE_NOT_FOUND"
    call.cancel()
    sent.set()
    eventually(lambda: failure(lambda: upload(stubs, [piece(first, scope)]))[1] == "UPLOAD_INVALID")
    second = prepare(stubs, scope, files)
    assert [part.file for part in second.missing if part.offset] == [blob]
    assert {list(files)[part.file] for part in second.missing} < set(files)
    assert upload(stubs, pieces(scope, second, files)).byte_size == sum(map(len, files.values()))
    third = prepare(stubs, scope, files)
    assert (third.complete, third.source, len(third.missing)) == (True, first.source, 0)
    assert upload(stubs, [piece(third, scope)]).source == first.source
    load(stubs, scope, "m", first.source)
    assert half(stubs, scope, "m") == 4.0


def test_pieces_that_do_not_fit(stubs, scope):
    files = {"a": b"0123456789", "b": b"x", "empty": b""}
    prepared = prepare(stubs, scope, files)
    assert [part.file for part in prepared.missing] == [0, 1]
    for wrong in (
        [piece(prepared, scope, 0, 5, b"56789")],
        [piece(prepared, scope, 0, 0, b"01234"), piece(prepared, scope, 0, 4, b"4")],
        [piece(prepared, scope, 0, 5, b"56789more")],
        [piece(prepared, scope, 0, -1, b"0")],
        [piece(prepared, scope, 3, 0, b"0")],
        [piece(prepared, scope, -1, 0, b"0")],
        [piece(prepared, scope)],
    ):
        assert failure(lambda wrong=wrong: upload(stubs, wrong))[:2] == (INVALID, "UPLOAD_INVALID")
    message = failure(
        lambda: upload(stubs, [piece(prepared, scope, 0, 5, b"XXXXX"), piece(prepared, scope, 1, 0, b"x")])
    )
    assert message[1] == "UPLOAD_INVALID"
    assert hashlib.sha256(files["a"]).hexdigest() in message[2]
    # The file with the wrong content is asked for again.
    assert [(part.file, part.offset) for part in prepare(stubs, scope, files).missing] == [(0, 0)]
    assert upload(stubs, pieces(scope, prepare(stubs, scope, files), files, 3)).byte_size == 11
    assert failure(lambda: load(stubs, scope, "m", prepared.source))[1] == "SOURCE_INVALID"


def test_uploads_that_are_refused(stubs, scope):
    for files in ({"../x": b""}, {"/x": b""}, {"a": b"", "a/b": b""}, {}):
        assert failure(lambda files=files: prepare(stubs, scope, files))[:2] == (INVALID, "UPLOAD_INVALID")
    large = pb.UploadFile(path="a", size=1 << 50, sha256=bytes(32))
    call = pb.PrepareUploadRequest(scope=scope, files=[large])
    assert failure(lambda: stubs.models.PrepareUpload(call))[:2] == (grpc.StatusCode.RESOURCE_EXHAUSTED, "UPLOAD_LIMIT")
    assert failure(lambda: prepare(stubs, scope, {"a": b""}, 17))[1] == "INVALID_REQUEST"
    assert failure(lambda: prepare(stubs, "nobody", {"a": b""}))[1] == "SCOPE_NOT_FOUND"
    for name in ("", "0" * 64, "../partial", "x" * 10_000):
        call = pb.UploadModelRequest(scope=scope, upload=name)
        assert failure(lambda call=call: upload(stubs, [call]))[:2] == (NOT_FOUND, "UPLOAD_NOT_FOUND")
        assert failure(lambda name=name: load(stubs, scope, "m", f"upload:{name}"))[1] in (
            "SOURCE_NOT_FOUND", "INVALID_REQUEST",
        )  # fmt: skip
    assert failure(lambda: upload(stubs, []))[:2] == (INVALID, "INVALID_REQUEST")


def test_an_archive_with_a_link_is_refused_and_forgotten(stubs, scope, models):
    link = tarfile.TarInfo("half_plus_two/passwd")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    files = {"m.tgz": tarred(models / "half_plus_two", link)}
    code, reason, message = failure(lambda: send(stubs, scope, files, pb.UPLOAD_FORMAT_ARCHIVE))
    assert (code, reason) == (INVALID, "UPLOAD_INVALID")
    assert "a link" in message
    assert [part.offset for part in prepare(stubs, scope, files, pb.UPLOAD_FORMAT_ARCHIVE).missing] == [0]


def test_an_upload_is_its_scopes_own(stubs, scope, models):
    source = send(stubs, scope, files_of(models / "half_plus_two"))
    assert failure(lambda: load(stubs, "default", "m", source))[1] == "SOURCE_NOT_FOUND"
    assert not prepare(stubs, "default", files_of(models / "half_plus_two")).complete


def test_the_sdk_sends_a_model_and_shows_how_far_it_is(client, scope, models, tmp_path):
    told = []
    loaded = client.load(f"{scope}/half", models / "half_plus_two", upload=True, on_progress=told.append)
    assert loaded.source.startswith("upload:")
    assert float(client.predict(f"{scope}/half", [4.0])["y"][0]) == 4.0
    stages = [news.stage for news in told]
    assert stages.index("HASHING") < stages.index("UPLOADING") < len(stages)
    sent = [news for news in told if news.stage == "UPLOADING"]
    assert (sent[-1].fraction, sent[-1].bytes_done) == (1.0, sent[-1].bytes_total)
    # Links are followed; of a directory of versions one is sent.
    (tmp_path / "versions").mkdir()
    for number in (3, 4):
        (tmp_path / "versions" / str(number)).symlink_to(models / "half_plus_two")
    assert client.load(f"{scope}/linked", tmp_path / "versions", upload=True).version == 4
    assert client.load(f"{scope}/linked@3", tmp_path / "versions", upload=True).version == 3


async def test_the_asynchronous_sdk_sends_a_model(server, scope, models):
    async with modelhost.AsyncClient(server.address) as client:
        source = await client.upload(models / "half_plus_two", scope=scope)
        assert (await client.load(f"{scope}/half", source)).source == source
        assert await client.upload(str(models / "half_plus_two"), scope=scope) == source


def test_what_is_no_model_is_not_sent(client, tmp_path):
    (tmp_path / "words.txt").touch()
    (tmp_path / "model").mkdir()
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "saved_model.pb").touch()
    (tmp_path / "loop" / "again").symlink_to(tmp_path / "loop")
    for name, words in (
        ("nothing", "nothing at"), ("words.txt", "words.txt"), ("model", "not a model"), ("loop", "a link to"),
    ):  # fmt: skip
        with pytest.raises(modelhost.InvalidRequestError, match=words) as failed:
            client.upload(tmp_path / name)
        assert failed.value.reason == "SOURCE_INVALID"
    (tmp_path / "model.tflite").touch()
    with pytest.raises(modelhost.NotFoundError):
        client.upload(tmp_path / "model.tflite", scope="nobody")


def test_two_send_the_same_at_the_same_time(server, scope, tmp_path, models):
    shutil.copytree(models / "half_plus_two", tmp_path / "m")
    (tmp_path / "m" / "blob").write_bytes(b"x" * 30_000_000)
    sources = []

    def send_it():
        with modelhost.Client(server.address) as client:
            sources.append(client.upload(tmp_path / "m", scope=scope))

    senders = [threading.Thread(target=send_it) for _ in range(3)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(60)
    assert len(sources) == 3
    assert len(set(sources)) == 1


def test_the_command_line(server, scope, models):
    def modelhost_(*arguments):
        command = [sys.executable, "-c", "from modelhost.cli import main; main()", "-t", server.address, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    sent = modelhost_("upload", str(models / "half_plus_two"), "--scope", scope)
    assert (sent.returncode, sent.stdout[:7], sent.stderr) == (0, "upload:", "")
    loaded = modelhost_("--json", "load", f"{scope}/b", str(models / "half_plus_two"), "--upload")
    assert json.loads(loaded.stdout)["source"] == sent.stdout.strip()


def test_a_server_that_is_killed_half_way_goes_on_where_it_was(transport, models, tmp_path):
    files = {**files_of(models / "half_plus_two"), "blob": bytes(3_000_000)}
    options = ("--transport", transport, "--data-dir", str(tmp_path / "data"), "--server-processes", "2")
    with ServerProcess(*options) as first:
        stubs = Stubs(first.address)
        complete = send(stubs, "default", files_of(models / "half_plus_three"))
        prepared = prepare(stubs, "default", files)
        stop = threading.Event()

        def some():
            for message in pieces("default", prepared, files, 100_000):
                yield message
                if message.offset > 1_000_000:
                    stop.wait(60)

        call = stubs.models.UploadModel.future(some(), timeout=60)
        blob = list(files).index("blob")
        eventually(lambda: any(p.file == blob and p.offset for p in prepare(stubs, "default", files).missing))
        first.process.kill()
        first.process.wait()
        stop.set()
        assert call.exception() is not None
        stubs.close()
    with ServerProcess(*options) as second:
        stubs = Stubs(second.address)
        resumed = prepare(stubs, "default", files)
        assert {part.file: part.offset for part in resumed.missing}[blob] > 0
        assert stubs.models.UploadModel(pieces("default", resumed, files), timeout=60).source == prepared.source
        load(stubs, "default", "two", prepared.source)
        load(stubs, "default", "three", complete)
        assert (half(stubs, "default", "two"), half(stubs, "default", "three")) == (4.0, 5.0)
        stubs.close()
    assert not list((tmp_path / "data" / "uploads" / "default" / "partial").iterdir())


def test_the_sdk_goes_on_when_the_server_comes_back(transport, models, tmp_path):
    shutil.copytree(models / "half_plus_two", tmp_path / "m")
    (tmp_path / "m" / "blob").write_bytes(b"x" * 50_000_000)
    options = ("--transport", transport, "--data-dir", str(tmp_path / "data"))
    first = ServerProcess(*options, listen=(f"unix:{tmp_path / 'socket'}",))
    half_way = threading.Event()
    done = []

    def told(news):
        if news.stage == "UPLOADING":
            done.append(news.bytes_done)
            if news.fraction > 0.5 and not half_way.is_set():
                half_way.set()
                first.process.kill()

    def restart():
        half_way.wait(60)
        first.process.wait()
        servers.append(ServerProcess(*options, listen=(f"unix:{tmp_path / 'socket'}",)))

    servers = []
    restarting = threading.Thread(target=restart)
    restarting.start()
    with modelhost.Client(first.address) as client:
        source = client.upload(tmp_path / "m", on_progress=told)
        restarting.join(60)
        assert client.load("m", source).state == "AVAILABLE"
    # Of 48 pieces, those that had arrived were not sent again.
    assert len(done) < 48 + 20
    for server in (first, *servers):
        server.__exit__(None, None, None)
