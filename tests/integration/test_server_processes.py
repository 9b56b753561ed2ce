"""Several processes on one port: a front process is like the server itself to its callers, and may come and go."""

import signal
import threading
import time

import grpc
import modelhost
import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from modelhost.v1 import model_service_pb2, prediction_service_pb2
from support.calls import assert_place_is_given_back, eventually, failure, half, load, scope_of, slow_call
from support.predict import array, request
from support.queued import Gate, load_gate
from support.server import BOTH_TRANSPORTS, ServerProcess, Stubs

PRIMARY, FRONT = "primary", "front"


@pytest.fixture
def own():
    with ServerProcess("--server-processes", "2") as process:
        yield process


def connections(process: psutil.Process) -> int:
    return len([each for each in process.net_connections() if each.status == psutil.CONN_ESTABLISHED])


def connected_to(process: ServerProcess, to: str) -> Stubs:
    """Stubs whose connection the kernel gave to the primary, or to the front."""
    for _ in range(64):
        front = process.fronts()[0]
        before = connections(front)
        stubs = Stubs(process.address, [("grpc.use_local_subchannel_pool", 1)])
        grpc.channel_ready_future(stubs.channel).result(timeout=10)
        if (connections(front) > before) == (to == FRONT):
            return stubs
        stubs.close()
    raise AssertionError(f"64 connections, and none of them to the {to}")


@pytest.fixture(scope="module")
def shared(transport):
    with ServerProcess("--server-processes", "2", "--transport", transport) as process:
        yield process


@pytest.fixture(scope="module")
def stubs(shared):
    """Stubs that talk to the front."""
    stubs = connected_to(shared, FRONT)
    yield stubs
    stubs.close()


@BOTH_TRANSPORTS
def test_the_services_through_a_front(stubs, models):
    load(stubs, "default", "half", models / "half_plus_two")
    assert half(stubs, "default") == 4.0
    assert [m.model for m in stubs.models.ListModels(model_service_pb2.ListModelsRequest()).models] == ["half"]
    assert scope_of(stubs, "default").scope == "default"
    health = health_pb2_grpc.HealthStub(stubs.channel)
    assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(stubs.channel)
    (answer,) = reflection.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    assert "modelhost.v1.PredictionService" in {service.name for service in answer.list_services_response.service}


@BOTH_TRANSPORTS
def test_errors_keep_their_details_through_a_front(stubs):
    code, reason, message = failure(lambda: half(stubs, "default", model="nobody"))
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    assert "nobody" in message
    garbage = stubs.channel.unary_unary("/modelhost.v1.PredictionService/Predict")
    assert failure(lambda: garbage(b"\x0a\xff", timeout=10))[1] == "INVALID_REQUEST"
    stream = stubs.channel.stream_stream("/modelhost.v1.PredictionService/PredictStream")
    assert failure(lambda: list(stream(iter([b"\x0a\xff"]), timeout=10)))[1] == "INVALID_REQUEST"


def test_large_messages_through_a_front(stubs, models):
    load(stubs, "default", "large", models / "half_plus_two")
    x = np.arange(2_500_000, dtype=np.float32)
    answer = stubs.predictions.Predict(request("default", "large", {"x": x}), timeout=60)
    assert np.array_equal(np.frombuffer(answer.outputs["y"].raw, np.float32), x / 2 + 2)


@BOTH_TRANSPORTS
def test_a_stream_through_a_front_is_bounded_and_whole(stubs, models):
    load(stubs, "default", "streamed", models / "half_plus_two")
    megabyte = request("default", "streamed", {"x": np.zeros(1 << 18, np.float32)})
    asked, stop = [], threading.Event()

    def requests():
        for i in range(2_000):
            if stop.is_set():
                return
            asked.append(i)
            yield prediction_service_pb2.PredictStreamRequest(requests=[{"id": i + 1, "request": megabyte}])

    answers = stubs.predictions.PredictStream(requests())
    received = len(next(answers).responses)
    seen = -1
    while seen != len(asked):
        seen = len(asked)
        time.sleep(1.0)
    assert seen < 1_000
    stop.set()
    assert received + sum(len(answer.responses) for answer in answers) == len(asked)


