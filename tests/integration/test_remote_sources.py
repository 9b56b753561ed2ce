"""Models from web servers and object stores: complete or not at all, once for all who ask, no secret told."""

import io
import os
import shutil
import tarfile
import threading

import modelhost
import pytest
from support.calls import eventually
from support.server import ServerProcess
from support.web import served_web

BUCKET = "models"


@pytest.fixture(scope="module")
def web():
    with served_web() as web:
        yield web


@pytest.fixture(scope="module")
def store():
    """A local S3, which the server finds by its environment."""
    import boto3
    from moto.server import ThreadedMotoServer

    s3 = ThreadedMotoServer("127.0.0.1", 0)
    s3.start()
    host, port = s3.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        yield client
    client.close()
    s3.stop()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def hosting(store, cache):
    with ServerProcess("--upload-limit-bytes", "20000000", cache_dir=cache) as process:
        yield process


@pytest.fixture
def client(hosting):
    with modelhost.Client(hosting.address) as client:
        yield client
        for info in client.models():
            client.unload(f"{info.scope}/{info.model}")


@pytest.fixture(scope="module")
def archive(models):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(models / "half_plus_two", arcname="half")
    return packed.getvalue()


def put_model(store, folder, prefix):
    for file in folder.rglob("*"):
        if file.is_file():
            store.upload_file(str(file), BUCKET, f"{prefix}/{file.relative_to(folder)}")


def answer(client, model):
    return float(client.predict(model, [4.0])["y"][0])


def refused(client, source):
    with pytest.raises(modelhost.ModelhostError) as failed:
        client.load("m", source, timeout=60)
    assert "secret" not in str(failed.value)
    return failed.value.reason


def work_left(cache):
    """What is left of fetches that did not end well."""
    return list(cache.glob("running/*/fetching/*"))


def test_an_archive_of_a_web_server_is_fetched_once_until_it_changes(client, web, archive, models):
    told, wait = [], threading.Event()

    def note(news):
        told.append((news.stage, news.bytes_total))
        if news.stage == "FETCHING":
            wait.set()

    uri = web.put("half.tgz", archive, wait=wait) + "?signature=abc"
    first = client.load("half", uri, on_progress=note)
    assert (first.source, answer(client, "half")) == (uri, 4.0)
    assert ("FETCHING", len(archive)) in told
    client.load("again", uri)
    assert web.fetched["half.tgz?signature=abc"] == 1
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(models / "half_plus_three", arcname="half")
    web.put("half.tgz", packed.getvalue(), tag='"2"')
    client.load("half", uri)
    assert (answer(client, "half"), answer(client, "again")) == (5.0, 4.0)


def test_many_who_ask_for_one_source_share_its_fetch(client, web, archive):
    wait = threading.Event()
    uri = web.put("shared.tgz", archive, wait=wait)
    loads = [client.load(f"shared{number}", uri, wait=False) for number in range(4)]
    assert {loaded.state for loaded in loads} == {"LOADING"}
    eventually(lambda: web.fetched["shared.tgz"])
    wait.set()
    for number in range(4):
        assert client.load(f"shared{number}@1", uri).state == "AVAILABLE"
    assert web.fetched["shared.tgz"] == 1


def test_a_fetch_that_nobody_wants_any_more_ends_and_leaves_nothing(client, web, archive, cache):
    wait = threading.Event()
    uri = web.put("unwanted.tgz", archive, wait=wait)
    client.load("unwanted", uri, wait=False)
    eventually(lambda: work_left(cache))
    client.unload("unwanted", timeout=30)
    eventually(lambda: not work_left(cache))
    wait.set()
    web.put("unwanted.tgz", archive)
    assert client.load("unwanted", uri).state == "AVAILABLE"


def test_web_servers_that_do_not_do_their_part(client, web, archive, cache):
    assert refused(client, f"{web.url}/nothing.tgz") == "SOURCE_NOT_FOUND"
    assert refused(client, web.put("closed.tgz", status=403) + "?token=secret") == "SOURCE_NOT_FOUND"
    assert refused(client, web.put("broken.tgz", status=503) + "?token=secret") == "SOURCE_UNAVAILABLE"
    assert refused(client, web.put("cut.tgz", archive, cut=True) + "?token=secret") == "SOURCE_UNAVAILABLE"
    assert refused(client, web.put("words.tgz", b"no archive") + "?token=secret") == "SOURCE_INVALID"
    assert refused(client, web.put("words.txt", b"words")) == "SOURCE_UNSUPPORTED"
    assert refused(client, web.put("large.tgz", bytes(21_000_000))) == "SOURCE_INVALID"
    assert refused(client, "http://127.0.0.1:1/a.tgz?token=secret") == "SOURCE_UNAVAILABLE"
    assert refused(client, "http://user:secret@127.0.0.1/a.tgz") == "INVALID_REQUEST"
    assert refused(client, "ftp://127.0.0.1/a.tgz") == "SOURCE_UNSUPPORTED"
    assert not work_left(cache)


