"""The server's own life: start, readiness, drain, and every way to end."""

import itertools
import re
import signal
import threading
import time
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from modelhost.v1 import model_service_pb2, prediction_service_pb2, scope_service_pb2
from support.calls import eventually, failure, half, load, slow_call, unload
from support.predict import array
from support.queued import Gate, load_gate
from support.server import BOTH_TRANSPORTS, ServerProcess, Stubs

pytestmark = BOTH_TRANSPORTS

SERVING = health_pb2.HealthCheckResponse.SERVING


def health(stubs: Stubs, service: str) -> int:
    return (
        health_pb2_grpc.HealthStub(stubs.channel)
        .Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
        .status
    )


@pytest.fixture
def own():
    with ServerProcess() as process:
        stubs = Stubs(process.address)
        yield process, stubs
        stubs.close()


def test_the_server_process_never_maps_tensorflow(server, stubs, scope, models):
    load(stubs, scope, "half", models / "half_plus_two")
    half(stubs, scope)
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "modelhost" in " ".join(psutil.Process(server.process.pid).cmdline())
    assert "libpython" in maps or "python" in maps
    assert not re.search(r"libtensorflow|_pywrap_tensorflow", maps)
    assert any("libtensorflow" in Path(f"/proc/{worker.pid}/maps").read_text() for worker in server.workers())


def test_health_of_server_services_and_models(stubs, scope, models):
    for service in ("", "modelhost.v1.ModelService", "modelhost.v1.PredictionService", "modelhost.v1.ScopeService"):
        assert health(stubs, service) == SERVING
    name = f"scopes/{scope}/models/half"
    assert failure(lambda: health(stubs, name))[0] is grpc.StatusCode.NOT_FOUND
    load(stubs, scope, "half", models / "half_plus_two")
    assert health(stubs, name) == SERVING
    unload(stubs, scope, "half")
    assert failure(lambda: health(stubs, name))[0] is grpc.StatusCode.NOT_FOUND


def test_one_failed_model_does_not_turn_the_server_unready(stubs, scope, tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"\xff\xff garbage")
    failure(lambda: load(stubs, scope, "broken", tmp_path))
    assert health(stubs, "") == SERVING
    assert health(stubs, f"scopes/{scope}/models/broken") == health_pb2.HealthCheckResponse.NOT_SERVING


def test_health_can_be_watched(stubs, scope, models):
    request = health_pb2.HealthCheckRequest(service=f"scopes/{scope}/models/half")
    statuses = health_pb2_grpc.HealthStub(stubs.channel).Watch(request, timeout=30)
    assert next(statuses).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    load(stubs, scope, "half", models / "half_plus_two")
    assert next(statuses).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert next(statuses).status == SERVING
    statuses.cancel()


