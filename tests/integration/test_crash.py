"""Workers die in every way; each death costs its own calls and nothing else."""

import contextlib
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest
from modelhost.v1 import model_pb2, scope_pb2, scope_service_pb2
from support.calls import (
    CRASH,
    eventually,
    failure,
    half,
    load,
    request,
    scalar,
    scope_of,
    slow_call,
    unload,
    version_of,
)
from support.server import ServerProcess, Stubs


@pytest.fixture(scope="module")
def own_server():
    with ServerProcess() as process:
        yield process


@pytest.fixture(scope="module")
def own(own_server):
    stubs = Stubs(own_server.address)
    yield stubs
    stubs.close()


@pytest.fixture
def two_scopes(own, models):
    for name in ("fragile", "calm"):
        own.scopes.CreateScope(scope_service_pb2.CreateScopeRequest(scope=name))
        load(own, name, "half", models / "half_plus_two")
    yield
    for name in ("fragile", "calm"):
        own.scopes.DeleteScope(scope_service_pb2.DeleteScopeRequest(scope=name, force=True))


def worker_of(server: ServerProcess, stubs: Stubs, scope: str) -> psutil.Process:
    """The worker of a scope: the one whose memory is what the scope says."""
    load_count = scope_of(stubs, scope).model_count
    assert load_count
    # Only the worker that runs this scope's slow model uses the processor.
    workers = {worker: worker.cpu_times().user for worker in server.workers()}
    time.sleep(0.3)
    return max(workers, key=lambda worker: worker.cpu_times().user - workers[worker])


@pytest.mark.usefixtures("two_scopes")
def test_a_model_that_dies_answers_unavailable_and_comes_back(own, models):
    load(own, "fragile", "crasher", models / "crasher")
    code, reason, message = failure(
        lambda: own.predictions.Predict(request("fragile", "crasher", n=scalar(CRASH)), timeout=10)
    )
    assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "WORKER_DIED")
    assert "SIGABRT" in message
    assert eventually(lambda: half(own, "fragile") == 4.0)
    assert scope_of(own, "fragile").statistics.worker_restarts == 1


@pytest.mark.usefixtures("two_scopes")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGBUS])
def test_a_worker_killed_during_a_call(own, own_server, models, number):
    load(own, "fragile", "slow", models / "slow")
    call = slow_call(own, "fragile", 10_000_000)
    worker_of(own_server, own, "fragile").send_signal(number)
    code, reason, message = failure(call.result)
    assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "WORKER_DIED")
    assert signal.Signals(number).name in message
    assert str(own_server.process.pid) not in message
    assert eventually(lambda: half(own, "fragile") == 4.0)
    assert eventually(lambda: version_of(own, "fragile", "slow").state == model_pb2.VERSION_STATE_AVAILABLE)


@pytest.mark.usefixtures("two_scopes")
def test_other_scopes_do_not_notice(own, models):
    load(own, "fragile", "crasher", models / "crasher")
    done = threading.Event()
    failures = []

    def call_calm():
        while not done.is_set():
            try:
                assert half(own, "calm") == 4.0
            except Exception as error:
                failures.append(error)

    caller = threading.Thread(target=call_calm)
    caller.start()
    for _ in range(2):
        failure(lambda: own.predictions.Predict(request("fragile", "crasher", n=scalar(CRASH)), timeout=10))
        eventually(lambda: half(own, "fragile") == 4.0)
    done.set()
    caller.join()
    assert not failures
    assert scope_of(own, "calm").statistics.worker_restarts == 0


@pytest.mark.usefixtures("two_scopes")
def test_a_model_that_keeps_killing_is_quarantined_and_the_others_go_on(own, models):
    load(own, "fragile", "crasher", models / "crasher")

    def crash_again():
        version = version_of(own, "fragile", "crasher")
        if version.state == model_pb2.VERSION_STATE_AVAILABLE:
            failure(lambda: own.predictions.Predict(request("fragile", "crasher", n=scalar(CRASH)), timeout=10))
        return version.state == model_pb2.VERSION_STATE_FAILED

    eventually(crash_again, 30)
    version = version_of(own, "fragile", "crasher")
    assert "quarantined" in version.error.message
    assert "SIGABRT" in version.error.message
    assert "bad_alloc" in version.error.message, "the log's tail is quoted"
    assert version.statistics.crash_count == 3
    code, reason, _ = failure(lambda: own.predictions.Predict(request("fragile", "crasher", n=scalar(1)), timeout=10))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VERSION_FAILED")
    assert eventually(lambda: half(own, "fragile") == 4.0)
    assert unload(own, "fragile", "crasher") == [1]


