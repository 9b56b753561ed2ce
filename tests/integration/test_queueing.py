"""Predictions that wait: who comes first, who is refused, and what is never run."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from modelhost.v1 import model_pb2, prediction_service_pb2
from support.calls import eventually, scope_of, unload
from support.predict import SECONDS, array, error_of, load, predict, request, tensor
from support.queued import batching_models, gate, narrow_scope, options, outcome, start
from support.server import OWN_CONNECTION, Stubs

OFF = model_pb2.BATCHING_MODE_OFF
ONE = {"x": np.float32([1])}


@pytest.fixture
def scope(stubs) -> Iterator[str]:
    """A scope in which one thing runs at a time, with a model that counts its runs."""
    with narrow_scope(stubs) as name:
        load(stubs, name, batching_models() / "counter")
        yield name


def runs(stubs: Stubs, scope: str, model: str = "counter") -> int:
    """How often the model has been run, this time not counted."""
    return int(predict(stubs, scope, model, **ONE)["before"][0])


class Order:
    """The order in which calls are answered."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._lock = threading.Lock()

    def watch(self, name: str, call: grpc.Future) -> None:
        def done(ended: grpc.Future) -> None:
            with self._lock:
                self.names.append(name)

        call.add_done_callback(done)


def ran(call: grpc.Future) -> int:
    """The how manieth run of the counting model a prediction was."""
    return int(array(call.result().outputs["before"])[0])


def test_what_nobody_waits_for_any_longer_is_never_run(stubs, scope, tmp_path):
    before = runs(stubs, scope)
    with gate(stubs, scope, tmp_path) as closed:
        late = [start(stubs, scope, "counter", ONE, timeout=1.5) for _ in range(3)]
        left = [start(stubs, scope, "counter", ONE) for _ in range(3)]
        kept = [start(stubs, scope, "counter", ONE) for _ in range(2)]
        eventually(lambda: scope_of(stubs, scope).statistics.queued in (8, 5))
        for call in left:
            call.cancel()
        for call in late:
            assert call.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED
        eventually(lambda: scope_of(stubs, scope).statistics.queued == 2)
        closed.open()
        assert sorted(map(ran, kept)) == [before + 1, before + 2]
    assert runs(stubs, scope) == before + 3
    assert unload(stubs, scope, "counter") == [1], "no handle is left"


