"""Engines, warm-ups, batches, several models at once and optimizations: the SDK against the real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import modelhost
import numpy as np
import pytest
from modelhost import Client, LoadSpec, PredictTarget, Sample
from support.building import built
from support.server import ServerProcess

# A search converts the model for each engine and compares; the first one waits for TensorFlow to be imported.
_SEARCH_SECONDS = 150


@pytest.fixture(scope="module")
def tuning() -> Iterator[str]:
    """The address of a server that looks for faster engines, which the others in the tests do not."""
    with ServerProcess("--tuning") as process:
        yield process.address


@pytest.fixture(scope="module")
def client(tuning: str) -> Iterator[Client]:
    with Client(tuning) as client:
        yield client


@pytest.fixture(scope="module")
def digits() -> Path:
    """A trained CNN, and images with their classes."""
    return built("build_digits")


def images(digits: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(digits / "test.npz") as arrays:
        return arrays["image"], arrays["labels"]


# Engines


def test_the_search_for_an_engine(client: Client, digits: Path) -> None:
    pixels, _ = images(digits)
    loaded = client.load("searched", digits / "digits", warmup=[{"image": pixels[:3]}])
    assert loaded.engine is not None
    before = client.predict("searched", {"image": pixels[:8]})
    version = client.wait_tuned("searched", timeout=_SEARCH_SECONDS)
    assert version.engine is not None
    assert (version.state, version.engine.tuning) == ("AVAILABLE", "DONE")
    tried = {candidate.engine: candidate for candidate in version.engine.candidates}
    assert set(tried) == {"LITERT", "OPENVINO"}
    chosen = [candidate.engine for candidate in tried.values() if candidate.outcome == "CHOSEN"]
    assert [version.engine.engine] == (chosen or ["TENSORFLOW"])
    assert tried["LITERT"].outcome in ("CHOSEN", "SLOWER"), tried["LITERT"].reason
    assert tried["LITERT"].speedup is not None
    assert tried["LITERT"].max_relative_difference <= 1e-4
    assert all(timing.engine_seconds > 0 for timing in tried["LITERT"].timings)
    after = client.predict("searched", {"image": pixels[:8]})
    for name, output in before.items():
        np.testing.assert_allclose(after[name], output, rtol=1e-3, atol=1e-4)
    # The same bytes again, loaded in the same way: what was found is remembered, so that there is nothing to wait for.
    again = client.load("searched-again", digits / "digits", warmup=[{"image": pixels[:3]}])
    assert again.engine is not None
    assert (again.engine.engine, again.engine.tuning) == (version.engine.engine, "DONE")


def test_an_engine_by_name(client: Client, digits: Path) -> None:
    pixels, _ = images(digits)
    answers = []
    for name in ("tensorflow", "litert"):
        version = client.load(f"on-{name}", digits / "digits", engine=name)
        assert version.engine is not None
        assert (version.engine.engine, version.engine.tuning, version.requested_engine) == (
            name.upper(),
            "OFF",
            name.upper(),
        )
        assert client.wait_tuned(f"on-{name}", timeout=10).version == 1
        (output,) = client.predict(f"on-{name}", {"image": pixels[:8]}).values()
        answers.append(output)
    np.testing.assert_allclose(answers[1], answers[0], rtol=1e-3, atol=1e-4)


def test_an_engine_that_cannot(client: Client, models: Path) -> None:
    with pytest.raises(modelhost.InvalidRequestError, match="litert cannot serve this model") as caught:
        client.load("words", models / "table", engine="litert")
    assert caught.value.reason == "SOURCE_UNSUPPORTED"
    assert client.model("words").versions[0].state == "FAILED"
    with pytest.raises(modelhost.InvalidRequestError, match="litert cannot serve this model"):
        client.wait_tuned("words", timeout=10)


def test_nobody_looks_where_tuning_is_off(server: ServerProcess, scope: str, models: Path) -> None:
    with Client(server.address) as client:
        client.load(f"{scope}/half", models / "half_plus_two")
        version = client.wait_tuned(f"{scope}/half", timeout=10)
        assert version.engine is not None
        assert (version.engine.engine, version.engine.tuning) == ("TENSORFLOW", "OFF")


# Warm-up


def test_a_warm_up(client: Client, models: Path) -> None:
    good = Sample({"x": np.float32([1, 2])}, signature="serving_default")
    bad = {"x": np.float64([1])}
    version = client.load("warm", models / "half_plus_two", warmup=[good, bad, good], engine="tensorflow")
    assert version.warmup is not None
    assert (version.warmup.success_count, version.warmup.failure_count) == (2, 1)
    assert "float64" in version.warmup.first_error
    with pytest.raises(modelhost.InvalidRequestError, match="float64"):
        client.load("cold", models / "half_plus_two", warmup=[bad], require_warmup=True, engine="tensorflow")
    assert client.predict("warm", [2.0])["y"].tolist() == [3.0]


# Many loads, many models


def test_many_loads_tell_their_progress(client: Client, models: Path) -> None:
    client.create_scope("batch")
    specs = [
        LoadSpec(model=f"batch/m{number}", source=models / source, engine="tensorflow")
        for number, source in enumerate(["half_plus_two", "no_such_model", "half_plus_three", "keras_export"])
    ]
    progressed, done, failed = set(), {}, {}
    finished = []
    for update in client.load_many(specs):
        finished.append(update.finished)
        assert update.total == len(specs)
        if update.progress is not None:
            assert 0 <= update.progress.fraction <= 1
            progressed.add(update.index)
        elif update.version is not None:
            done[update.index] = update.version.state
        else:
            failed[update.index] = update.error
    assert finished == sorted(finished)
    assert finished[-1] == len(specs)
    assert done == {0: "AVAILABLE", 2: "AVAILABLE", 3: "AVAILABLE"}
    assert {index: error.reason for index, error in failed.items() if error} == {1: "SOURCE_NOT_FOUND"}
    assert 3 in progressed
    client.delete_scope("batch", force=True)


async def test_several_models_are_asked_at_once(tuning: str, models: Path) -> None:
    async with modelhost.AsyncClient(tuning) as client:
        await client.create_scope("many", exist_ok=True)
        for name, source in (("two", "half_plus_two"), ("three", "half_plus_three"), ("slow", "slow")):
            await client.load(f"many/{name}", models / source, engine="tensorflow")
        targets = ["two", "three@1", "nobody", PredictTarget("two", signature="other"), "many/slow"]
        two, three, nobody, other, slow = await client.predict_many(targets, [4.0], scope="many")
        assert isinstance(two, modelhost.Prediction)
        assert isinstance(three, modelhost.Prediction)
        assert (two["y"].tolist(), three["y"].tolist(), three.version) == ([4.0], [5.0], 1)
        reasons = [error.reason for error in (nobody, other, slow) if isinstance(error, modelhost.ModelhostError)]
        assert reasons == ["MODEL_NOT_FOUND", "SIGNATURE_NOT_FOUND", "INPUT_MISSING"]
        with pytest.raises(modelhost.NotFoundError) as caught:
            await client.predict_many(["two"], {"x": np.float32([4])}, scope="no-such-scope")
        assert caught.value.reason == "SCOPE_NOT_FOUND"
        await client.delete_scope("many", force=True)


# Optimizations


def test_an_optimization(client: Client, digits: Path) -> None:
    pixels, classes = images(digits)
    client.load("digits", digits / "digits", engine="tensorflow", labels=["stable"])
    news: list[modelhost.OptimizationProgress] = []
    report = client.optimize(
        "digits@stable",
        "dynamic_int8",
        samples=[{"image": pixels}],
        true_classes=classes,
        labels=["small"],
        on_progress=news.append,
    )
    assert [item.fraction for item in news] == sorted(item.fraction for item in news)
    assert {"CONVERTING", "COMPARING"} <= {item.stage for item in news}
    assert (report.version.version, report.original_version, report.version.state) == (2, 1, "AVAILABLE")
    assert (report.example_count, report.examples_made_up) == (len(pixels), False)
    assert report.optimized.disk_bytes < report.original.disk_bytes / 2
    assert report.original.accuracy is not None
    assert report.optimized.accuracy is not None
    assert report.original.accuracy > 0.95
    assert report.optimized.accuracy > report.original.accuracy - 0.02
    (drift,) = report.drift
    assert 0 < drift.max_relative_difference < 0.2
    assert drift.argmax_agreement is not None
    assert drift.argmax_agreement > 0.95
    made = client.model("digits@small").versions[0]
    assert (made.version, made.derived_from, made.derivation) == (2, 1, report.method)
    (answer,) = client.predict("digits@small", {"image": pixels[:50]}).values()
    assert np.mean(answer.argmax(axis=1) == classes[:50]) > 0.9


def test_pruning_with_a_file_of_samples(client: Client, digits: Path) -> None:
    client.load("pruned", digits / "digits", engine="tensorflow")
    report = client.optimize("pruned", modelhost.OptimizationMethod.PRUNE, sparsity=0.5,
                             samples_file=digits / "test.npz", new_version=7)  # fmt: skip
    assert report.version.version == 7
    assert report.original.zero_share < 0.1
    assert 0.4 < report.optimized.zero_share < 0.6
    assert report.optimized.compressed_bytes < report.original.compressed_bytes


def test_optimizations_that_make_no_sense(client: Client, models: Path) -> None:
    client.load("plain", models / "half_plus_two", engine="tensorflow")
    with pytest.raises(modelhost.InvalidRequestError, match="sparsity"):
        client.optimize("plain", "prune", sparsity=1.5)
    with pytest.raises(modelhost.NotFoundError):
        client.optimize("plain@9", "float16")
    with pytest.raises(modelhost.InvalidRequestError, match="float64"):
        client.optimize("plain", "full_int8", samples=[{"x": np.float64([1])}])
