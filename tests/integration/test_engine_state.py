"""What a model keeps between calls is its own, and stays as it was."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from modelhost.v1 import model_service_pb2 as pb
from support.predict import error_of, expected, load, new_scope, predict, request
from support.server import Stubs

LARGE = 100_000  # floats: 400 kB, far beyond what fits in a frame
SMALL = 10


@pytest.fixture(scope="module")
def scopes(stubs: Stubs) -> Iterator[tuple[str, str]]:
    with new_scope(stubs, "engine-state") as one, new_scope(stubs, "engine-state") as two:
        yield one, two


@pytest.fixture(params=["one scope", "two scopes"])
def pair(request: pytest.FixtureRequest, scopes: tuple[str, str]) -> tuple[str, str]:
    """The scopes of two models."""
    return (scopes[0], scopes[0] if request.param == "one scope" else scopes[1])


@pytest.fixture
def unload(stubs: Stubs, scopes: tuple[str, str]) -> Iterator[None]:
    yield
    for scope in scopes:
        for model in stubs.models.ListModels(pb.ListModelsRequest(scope=scope)).models:
            stubs.models.UnloadModel(pb.UnloadModelRequest(scope=scope, model=model.model, all_versions=True))


pytestmark = pytest.mark.usefixtures("unload")


def test_a_counter_counts_from_call_to_call(models, stubs, scopes):
    load(stubs, scopes[0], models / "counter")
    assert [int(predict(stubs, scopes[0], "counter", by=np.int64(by))["n"]) for by in (1, 10, 100)] == [1, 11, 111]


def test_a_counter_loses_no_call_of_many_at_once(models, stubs, scopes):
    load(stubs, scopes[0], models / "counter")
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: predict(stubs, scopes[0], "counter", by=np.int64(1)), range(200)))
    assert int(predict(stubs, scopes[0], "counter", by=np.int64(0))["n"]) == 200


def test_a_model_that_is_loaded_again_starts_afresh(models, stubs, scopes):
    scope = scopes[0]
    load(stubs, scope, models / "counter")
    predict(stubs, scope, "counter", by=np.int64(5))
    stubs.models.UnloadModel(pb.UnloadModelRequest(scope=scope, model="counter", all_versions=True))
    load(stubs, scope, models / "counter")
    assert int(predict(stubs, scope, "counter", by=np.int64(1))["n"]) == 1


def test_an_output_left_out_still_has_its_effect(models, stubs, scopes):
    """What an output's computation does to the state is done when another output of the signature is asked for."""
    load(stubs, scopes[0], models / "resources")
    x = np.int64([1])
    assert predict(stubs, scopes[0], "resources", output_filter=["found"], x=x)["found"].tolist() == [1]
    assert int(predict(stubs, scopes[0], "resources", x=x)["counted"]) == 2


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_an_input_that_a_model_keeps_outlives_its_call(models, stubs, scopes, size):
    scope = scopes[0]
    for name in ("retain", "identity"):
        load(stubs, scope, models / name)
    before: list[float] = []
    for i in range(1, 12):
        x = np.arange(i, i + size, dtype=np.float32)
        assert predict(stubs, scope, "retain", "swap", x=x)["before"].tolist() == before
        before = x.tolist()
        # Other calls of the scope take the places in shared memory that are free.
        for junk in (np.full(size, -1.0, np.float32), np.full(2 * size, -2.0, np.float32)):
            assert predict(stubs, scope, "identity", x=junk)["y"].tobytes() == junk.tobytes()
        assert predict(stubs, scope, "retain", "read")["kept"].tolist() == before


def test_an_input_that_a_model_keeps_is_changed_by_nobody_but_the_model(models, stubs, scopes):
    scope = scopes[0]
    for name in ("retain", "identity"):
        load(stubs, scope, models / name)
    x, by = np.arange(LARGE, dtype=np.float32), np.full(LARGE, 0.5, np.float32)
    predict(stubs, scope, "retain", "swap", x=x)
    for i in range(1, 4):
        kept = predict(stubs, scope, "retain", "add", by=by)["kept"]
        predict(stubs, scope, "identity", x=np.full(LARGE, -1.0, np.float32))
        np.testing.assert_array_equal(kept, x + i * by)
    np.testing.assert_array_equal(predict(stubs, scope, "retain", "read")["kept"], x + 3 * by)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_an_input_that_a_model_keeps_outlives_even_a_call_that_fails(models, stubs, scopes, size):
    scope = scopes[0]
    for name in ("retain", "identity"):
        load(stubs, scope, models / name)
    x = np.arange(size, dtype=np.float32)
    failing = request(scope, "retain", {"x": x, "fail": np.True_}, signature="swap_or_fail")
    assert error_of(lambda: stubs.predictions.Predict(failing)).reason == "MODEL_REJECTED_INPUT"
    for _ in range(3):
        predict(stubs, scope, "identity", x=np.full(size, -1.0, np.float32))
    np.testing.assert_array_equal(predict(stubs, scope, "retain", "read")["kept"], x)