def test_reflection_lists_the_services(stubs):
    reflection = reflection_pb2_grpc.ServerReflectionStub(stubs.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = reflection.ServerReflectionInfo(iter([request]), timeout=10)
    names = {service.name for service in answer.list_services_response.service}
    assert {"modelhost.v1.ModelService", "modelhost.v1.PredictionService", "modelhost.v1.ScopeService"} <= names


def test_a_unix_socket_and_two_addresses(tmp_path, models):
    path = tmp_path / "modelhost.sock"
    with ServerProcess(listen=("127.0.0.1:0", f"unix:{path}")) as process:
        for address in process.addresses:
            stubs = Stubs(address)
            load(stubs, "default", "half", models / "half_plus_two")
            assert half(stubs, "default") == 4.0
            stubs.close()


def test_a_port_in_use_is_said_and_ends_the_second_server(server):
    with pytest.raises(AssertionError, match=r"cannot listen on .*in use"):
        ServerProcess(listen=(server.address,))


def test_message_limits_are_options(models):
    with ServerProcess("--max-receive-bytes", "100000") as process:
        stubs = Stubs(process.address)
        big = model_service_pb2.LoadModelRequest(model="half", source="/" + "x" * 200_000)
        assert failure(lambda: stubs.models.LoadModel(big))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        load(stubs, "default", "half", models / "half_plus_two")
        stubs.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_drain_answers_calls_under_way_refuses_new_ones_and_exits_0(own, tmp_path, number):
    process, stubs = own
    load_gate(stubs, "default")
    closed = Gate(stubs, "default", tmp_path)
    everything = process.processes()
    process.process.send_signal(number)
    # At once, and when nothing listens any more.
    for moment in (0.05, 1.0):
        time.sleep(moment)
        late = Stubs(process.address)
        assert failure(lambda late=late: half(late, "default", timeout=2))[0] is grpc.StatusCode.UNAVAILABLE
        late.close()
    assert not closed.call.done()
    closed.open()
    assert int(array(closed.call.result(timeout=30).outputs["y"])) > 0, "it waited"
    assert process.process.wait(20) == 0
    assert psutil.wait_procs(everything, timeout=5)[1] == []


def test_a_service_manager_that_signals_every_process_does_not_cut_calls_off(own, models):
    process, stubs = own
    load(stubs, "default", "slow", models / "slow")
    call = slow_call(stubs, "default", 100_000)
    time.sleep(0.2)
    for each in process.processes():
        each.terminate()
    assert call.result(timeout=30).outputs["steps"].raw == (100_000).to_bytes(4, "little")
    assert process.process.wait(20) == 0


def test_drain_is_bounded(models):
    with ServerProcess("--drain-seconds", "0.5") as process:
        stubs = Stubs(process.address)
        load(stubs, "default", "slow", models / "slow")
        call = slow_call(stubs, "default", 100_000_000)
        time.sleep(0.3)
        everything = process.processes()
        started = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - started < 8
        assert failure(call.result)[0] in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        assert psutil.wait_procs(everything, timeout=5)[1] == []
        stubs.close()


def test_long_streams_end_with_unavailable_when_the_server_drains(own):
    process, stubs = own
    watch = stubs.models.WatchModels(model_service_pb2.WatchModelsRequest())
    next(watch)
    hold = threading.Event()
    nobody = prediction_service_pb2.PredictRequest(model="nobody")
    first = prediction_service_pb2.PredictStreamRequest(requests=[{"id": 1, "request": nobody}])
    stream = stubs.predictions.PredictStream(itertools.chain([first], iter(hold.wait, True)))
    # A stream that has not begun is refused like any call; this is about those that have.
    next(stream)
    started = time.monotonic()
    assert process.stop() == 0
    assert time.monotonic() - started < 10
    for held in (watch, stream):
        code, reason, _ = failure(lambda held=held: next(held))
        assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")
    hold.set()


def test_kill_9_of_the_server_leaves_no_process(own, models):
    process, stubs = own
    for name in ("a", "b"):
        stubs.scopes.CreateScope(scope_service_pb2.CreateScopeRequest(scope=name))
        load(stubs, name, "slow", models / "slow")
    slow_call(stubs, "a", 100_000_000)
    time.sleep(0.2)
    everything = process.processes()
    assert len(process.workers()) == 3, "one each of the scopes a, b and default"
    process.process.kill()
    process.process.wait()
    assert psutil.wait_procs(everything, timeout=5)[1] == []


def test_a_scope_is_ready_in_a_moment(stubs, models):
    seconds = []
    for i in range(5):
        started = time.monotonic()
        stubs.scopes.CreateScope(scope_service_pb2.CreateScopeRequest(scope=f"quick-{i}"))
        load(stubs, f"quick-{i}", "half", models / "half_plus_two")
        assert half(stubs, f"quick-{i}") == 4.0
        seconds.append(time.monotonic() - started)
    for i in range(5):
        stubs.scopes.DeleteScope(scope_service_pb2.DeleteScopeRequest(scope=f"quick-{i}", force=True))
    # Not a timing of the machine but of the way: importing TensorFlow takes seconds, forking does not.
    assert min(seconds) < 1.0


def test_deleting_a_scope_ends_its_worker(server, stubs, models):
    before = {worker.pid for worker in server.workers()}
    stubs.scopes.CreateScope(scope_service_pb2.CreateScopeRequest(scope="gone"))
    load(stubs, "gone", "half", models / "half_plus_two")
    (worker,) = [worker for worker in server.workers() if worker.pid not in before]
    assert failure(lambda: stubs.scopes.DeleteScope(scope_service_pb2.DeleteScopeRequest(scope="gone")))[:2] == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "SCOPE_NOT_EMPTY",
    )
    stubs.scopes.DeleteScope(scope_service_pb2.DeleteScopeRequest(scope="gone", force=True))
    assert eventually(lambda: not worker.is_running())