def test_a_watch_through_a_front_ends_when_its_caller_leaves(shared, stubs, models):
    watch = stubs.models.WatchModels(model_service_pb2.WatchModelsRequest(model="seen"))
    assert next(watch).type == model_service_pb2.WATCH_EVENT_TYPE_SYNCED
    load(stubs, "default", "seen", models / "half_plus_two")
    assert next(watch).version.version == 1
    watch.cancel()
    assert half(stubs, "default", model="seen") == 4.0


@pytest.mark.parametrize("leaves", [True, False], ids=["cancels", "deadline"])
def test_a_caller_of_a_front_that_leaves_or_is_late_gives_its_place_to_others(leaves, models):
    with ServerProcess("--server-processes", "2", "--max-in-flight", "1", "--max-queue", "1") as process:
        stubs = connected_to(process, FRONT)
        load(stubs, "default", "slow", models / "slow")
        assert_place_is_given_back(stubs, leaves)
        process.process.kill()
        stubs.close()


def test_connections_are_spread_over_all(own):
    channels = [
        grpc.insecure_channel(own.address, [("grpc.use_local_subchannel_pool", 1), ("number", i)]) for i in range(32)
    ]
    for channel in channels:
        grpc.channel_ready_future(channel).result(timeout=10)
    counts = [connections(psutil.Process(own.process.pid)), *map(connections, own.fronts())]
    assert sum(counts) == 32
    assert min(counts) > 0
    for channel in channels:
        channel.close()


def test_kill_9_of_a_front_costs_only_its_calls(own, models):
    primary, front = connected_to(own, PRIMARY), connected_to(own, FRONT)
    load(primary, "default", "slow", models / "slow")
    load(primary, "default", "half", models / "half_plus_two")
    kept, lost = slow_call(primary, "default", 100_000), slow_call(front, "default", 100_000)
    time.sleep(0.2)
    (old,) = own.fronts()
    old.kill()
    assert failure(lost.result)[0] is grpc.StatusCode.UNAVAILABLE
    assert kept.result().outputs["steps"].raw == (100_000).to_bytes(4, "little")
    eventually(lambda: own.fronts() and own.fronts() != [old])
    again = eventually(lambda: connected_to(own, FRONT))
    assert half(again, "default") == 4.0
    for stubs in (primary, front, again):
        stubs.close()


@BOTH_TRANSPORTS
@pytest.mark.parametrize("everybody", [False, True], ids=["the server", "every process"])
def test_a_drain_answers_the_calls_of_fronts(own, tmp_path, everybody):
    stubs = connected_to(own, FRONT)
    load_gate(stubs, "default")
    watch = stubs.models.WatchModels(model_service_pb2.WatchModelsRequest())
    next(watch)
    closed = Gate(stubs, "default", tmp_path)
    everything = own.processes()
    for each in everything if everybody else everything[:1]:
        each.send_signal(signal.SIGTERM)
    time.sleep(1.0)
    late = Stubs(own.address)
    assert failure(lambda: half(late, "default", timeout=2))[0] is grpc.StatusCode.UNAVAILABLE
    late.close()
    assert not closed.call.done()
    closed.open()
    assert int(array(closed.call.result(timeout=30).outputs["y"])) > 0, "it waited"
    assert failure(lambda: list(watch))[1] == "SERVER_DRAINING"
    assert own.process.wait(20) == 0
    assert psutil.wait_procs(everything, timeout=5)[1] == []
    stubs.close()


def test_kill_9_of_the_primary_leaves_no_process(own):
    everything = own.processes()
    assert len(own.fronts()) == 1
    own.process.kill()
    own.process.wait()
    assert psutil.wait_procs(everything, timeout=5)[1] == []


def test_a_port_of_another_server_is_not_shared_with_it(own):
    with pytest.raises(AssertionError, match=r"cannot listen on .*in use"):
        ServerProcess("--server-processes", "2", listen=(own.address,))


def test_unix_sockets_alone_cannot_be_shared(tmp_path):
    with pytest.raises(AssertionError, match="server_processes: expected a HOST:PORT"):
        ServerProcess("--server-processes", "2", listen=(f"unix:{tmp_path / 'socket'}",))


def test_the_sdk_with_fronts(own, models):
    with modelhost.Client(own.address) as client:
        client.load("half", str(models / "half_plus_two"))
        items = (("half", [float(i)]) for i in range(500))
        results = {r.index: r.unwrap()["y"][0] for r in client.predict_stream(items, in_flight=32)}
        assert results == {i: i / 2 + 2 for i in range(500)}
