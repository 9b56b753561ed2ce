"""A scope of several identical workers: calls spread over them, and what befalls one is not the others' concern."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import psutil
import pytest
from modelhost.v1 import model_pb2, scope_pb2, scope_service_pb2
from support.building import built
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
)
from support.calls import version_of as newest
from support.server import ServerProcess, Stubs

AVAILABLE = model_pb2.VERSION_STATE_AVAILABLE
MB = 1 << 20


class Scope:
    """A scope on a server of its own, so that all workers but one (of the scope "default") are its own."""

    name = "many"

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.stubs = Stubs(server.address)
        self._others = {worker.pid for worker in server.workers()}

    def workers(self) -> list[psutil.Process]:
        """Its workers."""
        return [worker for worker in self.server.workers() if worker.pid not in self._others]

    def create(self, **config: int) -> None:
        """Creates it."""
        self.stubs.scopes.CreateScope(
            scope_service_pb2.CreateScopeRequest(scope=self.name, config=scope_pb2.ScopeConfig(**config)), timeout=60
        )

    def update(self, **config: int) -> None:
        """Changes its configuration."""
        request = scope_service_pb2.UpdateScopeRequest(scope=self.name, config=scope_pb2.ScopeConfig(**config))
        request.update_mask.paths.extend(config)
        self.stubs.scopes.UpdateScope(request, timeout=60)

    def load(self, model: str, source: Path, **options: object) -> model_pb2.Version:
        """Loads a model."""
        return load(self.stubs, self.name, model, source, **options)

    def half(self) -> float:
        """One call of the model `half`."""
        return half(self.stubs, self.name)

    def serving(self) -> int:
        """How many workers serve, as the scope tells it."""
        return int(scope_of(self.stubs, self.name).serving_workers)


@pytest.fixture(scope="module")
def own_server() -> Iterator[ServerProcess]:
    with ServerProcess() as process:
        yield process


@pytest.fixture
def scope(own_server: ServerProcess) -> Iterator[Scope]:
    scope = Scope(own_server)
    yield scope
    delete = scope_service_pb2.DeleteScopeRequest(scope=scope.name, force=True, allow_missing=True)
    scope.stubs.scopes.DeleteScope(delete, timeout=60)
    scope.stubs.close()


@contextmanager
def callers(call: Callable[[], object], count: int = 4) -> Iterator[list[Exception]]:
    """Threads that call without a pause; their failures."""
    failures: list[Exception] = []
    done = threading.Event()

    def run() -> None:
        while not done.is_set():
            try:
                call()
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    yield failures
    done.set()
    for thread in threads:
        thread.join()


def test_every_worker_holds_every_version_and_calls_spread(scope, models):
    scope.create(replicas=3, max_in_flight=1)
    scope.load("slow", models / "slow")
    assert scope.serving() == 3
    workers = scope.workers()
    assert len(workers) == 3
    before = [sum(worker.cpu_times()[:2]) for worker in workers]
    calls = [slow_call(scope.stubs, scope.name, 100_000) for _ in range(3)]
    assert [call.result().outputs["steps"].raw for call in calls] == [(100_000).to_bytes(4, "little")] * 3
    used = [sum(worker.cpu_times()[:2]) - was for worker, was in zip(workers, before, strict=True)]
    assert min(used) > max(used) / 5


def test_a_kill_costs_the_calls_of_one_worker_only(scope, models):
    scope.create(replicas=3, max_in_flight=1)
    scope.load("half", models / "half_plus_two")
    scope.load("slow", models / "slow")
    calls = [slow_call(scope.stubs, scope.name, 400_000) for _ in range(3)]
    eventually(lambda: scope_of(scope.stubs, scope.name).statistics.in_flight == 3)
    scope.workers()[1].kill()
    outcomes = [failure(call.result)[1] if call.exception() else "done" for call in calls]
    assert sorted(outcomes) == ["WORKER_DIED", "done", "done"]
    assert scope.half() == 4.0
    assert newest(scope.stubs, scope.name, "slow").state == AVAILABLE
    eventually(lambda: scope.serving() == 3)
    assert len(scope.workers()) == 3
    assert scope_of(scope.stubs, scope.name).statistics.worker_restarts == 1


def test_a_kill_leaves_the_versions_available(scope, models):
    scope.create(replicas=2)
    version = scope.load("half", models / "half_plus_two")
    with callers(scope.half) as failures:
        for _ in range(2):
            scope.workers()[0].send_signal(signal.SIGKILL)
            eventually(lambda: scope.serving() == 1)
            eventually(lambda: scope.serving() == 2)
    assert {failure(lambda error=error: _raise(error))[1] for error in failures} <= {"WORKER_DIED"}
    assert len(failures) <= 8, "only what was under way in the two that were killed"
    seen = newest(scope.stubs, scope.name, "half")
    assert (seen.state, seen.revision) == (AVAILABLE, version.revision), "it was never anything else"


def _raise(error: Exception) -> None:
    raise error


def test_what_keeps_killing_workers_is_quarantined_in_all(scope, models):
    scope.create(replicas=2)
    scope.load("half", models / "half_plus_two")
    scope.load("crasher", models / "crasher")
    for _ in range(3):
        eventually(lambda: scope.serving() == 2)
        crash = request(scope.name, "crasher", n=scalar(CRASH))
        assert failure(lambda crash=crash: scope.stubs.predictions.Predict(crash, timeout=10))[1] == "WORKER_DIED"
        assert scope.half() == 4.0
    version = newest(scope.stubs, scope.name, "crasher")
    assert version.state == model_pb2.VERSION_STATE_FAILED
    assert "quarantined" in version.error.message
    assert version.statistics.crash_count == 3
    assert unload(scope.stubs, scope.name, "crasher") == [1]
    eventually(lambda: scope.serving() == 2)
    assert scope.half() == 4.0


def test_what_kills_workers_that_load_it_costs_one_at_a_time(scope, models):
    scope.create(replicas=3)
    scope.load("half", models / "half_plus_two")
    deadly = model_pb2.Sample(inputs={"n": scalar(CRASH)})
    least = []

    def watch() -> None:
        least.append(scope.serving())
        time.sleep(0.02)

    with callers(watch, 1):
        code, reason, _ = failure(lambda: scope.load("crasher", models / "crasher", warmup=[deadly]))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VERSION_FAILED")
    assert min(least) >= 1
    eventually(lambda: scope.serving() == 3)
    assert scope.half() == 4.0


def test_workers_come_and_go_under_load_without_a_failed_call(scope, models):
    scope.create()
    scope.load("half", models / "half_plus_two")
    with callers(scope.half) as failures:
        scope.update(replicas=3)
        assert (scope.serving(), len(scope.workers())) == (3, 3)
        time.sleep(0.2)
        scope.update(replicas=1)
        assert scope.serving() == 1
        eventually(lambda: len(scope.workers()) == 1)
        time.sleep(0.2)
    assert failures == []


def test_a_new_configuration_renews_all_workers_without_a_failed_call(scope, models):
    scope.create(replicas=2)
    scope.load("half", models / "half_plus_two")
    before = {worker.pid for worker in scope.workers()}
    with callers(scope.half) as failures:
        scope.update(max_in_flight=3)
        assert scope.serving() == 2
        eventually(lambda: len(scope.workers()) == 2)
    assert failures == []
    assert not before & {worker.pid for worker in scope.workers()}


def test_an_unload_gives_memory_back_in_all(scope):
    scope.create(replicas=2)
    empty = scope_of(scope.stubs, scope.name).memory.private_bytes
    scope.load("dtypes", built("build_weights") / "dtypes")
    before = {worker.pid for worker in scope.workers()}
    assert scope_of(scope.stubs, scope.name).memory.private_bytes > empty + 10 * MB
    unload(scope.stubs, scope.name, "dtypes")
    assert scope.serving() == 2
    assert not before & {worker.pid for worker in scope.workers()}
    assert scope_of(scope.stubs, scope.name).memory.private_bytes < empty + 4 * MB


def test_a_limit_of_memory_counts_all_workers(scope, models, tmp_path):
    big = tmp_path / "big"
    (big / "variables").mkdir(parents=True)
    (big / "saved_model.pb").write_bytes((models / "half_plus_two" / "saved_model.pb").read_bytes())
    with (big / "variables" / "variables.data-00000-of-00001").open("wb") as file:
        file.truncate(100 * MB)
    scope.create(replicas=3, memory_limit_bytes=300 * MB)
    code, reason, message = failure(lambda: scope.load("big", big))
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MEMORY_LIMIT")
    assert "about 390 MB needed" in message, "its size times what TensorFlow takes, three times"


def test_a_worker_joins_when_there_is_memory_for_it(scope, models):
    scope.create()
    scope.load("half", models / "half_plus_two")
    scope.update(memory_limit_bytes=MB)
    scope.update(replicas=2)
    assert scope.serving() == 1
    assert scope.half() == 4.0
    scope.update(memory_limit_bytes=0)
    assert scope.serving() == 2


def test_an_engine_by_name_is_in_all_workers(scope):
    scope.create(replicas=2)
    scope.load("convnet", built("build_engines") / "convnet", options={"engine": model_pb2.ENGINE_LITERT})
    for worker in scope.workers():
        assert any("litert" in mapped.path for mapped in worker.memory_maps())


def test_a_drain_waits_for_the_calls_of_all_workers(models):
    with ServerProcess() as process:
        scope = Scope(process)
        scope.create(replicas=2, max_in_flight=1)
        scope.load("slow", models / "slow")
        calls = [slow_call(scope.stubs, scope.name, 200_000) for _ in range(2)]
        eventually(lambda: scope_of(scope.stubs, scope.name).statistics.in_flight == 2)
        everything = process.processes()
        process.process.send_signal(signal.SIGTERM)
        assert [call.result(timeout=30).outputs["steps"].raw for call in calls] == [(200_000).to_bytes(4, "little")] * 2
        assert process.process.wait(20) == 0
        assert psutil.wait_procs(everything, timeout=5)[1] == []
        scope.stubs.close()
