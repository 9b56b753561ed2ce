"""Many callers at once, while all sorts of things happen: each gets its own answer, or is told why not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from modelhost.v1 import model_pb2, prediction_service_pb2
from support.calls import eventually, scope_of, unload, version_of
from support.predict import array, error_of, failure, load, predict, request, tensor
from support.queued import ON, batching_models, batching_of, gate, load_gate, narrow_scope, options, outcome, start
from support.server import ServerProcess, Stubs

MODE_ON = model_pb2.BATCHING_MODE_ON
CALLERS = 64
noise = np.random.default_rng(11)


@pytest.fixture
def scope(stubs) -> Iterator[str]:
    with narrow_scope(stubs) as name:
        yield name


class Load:
    """Callers that ask again and again until the block is left; `wrong` is what should not have been answered."""

    def __init__(self, ask: Callable[[int, int], str | None], callers: int = CALLERS) -> None:
        self.wrong: list[str] = []
        self.counts = [0] * callers
        self._done = threading.Event()
        self._ask = ask
        self._pool = ThreadPoolExecutor(callers)

    def __enter__(self) -> Load:
        self._callers = [self._pool.submit(self._call, i) for i in range(len(self.counts))]
        self.go_on()
        return self

    def _call(self, caller: int) -> None:
        while not self._done.is_set():
            try:
                if (wrong := self._ask(caller, self.counts[caller])) is not None:
                    self.wrong.append(wrong)
            except grpc.RpcError as error:
                self.wrong.append(str(failure(error)))
            self.counts[caller] += 1

    def go_on(self, rounds: int = 2) -> None:
        """Until each caller has been answered so many times more."""
        goals = [count + rounds for count in self.counts]
        eventually(lambda: all(c >= goal for c, goal in zip(self.counts, goals, strict=True)), 60)

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._pool.shutdown()
        for caller in self._callers:
            caller.result()


def dense(stubs: Stubs, scope: str, model: str, answers: dict[bytes, np.ndarray]) -> Callable[[int, int], str | None]:
    """Asks for one of the inputs whose answers are known."""
    known = [(np.frombuffer(key, np.float32).reshape(-1, 16), value) for key, value in answers.items()]

    def ask(caller: int, number: int) -> str | None:
        x, expected = known[(caller * 7 + number) % len(known)]
        y = predict(stubs, scope, model, x=x)["y"]
        if y.shape == expected.shape and np.allclose(y, expected, rtol=1e-5, atol=1e-7):
            return None
        return f"{y} instead of {expected}"

    return ask


def known_answers(stubs: Stubs, scope: str, model: str, count: int = 100) -> dict[bytes, np.ndarray]:
    """Answers to inputs of one to three rows, each asked for alone."""
    inputs = [noise.normal(size=(1 + i % 3, 16)).astype(np.float32) for i in range(count)]
    return {x.tobytes(): predict(stubs, scope, model, x=x)["y"] for x in inputs}


def test_each_of_many_callers_gets_its_own_answer(stubs, scope):
    load(stubs, scope, batching_models() / "dense")
    answers = known_answers(stubs, scope, "dense")
    with Load(dense(stubs, scope, "dense", answers)) as callers:
        eventually(lambda: batching_of(stubs, scope, "dense").state == ON, 60)
        eventually(lambda: (b := batching_of(stubs, scope, "dense")).prediction_count > b.batch_count, 60)
        callers.go_on(5)
    assert callers.wrong == []


def test_a_new_version_under_load_never_mixes_with_the_old_one(stubs, scope):
    together = options(mode=MODE_ON, max_batch_size=64)
    load(stubs, scope, batching_models() / "plus_1", "plus", version=1, options=together)

    def ask(caller: int, number: int) -> str | None:
        response = stubs.predictions.Predict(request(scope, "plus", {"x": np.float32([caller])}), timeout=60)
        y = float(array(response.outputs["y"])[0])
        return None if y == caller + response.version else f"{caller}, version {response.version}: {y}"

    with Load(ask, 32) as callers:
        for number in (2, 3):
            load(stubs, scope, batching_models() / f"plus_{number}", "plus", version=number, options=together)
            callers.go_on()
    assert callers.wrong == []


def test_a_worker_killed_under_load_costs_its_calls_and_no_right_answer(models):
    with ServerProcess("--max-in-flight", "1") as server:
        stubs = Stubs(server.address)
        load(stubs, "default", batching_models() / "dense", options=options(mode=MODE_ON))
        answers = known_answers(stubs, "default", "dense")
        right = dense(stubs, "default", "dense", answers)

        def ask(caller: int, number: int) -> str | None:
            try:
                return right(caller, number)
            except grpc.RpcError as error:
                told = failure(error)
                return None if told.code == "UNAVAILABLE" and told.retry_delay else str(told)

        with Load(ask, 32) as callers:
            for deaths in (1, 2):
                (worker,) = server.workers()
                worker.kill()
                eventually(lambda n=deaths: scope_of(stubs, "default").statistics.worker_restarts == n)
                eventually(lambda: version_of(stubs, "default", "dense").state == model_pb2.VERSION_STATE_AVAILABLE)
                callers.go_on()
        assert callers.wrong == []
        predict(stubs, "default", "dense", x=np.zeros((1, 16), np.float32))
        assert unload(stubs, "default", "dense") == [1], "no handle is left"
        stubs.close()


def test_a_worker_killed_while_a_batch_runs_costs_all_of_it(models, tmp_path):
    with ServerProcess("--max-in-flight", "1") as server:
        stubs = Stubs(server.address)
        load_gate(stubs, "default")
        never = np.array([str(tmp_path / "never").encode()], object)
        with gate(stubs, "default", tmp_path) as closed:
            calls = [start(stubs, "default", "gate", {"path": never}, signature="batch") for _ in range(10)]
            closed.wait_for(10)
        eventually(lambda: scope_of(stubs, "default").statistics.queued == 0)
        waiting = start(stubs, "default", "gate", {"path": never}, signature="batch")
        eventually(lambda: scope_of(stubs, "default").statistics.queued == 1)
        (worker,) = server.workers()
        worker.kill()
        told = [outcome(call) for call in calls]
        assert [(each.code, each.reason) for each in told] == [("UNAVAILABLE", "WORKER_DIED")] * 10
        assert outcome(waiting).code == "UNAVAILABLE"
        nobody = np.array([b""], object)
        eventually(lambda: predict(stubs, "default", "gate", "batch", path=nobody))
        assert unload(stubs, "default", "gate") == [1], "no handle is left"
        stubs.close()


def test_predict_many_beside_batches(stubs, scope):
    together = options(mode=MODE_ON, max_batch_size=64)
    for number in (1, 2):
        load(stubs, scope, batching_models() / f"plus_{number}", options=together)
    targets = [prediction_service_pb2.PredictManyTarget(model=f"plus_{1 + i % 2}") for i in range(6)]

    def ask(caller: int, number: int) -> str | None:
        if caller % 4:
            model = 1 + caller % 2
            y = predict(stubs, scope, f"plus_{model}", x=np.float32([caller, number]))["y"].tolist()
            return None if y == [caller + model, number + model] else str(y)
        many = prediction_service_pb2.PredictManyRequest(
            scope=scope, targets=targets, inputs={"x": tensor(np.float32([caller]))}
        )
        results = stubs.predictions.PredictMany(many, timeout=60).results
        values = [float(array(result.response.outputs["y"])[0]) for result in results]
        return None if values == [caller + 1, caller + 2] * 3 else str(values)

    with Load(ask, 32) as callers:
        callers.go_on(5)
    assert callers.wrong == []


def test_bad_predictions_among_good_ones_under_load(stubs, scope):
    load(stubs, scope, batching_models() / "together", options=options(mode=MODE_ON, max_batch_size=64))

    def ask(caller: int, number: int) -> str | None:
        x = np.float32([-1 if caller % 8 == 0 else (caller + number) ** 2])
        if caller % 8:
            y = predict(stubs, scope, "together", "positive", x=x + 1)["y"]
            return None if np.allclose(y, np.sqrt(x + 1)) else str(y)
        told = error_of(lambda: predict(stubs, scope, "together", "positive", x=x))
        return None if told.reason == "MODEL_REJECTED_INPUT" else str(told)

    with Load(ask, 32) as callers:
        callers.go_on(5)
    assert callers.wrong == []
    assert batching_of(stubs, scope, "together", "positive").state == ON


@pytest.mark.slow
def test_an_engine_is_switched_under_load_without_a_wrong_answer(tmp_path):
    with ServerProcess("--tuning", "--max-in-flight", "1") as server:
        stubs = Stubs(server.address)
        load(stubs, "default", batching_models() / "dense")
        answers = known_answers(stubs, "default", "dense")

        def tuned() -> Any:
            return version_of(stubs, "default", "dense").engine.tuning == model_pb2.TUNING_STATE_DONE

        with Load(dense(stubs, "default", "dense", answers), 8) as callers:
            eventually(tuned, 150)
            callers.go_on(5)
            eventually(lambda: batching_of(stubs, "default", "dense").state == ON, 60)
            callers.go_on(5)
        assert callers.wrong == []
        stubs.close()