def test_redirects_lead_to_other_web_servers_and_nowhere_else(client, web, archive):
    web.put("there.tgz", archive)
    assert client.load("moved", web.put("here.tgz", status=302, location="/there.tgz")).state == "AVAILABLE"
    for elsewhere in ("file:///etc/passwd", "ftp://127.0.0.1/x", "http://user:secret@127.0.0.1:1/x"):
        assert refused(client, web.put("to.tgz", status=302, location=elsewhere)) in (
            "SOURCE_NOT_FOUND", "SOURCE_UNAVAILABLE", "INVALID_REQUEST",
        )  # fmt: skip
    assert refused(client, web.put("round.tgz", status=302, location="/round.tgz")) == "SOURCE_UNAVAILABLE"


def test_models_in_an_object_store(client, store, models, archive):
    put_model(store, models / "half_plus_two", "half")
    put_model(store, models / "half_plus_two", "versions/3")
    put_model(store, models / "half_plus_three", "versions/10")
    store.put_object(Bucket=BUCKET, Key="half.tgz", Body=archive)
    assert client.load("stored", f"s3://{BUCKET}/half").version == 1
    assert client.load("versions", f"s3://{BUCKET}/versions", keep_older=True).version == 10
    assert client.load("versions@3", f"s3://{BUCKET}/versions/").version == 3
    assert client.load("packed", f"s3://{BUCKET}/half.tgz").version == 1
    answers = [answer(client, model) for model in ("stored", "versions@10", "versions@3", "packed")]
    assert answers == [4.0, 5.0, 4.0, 4.0]
    put_model(store, models / "half_plus_three", "half")
    client.load("stored", f"s3://{BUCKET}/half")
    assert answer(client, "stored") == 5.0


def test_object_stores_without_what_is_asked_for(client, store):
    store.put_object(Bucket=BUCKET, Key="outside/saved_model.pb", Body=b"x")
    store.put_object(Bucket=BUCKET, Key="outside/../../x", Body=b"x")
    assert refused(client, f"s3://{BUCKET}/outside") == "SOURCE_INVALID"
    assert refused(client, f"s3://{BUCKET}/nothing") == "SOURCE_NOT_FOUND"
    assert refused(client, "s3://no-such-bucket/half") == "SOURCE_NOT_FOUND"
    assert refused(client, f"s3://{BUCKET}") == "SOURCE_INVALID"
    assert refused(client, f"s3://{BUCKET}/../half") == "INVALID_REQUEST"


def test_what_was_there_comes_back_however_long_its_place_is_away(web, archive, tmp_path):
    options = ("--data-dir", str(tmp_path / "data"))
    uri = web.put("away.tgz", archive)
    with ServerProcess(*options, cache_dir=tmp_path / "cache") as first, modelhost.Client(first.address) as client:
        client.load("half", uri)
    page = web.pages["away.tgz"]
    web.put("away.tgz", status=503)
    # Nothing of it is left in the cache.
    with ServerProcess(*options) as second, modelhost.Client(second.address) as client:
        eventually(lambda: second.log().count("is not loaded yet") >= 2)
        (worker,) = second.workers()
        worker.kill()
        eventually(lambda: [each for each in second.workers() if each != worker])
        web.pages["away.tgz"] = page
        eventually(lambda: client.models()[0].versions[0].state == "AVAILABLE", 30)
        assert answer(client, "half") == 4.0


def test_a_server_that_is_started_again_needs_no_remote_place_for_what_it_had(web, archive, models, tmp_path):
    shutil.copytree(models / "half_plus_three", tmp_path / "three")
    allowed = ("--remote-sources", f"{web.url}/team", "--remote-sources", "s3://team")
    options = ("--data-dir", str(tmp_path / "data"), *allowed)
    uri = web.put("team/half.tgz", archive)
    with ServerProcess(*options, cache_dir=tmp_path / "cache") as first:
        with modelhost.Client(first.address) as client:
            client.load("half", uri)
            sent = client.load("sent", tmp_path / "three", upload=True)
            elsewhere = web.put("team/out.tgz", status=302, location=f"{web.url}/other.tgz")
            assert refused(client, f"{web.url}/other.tgz") == "SOURCE_FORBIDDEN"
            assert refused(client, elsewhere) == "SOURCE_FORBIDDEN"
            assert refused(client, f"s3://{BUCKET}/half") == "SOURCE_FORBIDDEN"
        first.process.kill()
        first.process.wait()
    del web.pages["team/half.tgz"]
    with ServerProcess(*options, cache_dir=tmp_path / "cache") as second, modelhost.Client(second.address) as client:
        eventually(lambda: {info.versions[0].state for info in client.models()} == {"AVAILABLE"})
        assert (answer(client, "half"), answer(client, "sent")) == (4.0, 5.0)
        # What the server before has left of itself is gone.
        assert len(list((tmp_path / "cache" / "running").glob("process-*"))) == 1
        assert client.load("sent", sent.source).source == sent.source
    assert os.listdir(tmp_path / "cache" / "running") == ["lock"]