def test_variables_of_equal_names_are_apart(models, stubs, pair):
    load(stubs, pair[0], models / "half_plus_two", "two")
    load(stubs, pair[1], models / "half_plus_three", "three")
    x = np.float32([2])
    for _ in range(2):
        assert predict(stubs, pair[0], "two", x=x)["y"].tolist() == [3.0]
        assert predict(stubs, pair[1], "three", x=x)["y"].tolist() == [4.0]


def test_variables_of_equal_names_that_change_are_apart(models, stubs, pair):
    for scope, name in zip(pair, ("first", "second"), strict=True):
        load(stubs, scope, models / "counter", name)
    for i in range(1, 4):
        assert int(predict(stubs, pair[0], "first", by=np.int64(1))["n"]) == i
        assert int(predict(stubs, pair[1], "second", by=np.int64(100))["n"]) == 100 * i


def test_two_versions_of_one_model_are_apart(models, stubs, scopes):
    for number in (1, 2):
        load(stubs, scopes[0], models / "counter", version=number, keep_older=True)

    def count(version: int, by: int) -> int:
        message = request(scopes[0], "counter", {"by": np.int64(by)}, version=version)
        return int.from_bytes(stubs.predictions.Predict(message).outputs["n"].raw, "little")

    assert [count(1, 1), count(2, 100), count(1, 1), count(2, 100)] == [1, 100, 2, 200]


def test_tables_of_equal_names_are_apart(models, stubs, pair):
    names = ("table", "table_turned")
    for scope, name in zip(pair, names, strict=True):
        load(stubs, scope, models / name)
    for scope, name in zip(pair, names, strict=True):
        (case,) = expected(models, name)
        assert predict(stubs, scope, name, given=case.inputs)["id"].tolist() == case.outputs["id"].tolist()
    assert expected(models, names[0])[0].outputs["id"].tolist() != expected(models, names[1])[0].outputs["id"].tolist()


def test_resources_of_equal_names_are_apart(models, stubs, pair):
    for scope, name in zip(pair, ("resources", "resources_too"), strict=True):
        load(stubs, scope, models / name)
    for i in range(1, 4):
        for scope, name, step in zip(pair, ("resources", "resources_too"), (1, 100), strict=True):
            x = np.int64([i, 1000 * step + i])
            got = predict(stubs, scope, name, x=x)
            want = {"counted": i * step, "seen": 2 * i, "found": (x * step).tolist(), "queued": i}
            assert {key: value.tolist() for key, value in got.items()} == want


def test_one_source_loaded_twice_shares_no_resources(models, stubs, pair):
    names = ("first", "second")
    for scope, name in zip(pair, names, strict=True):
        load(stubs, scope, models / "resources", name)
    x = np.int64([7])
    for i in range(1, 3):
        for scope, name in zip(pair, names, strict=True):
            got = predict(stubs, scope, name, x=x)
            assert (int(got["counted"]), int(got["seen"]), int(got["queued"])) == (i, 1, i)


def test_unloading_a_model_leaves_another_of_equal_names_whole(models, stubs, pair):
    for scope, name in zip(pair, ("first", "second"), strict=True):
        load(stubs, scope, models / "resources", name)
    for name, scope in (("first", pair[0]), ("second", pair[1])):
        predict(stubs, scope, name, x=np.int64([1]))
    stubs.models.UnloadModel(pb.UnloadModelRequest(scope=pair[0], model="first", all_versions=True))
    got = predict(stubs, pair[1], "second", x=np.int64([2]))
    assert {key: value.tolist() for key, value in got.items()} == {"counted": 2, "seen": 2, "found": [2], "queued": 2}