def test_the_queue_of_a_scope_is_bounded_and_refusals_say_when_to_come_back(stubs, tmp_path):
    with narrow_scope(stubs, max_queue=3) as scope:
        load(stubs, scope, batching_models() / "counter")
        with gate(stubs, scope, tmp_path) as closed:
            calls = [start(stubs, scope, "counter", ONE) for _ in range(3)]
            closed.wait_for(3)
            refused = error_of(lambda: predict(stubs, scope, "counter", **ONE))
            assert (refused.code, refused.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
            assert refused.retry_delay is not None
            assert refused.retry_delay.ToNanoseconds() > 0
            assert refused.metadata["max_queue"] == "3"
            assert scope_of(stubs, scope).statistics.rejected_count == 1
            assert scope_of(stubs, scope).statistics.queued == 3
            closed.open()
            assert sorted(map(ran, calls)) == [0, 1, 2]
        assert runs(stubs, scope) == 3, "what was refused has not been run"


def test_a_version_has_a_queue_of_its_own(stubs, scope, tmp_path):
    load(stubs, scope, batching_models() / "counter", "limited", options=options(mode=OFF, max_queue=2))
    with gate(stubs, scope, tmp_path) as closed:
        others = [start(stubs, scope, "counter", ONE) for _ in range(5)]
        calls = [start(stubs, scope, "limited", ONE) for _ in range(2)]
        closed.wait_for(7)
        refused = error_of(lambda: predict(stubs, scope, "limited", **ONE))
        assert (refused.code, refused.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
        assert "batching.max_queue" in refused.message
        assert refused.retry_delay is not None
        others.append(start(stubs, scope, "counter", ONE))
        closed.wait_for(8)
        closed.open()
        assert sorted(map(ran, calls)) == [0, 1]
        assert sorted(map(ran, others)) == [0, 1, 2, 3, 4, 5]


def test_what_waits_longer_than_asked_for_is_refused_and_never_run(stubs, scope, tmp_path):
    load(stubs, scope, batching_models() / "counter", "hasty", options=options(mode=OFF, queue_timeout=0.2))
    with gate(stubs, scope, tmp_path) as closed:
        refused = error_of(lambda: predict(stubs, scope, "hasty", **ONE))
        assert (refused.code, refused.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
        assert "queue_timeout" in refused.message
        assert refused.retry_delay is not None
        closed.open()
    assert runs(stubs, scope, "hasty") == 0


def test_higher_priorities_run_first(stubs, scope, tmp_path):
    with gate(stubs, scope, tmp_path) as closed:
        priorities = [0, -3, 5, 0, 2**31 - 1, -(2**31), 5]
        calls = []
        for count, priority in enumerate(priorities, 1):
            calls.append(start(stubs, scope, "counter", ONE, priority=priority))
            closed.wait_for(count)
        closed.open()
        order = sorted(range(len(calls)), key=lambda i: ran(calls[i]))
    assert order == [4, 2, 6, 0, 3, 1, 5]


def test_a_flood_of_one_caller_delays_another_one_by_a_turn(server, stubs, scope, tmp_path):
    other = Stubs(server.address, OWN_CONNECTION)
    with gate(stubs, scope, tmp_path) as closed:
        flood = [start(stubs, scope, "counter", ONE) for _ in range(200)]
        closed.wait_for(200)
        calm = [start(other, scope, "counter", ONE) for _ in range(3)]
        closed.wait_for(203)
        closed.open()
        assert [ran(call) for call in calm][-1] <= 5
        assert len({ran(call) for call in flood}) == 200
    other.close()


def test_a_flood_makes_way_for_others_when_the_queue_is_full(server, stubs, tmp_path):
    with narrow_scope(stubs, max_queue=20) as scope:
        load(stubs, scope, batching_models() / "counter")
        other = Stubs(server.address, OWN_CONNECTION)
        with gate(stubs, scope, tmp_path) as closed:
            flood = [start(stubs, scope, "counter", ONE) for _ in range(40)]
            eventually(lambda: scope_of(stubs, scope).statistics.rejected_count == 20)
            calm = [start(other, scope, "counter", ONE) for _ in range(5)]
            eventually(lambda: scope_of(stubs, scope).statistics.rejected_count == 25)
            closed.open()
            assert all(isinstance(outcome(call), dict) for call in calm)
            outcomes = [outcome(call) for call in flood]
            assert sum(isinstance(each, dict) for each in outcomes) == 15
            assert {each.reason for each in outcomes if not isinstance(each, dict)} == {"QUEUE_FULL"}
        other.close()


def test_models_of_a_scope_take_turns(stubs, scope, tmp_path):
    load(stubs, scope, batching_models() / "counter", "rare")
    order = Order()
    with gate(stubs, scope, tmp_path) as closed:
        busy = [start(stubs, scope, "counter", ONE) for _ in range(100)]
        closed.wait_for(100)
        rare = [start(stubs, scope, "rare", ONE) for _ in range(5)]
        closed.wait_for(105)
        for i, call in enumerate(busy):
            order.watch(f"busy-{i}", call)
        for i, call in enumerate(rare):
            order.watch(f"rare-{i}", call)
        closed.open()
        for call in (*busy, *rare):
            call.result()
        eventually(lambda: len(order.names) == 105)
    # Answers of one connection come in the order in which they were sent, but threads note them down.
    assert max(place for place, name in enumerate(order.names) if name.startswith("rare")) < 50


def test_predict_many_waits_its_turn_and_is_refused_as_others_are(stubs, tmp_path):
    with narrow_scope(stubs, max_queue=1) as scope:
        load(stubs, scope, batching_models() / "counter")
        targets = [prediction_service_pb2.PredictManyTarget(model="counter")] * 3
        ask = prediction_service_pb2.PredictManyRequest(
            scope=scope, targets=targets, inputs={k: tensor(v) for k, v in ONE.items()}
        )
        with gate(stubs, scope, tmp_path) as closed:
            first = stubs.predictions.PredictMany.future(ask, timeout=SECONDS)
            closed.wait_for(1)
            results = stubs.predictions.PredictMany(ask, timeout=SECONDS).results
            assert {result.error.message.split(";")[0] for result in results} == {
                f"scope '{scope}': 1 predictions wait already (max_queue)"
            }
            closed.open()
            answers = [array(result.response.outputs["before"])[0] for result in first.result().results]
            assert answers == [0, 1, 2]
        assert unload(stubs, scope, "counter") == [1]


def test_an_unload_waits_for_those_that_wait(stubs, scope, tmp_path):
    with gate(stubs, scope, tmp_path) as closed:
        calls = [start(stubs, scope, "counter", ONE) for _ in range(3)]
        closed.wait_for(3)
        unloaded = threading.Thread(target=unload, args=(stubs, scope, "counter"))
        unloaded.start()
        refused = eventually(lambda: _refusal(stubs, scope))
        assert refused.reason == "VERSION_UNLOADING"
        assert unloaded.is_alive()
        closed.open()
        assert sorted(map(ran, calls)) == [0, 1, 2]
        unloaded.join(SECONDS)
        assert not unloaded.is_alive()


def _refusal(stubs: Stubs, scope: str):
    # One that is accepted would wait for the gate.
    answer = outcome(stubs.predictions.Predict.future(request(scope, "counter", ONE), timeout=0.5))
    return None if isinstance(answer, dict) or answer.code == "DEADLINE_EXCEEDED" else answer