@pytest.mark.usefixtures("two_scopes")
def test_a_template_that_dies_is_started_again(own, own_server):
    own_server.templates()[0].kill()
    assert eventually(lambda: half(own, "fragile") == 4.0)
    assert eventually(lambda: half(own, "calm") == 4.0)
    assert own_server.process.poll() is None


@pytest.fixture
def load_that_waits(own, own_server, models, two_scopes):
    """A load in the scope "new" that waits for its worker, and the template that does not start it: it is stopped."""
    loaded = max(own_server.workers(), key=lambda worker: worker.memory_info().rss)
    own.scopes.CreateScope(scope_service_pb2.CreateScopeRequest(scope="new"))
    eventually(lambda: scope_of(own, "new").worker_state == scope_pb2.WORKER_STATE_READY)
    # Models are on TensorFlow, for whose workers there is another template than for the scope's first worker.
    template = next(template for template in own_server.templates() if loaded in template.children())
    template.suspend()
    with ThreadPoolExecutor() as pool:
        loading = pool.submit(load, own, "new", "half", models / "half_plus_two")
        eventually(lambda: version_of(own, "new", "half").state == model_pb2.VERSION_STATE_LOADING)
        # Before the worker is asked for, what follows proves nothing, but the same holds.
        time.sleep(0.5)
        yield loading, template


def test_a_load_outlives_the_template_that_starts_its_worker(own, load_that_waits):
    loading, template = load_that_waits
    template.kill()
    loading.result()
    assert half(own, "new") == 4.0
    own.scopes.DeleteScope(scope_service_pb2.DeleteScopeRequest(scope="new", force=True))


def test_a_scope_that_is_deleted_while_its_worker_starts_leaves_none(own, own_server, load_that_waits):
    loading, template = load_that_waits
    left = len(own_server.workers()) - 1
    deleting = own.scopes.DeleteScope.future(scope_service_pb2.DeleteScopeRequest(scope="new", force=True))
    # As above.
    time.sleep(0.5)
    template.resume()
    deleting.result()
    code, _, _ = failure(loading.result)
    assert code in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND)
    assert eventually(lambda: len(own_server.workers()) == left)
    # None comes later.
    time.sleep(0.5)
    assert len(own_server.workers()) == left


def test_workers_that_are_killed_before_they_are_known_are_replaced(own, own_server):
    before, logged = own_server.workers(), len(own_server.log())
    own.scopes.CreateScope(scope_service_pb2.CreateScopeRequest(scope="empty", config={"replicas": 2}))
    assert eventually(lambda: scope_of(own, "empty").serving_workers == 2)
    # Workers that hold nothing are all of one template, which does not end with them.
    template = next(worker.ppid() for worker in own_server.workers() if worker not in before)
    children = Path(f"/proc/{template}/task/{template}/children")
    killed: set[str] = set()
    end = time.monotonic() + 10
    # A worker is known some milliseconds after its fork; to look takes microseconds.
    while len(killed) < 12 and time.monotonic() < end:
        for pid in set(children.read_text().split()) - killed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
            killed.add(pid)
    assert eventually(lambda: scope_of(own, "empty").serving_workers == 2, 60)
    assert eventually(lambda: scope_of(own, "default").serving_workers == 1, 60)
    assert "a background task failed" not in own_server.log()[logged:]
    own.scopes.DeleteScope(scope_service_pb2.DeleteScopeRequest(scope="empty"))


@pytest.mark.usefixtures("two_scopes")
def test_an_overrun_replaces_the_worker_when_the_scope_says_so(own, models):
    load(own, "fragile", "slow", models / "slow")
    update = scope_service_pb2.UpdateScopeRequest(scope="fragile", update_mask={"paths": ["overrun_grace"]})
    update.config.overrun_grace.FromMilliseconds(200)
    own.scopes.UpdateScope(update)
    code, _, _ = failure(slow_call(own, "fragile", 10_000_000, timeout=0.3).result)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert eventually(lambda: scope_of(own, "fragile").statistics.worker_restarts == 1)
    assert eventually(lambda: half(own, "fragile") == 4.0)


@pytest.mark.usefixtures("two_scopes")
def test_no_zombie_is_left(own, own_server, models):
    load(own, "fragile", "crasher", models / "crasher")
    failure(lambda: own.predictions.Predict(request("fragile", "crasher", n=scalar(CRASH)), timeout=10))
    eventually(lambda: half(own, "fragile") == 4.0)
    assert [p.pid for p in own_server.processes() if p.status() == psutil.STATUS_ZOMBIE] == []
