"""PredictMany: the same inputs through many models of a scope, each with an outcome of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest
from modelhost.v1 import model_service_pb2, prediction_service_pb2
from modelhost.v1.prediction_service_pb2 import PredictManyTarget as Target
from support.predict import SECONDS, array, error_of, load, new_scope, predict, tensor
from support.server import ServerProcess, Stubs


def predict_many(
    stubs: Stubs, scope: str, targets: Sequence[Target], timeout: float = SECONDS, output_filter=(), **inputs: object
) -> list[object]:
    """Outputs by name, or the failure's message, for each target."""
    request = prediction_service_pb2.PredictManyRequest(
        scope=scope, targets=targets, inputs={k: tensor(v) for k, v in inputs.items()}, output_filter=output_filter
    )
    results = stubs.predictions.PredictMany(request, timeout=timeout).results
    assert len(results) == len(targets)
    return [
        {name: array(value) for name, value in result.response.outputs.items()}
        if result.WhichOneof("outcome") == "response"
        else result.error
        for result in results
    ]


@pytest.fixture(scope="module")
def many(stubs: Stubs, models: Path) -> Iterator[str]:
    """A scope with several models."""
    with new_scope(stubs, "many") as scope:
        for name in ("half_plus_two", "half_plus_three", "slow", "crasher"):
            load(stubs, scope, models / name)
        load(stubs, scope, models / "half_plus_three", "half_plus_two", version=5, keep_older=True, labels=["next"])
        yield scope


def test_every_target_answers_in_order(stubs, many):
    targets = [Target(model=f"half_plus_{n}", version=1) for n in ("two", "three") * 10]
    answers = predict_many(stubs, many, targets, x=np.float32([2, 4]))
    assert [list(answer["y"]) for answer in answers] == [[3, 4], [4, 5]] * 10


def test_large_inputs_are_shared_by_all_targets(stubs, many):
    x = np.arange(100_000, dtype=np.float32)
    targets = [Target(model=f"half_plus_{n}", version=1) for n in ("two", "three") * 5]
    for _ in range(20):
        answers = predict_many(stubs, many, targets, x=x)
        for i, answer in enumerate(answers):
            np.testing.assert_allclose(answer["y"], x / 2 + 2 + i % 2, rtol=1e-6)
    assert predict(stubs, many, "half_plus_two", x=x)["y"][0] == 3


def test_versions_and_labels_are_chosen_as_predict_chooses_them(stubs, many):
    targets = [
        Target(model="half_plus_two"),
        Target(model="half_plus_two", version=1),
        Target(model="half_plus_two", label="next"),
    ]  # fmt: skip
    answers = predict_many(stubs, many, targets, x=np.float32([2]))
    assert [float(answer["y"][0]) for answer in answers] == [4, 3, 4]


def test_one_failure_stops_no_other(stubs, many):
    targets = [
        Target(model="half_plus_two"), Target(model="nobody"), Target(model="slow"),
        Target(model="half_plus_two", signature="no_such"), Target(model="half_plus_three"),
    ]  # fmt: skip
    first, nobody, slow, no_such, last = predict_many(stubs, many, targets, x=np.float32([2]))
    assert float(first["y"][0]) == 4
    assert float(last["y"][0]) == 4
    assert "nobody" in nobody.message
    assert "steps" in slow.message
    assert "no_such" in no_such.message


def test_the_outputs_wanted_are_answered(stubs, many):
    (answer,) = predict_many(stubs, many, [Target(model="half_plus_two")], output_filter=["y"], x=np.float32([2]))
    assert list(answer) == ["y"]
    (answer,) = predict_many(stubs, many, [Target(model="half_plus_two")], output_filter=["z"], x=np.float32([2]))
    assert "output_filter" in answer.message


def test_no_targets_give_no_results(stubs, many):
    assert predict_many(stubs, many, [], x=np.float32([2])) == []


def test_unknown_scopes_and_too_many_targets_are_refused(stubs, many):
    request = prediction_service_pb2.PredictManyRequest(scope="nowhere", targets=[Target(model="m")])
    assert error_of(lambda: stubs.predictions.PredictMany(request, timeout=SECONDS)).reason == "SCOPE_NOT_FOUND"
    request = prediction_service_pb2.PredictManyRequest(scope=many, targets=[Target(model="m")] * 1001)
    failure = error_of(lambda: stubs.predictions.PredictMany(request, timeout=SECONDS))
    assert (failure.code, failure.fields) == ("INVALID_ARGUMENT", ("targets",))
    request = prediction_service_pb2.PredictManyRequest(scope=many, targets=[Target(model="m", version=0)])
    assert error_of(lambda: stubs.predictions.PredictMany(request, timeout=SECONDS)).code == "INVALID_ARGUMENT"


def test_handles_are_given_back_when_the_caller_leaves(stubs, models, scope):
    load(stubs, scope, models / "slow")
    targets = [Target(model="slow")] * 4
    with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
        predict_many(stubs, scope, targets, timeout=0.3, steps=np.int32(50_000))
    request = model_service_pb2.UnloadModelRequest(scope=scope, model="slow", all_versions=True)
    assert list(stubs.models.UnloadModel(request, timeout=SECONDS).versions) == [1]


def test_a_crash_costs_the_calls_of_its_lane_and_the_scope_recovers(models):
    with ServerProcess("--max-in-flight", "2") as server:
        stubs = Stubs(server.address)
        load(stubs, "default", models / "crasher")
        answers = predict_many(stubs, "default", [Target(model="crasher")] * 3, n=np.int32(2**31 - 1))
        assert all("died" in answer.message for answer in answers)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            answers = predict_many(stubs, "default", [Target(model="crasher")] * 3, n=np.int32(7))
            if all(isinstance(answer, dict) for answer in answers):
                break
            time.sleep(0.1)
        assert [int(answer["n"]) for answer in answers] == [7, 7, 7]
        stubs.close()
