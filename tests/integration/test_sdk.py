"""The SDK against the real server."""

import itertools
import threading

import modelhost
import numpy as np
import pytest
from support.server import BOTH_TRANSPORTS, ServerProcess

pytestmark = BOTH_TRANSPORTS


@pytest.fixture(scope="module")
def client(server):
    with modelhost.Client(server.address) as client:
        yield client


def test_everything_a_service_does_with_a_model(client, scope, models):
    name = f"{scope}/half"
    seen = []
    version = client.load(name, str(models / "half_plus_two"), labels=["stable"], on_progress=seen.append)
    assert (version.version, version.state) == (1, "AVAILABLE")
    assert seen, "a load tells its progress"
    assert client.predict(name, [2.0])["y"].tolist() == [3.0]
    assert client.predict(f"{name}@stable", {"x": np.float32([4])})["y"].tolist() == [4.0]
    assert client.predict(f"{name}@1", {"x": np.float32([4])}).version == 1
    info = client.model(name, variables=True)
    assert [v.name for v in info.versions[0].variables] == ["a", "b"]
    assert [m.model for m in client.models(scope)] == ["half"]
    assert client.scope(scope).memory.pss_bytes > 0
    client.unload(name)
    with pytest.raises(modelhost.NotFoundError) as caught:
        client.predict(name, {"x": np.float32([4])})
    assert caught.value.reason == "MODEL_NOT_FOUND"
    client.unload(name, missing_ok=True)


def test_a_model_that_changed_is_learnt_again(client, scope, models):
    client.load(f"{scope}/m", str(models / "half_plus_two"))
    assert client.predict(f"{scope}/m", [2.0])["y"].tolist() == [3.0]
    client.load(f"{scope}/m", str(models / "slow"))
    assert client.predict(f"{scope}/m", 7)["steps"] == 7


def test_wrong_inputs_are_told_before_they_are_sent(client, scope, models):
    client.load(f"{scope}/half", str(models / "half_plus_two"))
    client.predict(f"{scope}/half", [1.0])
    with pytest.raises(modelhost.InvalidInputError, match="float32"):
        client.predict(f"{scope}/half", np.float64([1]))
    with pytest.raises(ValueError, match="shape"):
        client.predict(f"{scope}/half", np.float32([[1]]))


def test_a_stream_of_predictions(client, scope, models):
    client.load(f"{scope}/half", str(models / "half_plus_two"))
    items = ((f"{scope}/half", [float(i)]) for i in range(500))
    results = {r.index: r.unwrap()["y"][0] for r in client.predict_stream(items, in_flight=32)}
    assert results == {i: i / 2 + 2 for i in range(500)}


def test_a_map_of_predictions(client, scope, models):
    client.load(f"{scope}/half", str(models / "half_plus_two"))
    answers = client.map(f"{scope}/half", ([float(i)] for i in itertools.count()), in_flight=100)
    assert [a["y"][0] for a in itertools.islice(answers, 2000)] == [i / 2 + 2 for i in range(2000)]
    answers.close()
    mixed = [[1.0], ["two"], {"x": np.float32([[3]])}, [4.0]]
    one, two, three, four = client.map(f"{scope}/half", mixed, return_exceptions=True)
    assert (one["y"].tolist(), four["y"].tolist()) == ([2.5], [4.0])
    assert (two.reason, three.reason) == ("INPUT_DTYPE_MISMATCH", "INPUT_SHAPE_MISMATCH")
    with pytest.raises(modelhost.NotFoundError):
        next(client.map(f"{scope}/nobody", [{"x": np.float32([1])}]))


def test_several_maps_at_once(client, scope, models):
    client.load(f"{scope}/half", str(models / "half_plus_two"))
    maps = [client.map(f"{scope}/half", [[float(i + k)] for i in range(500)], in_flight=32) for k in range(4)]
    for i, answers in enumerate(zip(*maps, strict=True)):
        assert [answer["y"][0] for answer in answers] == [(i + k) / 2 + 2 for k in range(4)]


def test_batching_as_it_is_asked_for(client, scope, models):
    name = f"{scope}/half"
    asked = modelhost.Batching(mode="on", max_batch_size=8, max_delay=0.001, max_queue=500)
    assert client.load(name, str(models / "half_plus_two"), batching=asked).requested_batching == asked
    assert [a["y"][0] for a in client.map(name, ([float(i)] for i in range(1000)))] == [i / 2 + 2 for i in range(1000)]
    batching = client.model(name).versions[0].batching["serving_default"]
    assert (batching.state, batching.max_batch_size) == ("ON", 8)
    assert batching.batch_count < batching.prediction_count == 1000
    client.load(name, str(models / "half_plus_two"), batching=modelhost.Batching(mode="off"))
    assert client.model(name).versions[0].batching["serving_default"].state == "OFF"


def test_threads_may_share_a_client(client, scope, models):
    client.load(f"{scope}/half", str(models / "half_plus_two"))
    wrong = []

    def ask(i):
        answers = [client.predict(f"{scope}/half", [float(i)])["y"][0] for _ in range(50)]
        wrong.extend(answer for answer in answers if answer != i / 2 + 2)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


async def test_the_same_with_asyncio(server, scope, models):
    async with modelhost.AsyncClient(server.address) as client:
        await client.load(f"{scope}/half", str(models / "half_plus_two"))
        assert (await client.predict(f"{scope}/half", [2.0]))["y"].tolist() == [3.0]
        items = [(f"{scope}/half", [float(i)]) for i in range(100)]
        results = {r.index: r.unwrap()["y"][0] async for r in client.predict_stream(items)}
        assert results == {i: i / 2 + 2 for i in range(100)}
        watched = [event.type async for event in _first(client.watch(scope), 2)]
        assert watched == ["EXISTING", "SYNCED"]
        await client.unload(f"{scope}/half")


async def _first(events, count):
    try:
        for _ in range(count):
            yield await anext(events)
    finally:
        await events.aclose()


def test_a_watch_outlives_a_restart_of_the_server(models, tmp_path):
    address = f"unix:{tmp_path / 'server'}"
    with modelhost.Client(address) as client:
        with ServerProcess(listen=(address,)):
            client.load("old", str(models / "half_plus_two"))
            events = client.watch()
            assert [next(events).type for _ in range(2)] == ["EXISTING", "SYNCED"]
        with ServerProcess(listen=(address,)):
            client.load("new", str(models / "half_plus_two"))
            # The new server knows nothing of the old revision, so the watch begins with a snapshot again.
            assert next(event.version.model for event in events if event.version) == "new"
            events.close()


def test_nobody_answers(tmp_path):
    with (
        modelhost.Client(f"unix:{tmp_path / 'nobody'}", timeout=2) as client,
        pytest.raises(modelhost.UnreachableError, match="modelhost serve"),
    ):
        list(itertools.islice(client.models(), 1))
