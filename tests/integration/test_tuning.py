"""engine = auto: TensorFlow at once, the fastest engine that is right soon after, TensorFlow again when that fails."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from modelhost.v1 import model_pb2
from modelhost.v1.model_pb2 import (
    ENGINE_LITERT,
    ENGINE_OPENVINO,
    ENGINE_OUTCOME_CHOSEN,
    ENGINE_OUTCOME_FAILED,
    ENGINE_OUTCOME_REFUSED,
    ENGINE_TENSORFLOW,
    TUNING_STATE_DONE,
    TUNING_STATE_OFF,
    LoadOptions,
    Sample,
)
from support.building import built
from support.calls import eventually
from support.predict import assert_serves, describe, error_of, load, predict, tensor
from support.server import ServerProcess, Stubs

_TUNED_SECONDS = 150.0
IMAGES = np.random.default_rng(7).random((3, 48, 48, 3), dtype=np.float32)


@pytest.fixture(scope="session")
def engine_models() -> Path:
    """The models of `build_engines.py`."""
    return built("build_engines")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache directory that the servers of this file share, one after the other."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def tuning(cache: Path) -> Iterator[Stubs]:
    """A server that looks for faster engines."""
    with ServerProcess("--tuning", cache_dir=cache) as process:
        stubs = Stubs(process.address)
        stubs.process = process
        yield stubs
        stubs.close()


def tuned(stubs: Stubs, model: str) -> model_pb2.EngineInfo:
    """What the search for a faster engine found, once it is over."""

    def over() -> model_pb2.EngineInfo | None:
        info = describe(stubs, "default", model).engine
        return info if info.tuning in (TUNING_STATE_DONE, TUNING_STATE_OFF) else None

    return eventually(over, _TUNED_SECONDS)


@pytest.fixture(scope="module")
def convnet(tuning: Stubs, engine_models: Path) -> tuple[model_pb2.EngineInfo, dict[str, np.ndarray], list[object]]:
    """The convnet tuned: what was found, TensorFlow's answers, and what callers got meanwhile."""
    version = load(tuning, "default", engine_models / "convnet")
    assert version.engine.engine == ENGINE_TENSORFLOW, "it serves at once"
    reference = predict(tuning, "default", "convnet", given=inputs(version, IMAGES))
    answers: list[object] = []
    done = threading.Event()

    def call() -> None:
        while not done.wait(0.01):
            answers.append(predict(tuning, "default", "convnet", given=inputs(version, IMAGES)))

    caller = threading.Thread(target=call)
    caller.start()
    try:
        info = tuned(tuning, "convnet")
    finally:
        done.set()
        caller.join()
    return info, reference, answers


def inputs(version: model_pb2.Version, images: np.ndarray) -> dict[str, np.ndarray]:
    (spec,) = version.signatures[0].inputs
    return {spec.name: images}


def close(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], atol=1e-4 * np.abs(value).max())
        assert (value.argmax(-1) == other[name].argmax(-1)).all()


def test_a_faster_engine_is_found_and_takes_over_without_a_failed_call(tuning, convnet):
    info, reference, answers = convnet
    chosen = [candidate for candidate in info.candidates if candidate.outcome == ENGINE_OUTCOME_CHOSEN]
    assert len(chosen) == 1
    assert info.engine == chosen[0].engine != ENGINE_TENSORFLOW
    assert chosen[0].speedup >= 1.2
    assert chosen[0].max_relative_difference <= 1e-4
    assert [timing.batch_size for timing in chosen[0].timings] == [1, 8]
    assert "times as fast" in info.explanation
    assert {candidate.engine for candidate in info.candidates} == {ENGINE_LITERT, ENGINE_OPENVINO}
    assert len(answers) > 20
    for answer in answers:
        close(reference, answer)
    assert "litert" in tuning.process.log()


def test_batches_of_any_size_are_answered_as_tensorflow_answers_them(tuning, convnet, engine_models):
    load(tuning, "default", engine_models / "convnet", "plain", options=LoadOptions(engine=ENGINE_TENSORFLOW))
    version = describe(tuning, "default", "plain")
    assert version.engine.tuning == TUNING_STATE_OFF
    for count in (1, 2, 5, 17):
        images = np.random.default_rng(count).random((count, 48, 48, 3), dtype=np.float32)
        given = inputs(version, images)
        close(predict(tuning, "default", "plain", given=given), predict(tuning, "default", "convnet", given=given))


def test_numbers_that_are_none_and_batches_of_nothing_are_tensorflows_to_answer(tuning, convnet, engine_models):
    load(tuning, "default", engine_models / "convnet", "plain", options=LoadOptions(engine=ENGINE_TENSORFLOW))
    version = describe(tuning, "default", "plain")
    broken = IMAGES.copy()
    broken[0, 0, 0, 0], broken[1, 5, 5, 1] = np.nan, np.inf
    given = inputs(version, broken)
    want, got = predict(tuning, "default", "plain", given=given), predict(tuning, "default", "convnet", given=given)
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-5)
    # TensorFlow's own kernels refuse this one.
    for model in ("plain", "convnet"):
        failure = error_of(lambda model=model: predict(tuning, "default", model, given=inputs(version, IMAGES[:0])))
        assert failure.code == "INVALID_ARGUMENT"
    assert describe(tuning, "default", "convnet").engine.engine == convnet[0].engine, "nothing failed"


def test_the_same_content_starts_on_the_winner(tuning, convnet, engine_models, tmp_path):
    info, reference, _ = convnet
    copy = shutil.copytree(engine_models / "convnet", tmp_path / "another_name")
    version = load(tuning, "default", copy)
    assert version.engine.engine == info.engine
    assert version.engine.tuning == TUNING_STATE_DONE
    assert [c.engine for c in version.engine.candidates] == [c.engine for c in info.candidates]
    close(reference, predict(tuning, "default", "another_name", given=inputs(version, IMAGES)))


@pytest.mark.parametrize(
    ("model", "word"), [("strings", "string"), ("table", "table"), ("random", "random"), ("counter", "variable")]
)
def test_what_only_tensorflow_can_serve_stays_there_and_says_why(tuning, engine_models, model, word):
    load(tuning, "default", engine_models / model)
    info = tuned(tuning, model)
    assert info.engine == ENGINE_TENSORFLOW
    assert [candidate.outcome for candidate in info.candidates] == [ENGINE_OUTCOME_REFUSED] * 2
    assert all(candidate.reason for candidate in info.candidates)
    assert word in info.explanation.lower()


def test_a_counter_counts_its_callers_only(tuning, engine_models):
    load(tuning, "default", engine_models / "counter", "fresh")
    tuned(tuning, "fresh")
    counts = [float(predict(tuning, "default", "fresh", x=np.float32([0]))["count"]) for _ in range(3)]
    assert counts == [1, 2, 3]


@pytest.mark.parametrize("engine", [ENGINE_LITERT, ENGINE_OPENVINO])
def test_an_engine_that_is_asked_for_serves_from_the_first_call(tuning, convnet, engine_models, engine):
    name = model_pb2.Engine.Name(engine)
    version = load(tuning, "default", engine_models / "convnet", name, options=LoadOptions(engine=engine))
    assert version.engine.engine == engine
    assert version.engine.tuning == TUNING_STATE_OFF
    close(convnet[1], predict(tuning, "default", name, given=inputs(version, IMAGES)))


def test_an_engine_that_cannot_serve_a_model_is_refused_with_the_reason(tuning, engine_models):
    failure = error_of(
        lambda: load(tuning, "default", engine_models / "strings", "s2", options=LoadOptions(engine=ENGINE_LITERT))
    )
    assert (failure.code, failure.reason) == ("INVALID_ARGUMENT", "SOURCE_UNSUPPORTED")
    assert failure.fields == ("options.engine",)
    assert "string" in failure.message


def test_what_every_engine_must_refuse_is_refused_and_the_engine_stays(tuning, engine_models):
    load(tuning, "default", engine_models / "ids", options=LoadOptions(engine=ENGINE_LITERT))
    for wrong in (50, -1, 2**31 - 1):
        failure = error_of(lambda wrong=wrong: predict(tuning, "default", "ids", ids=np.int32([[wrong, 1, 2, 3]])))
        assert failure.code == "INVALID_ARGUMENT"
    assert predict(tuning, "default", "ids", ids=np.int32([[0, 1, 2, 49]]))["y"].shape == (1, 2048)
    assert describe(tuning, "default", "ids").engine.engine == ENGINE_LITERT


def test_keras_files_are_tuned_too(tuning, convnet, engine_models):
    version = load(tuning, "default", engine_models / "convnet.keras", "from_keras")
    assert tuned(tuning, "from_keras").tuning == TUNING_STATE_DONE
    close(
        {"y": next(iter(convnet[1].values()))},
        {"y": next(iter(predict(tuning, "default", "from_keras", given=inputs(version, IMAGES)).values()))},
    )


def test_tflite_files_load_directly_with_their_signatures(tuning, engine_models):
    version = load(tuning, "default", engine_models / "scale.tflite", "scale")
    assert version.engine.engine == ENGINE_LITERT
    (signature,) = version.signatures
    assert [spec.name for spec in signature.inputs] == ["a", "b"]
    answer = predict(tuning, "default", "scale", a=np.float32([[1, 2], [3, 4]]), b=np.float32([[1, 1], [1, 1]]))
    assert next(iter(answer.values())).tolist() == [[4, 7], [10, 13]]
    failure = error_of(
        lambda: load(
            tuning, "default", engine_models / "scale.tflite", "s3", options=LoadOptions(engine=ENGINE_TENSORFLOW)
        )
    )
    assert failure.reason == "SOURCE_UNSUPPORTED"


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\x18\x00\x00\x00TFL3" + bytes(100), b"no flatbuffer at all"])
def test_a_damaged_tflite_file_is_refused_and_the_worker_lives(tuning, content, tmp_path):
    (tmp_path / "damaged.tflite").write_bytes(content)
    failure = error_of(lambda: load(tuning, "default", tmp_path / "damaged.tflite", "damaged"))
    assert failure.code == "INVALID_ARGUMENT"


def test_samples_are_run_before_the_version_is_available(tuning, engine_models):
    given = Sample(inputs={"x": tensor(np.float32([0]))})
    version = load(tuning, "default", engine_models / "counter", "warmed", warmup=[given] * 3)
    assert (version.warmup.success_count, version.warmup.failure_count) == (3, 0)
    assert float(predict(tuning, "default", "warmed", x=np.float32([0]))["count"]) == 4


def test_a_sample_that_fails_is_reported_and_fails_the_load_only_when_asked_to(tuning, engine_models):
    wrong = Sample(inputs={"x": tensor(np.float64([0]))})
    version = load(tuning, "default", engine_models / "counter", "tolerant", warmup=[wrong])
    assert (version.warmup.success_count, version.warmup.failure_count) == (0, 1)
    assert "'x'" in version.warmup.first_error
    failure = error_of(
        lambda: load(
            tuning, "default", engine_models / "counter", "strict", warmup=[wrong],
            options=LoadOptions(require_warmup=True),
        )
    )  # fmt: skip
    assert failure.code == "INVALID_ARGUMENT"
    assert "warm-up request 1" in failure.message


def test_a_sample_that_contradicts_itself_is_refused(tuning, engine_models):
    broken = tensor(np.float32([0, 1]))
    broken.shape[:] = [1000]
    sample = Sample(inputs={"x": broken})
    failure = error_of(lambda: load(tuning, "default", engine_models / "counter", "broken", warmup=[sample]))
    assert failure.reason == "INPUT_MALFORMED"
    assert failure.fields == ("warmup[0].inputs['x']",)


def _replace_artifact(cache: Path, engine: str, content: bytes) -> int:
    count = 0
    for artifact in cache.glob(f"engines/*/{engine}-*"):
        for file in artifact.glob("*.tflite" if engine == "litert" else "*.xml"):
            file.unlink()
            file.write_bytes(content)
            count += 1
    return count


@pytest.fixture
def second_cache(cache: Path, convnet: object, tmp_path: Path) -> Path:
    """A copy of the cache with what was found of the convnet, to be damaged."""
    copy = tmp_path / "cache"
    for name in ("engines", "digests"):
        shutil.copytree(cache / name, copy / name)
    return copy


def test_a_failure_at_a_real_request_is_answered_by_tensorflow_which_takes_over(
    convnet, second_cache, engine_models, cache
):
    info, reference, _ = convnet
    if info.engine != ENGINE_LITERT:
        pytest.skip("this machine chose another engine, whose artifact is not so easily replaced")
    one_example_only = (engine_models / "one_example_only.tflite").read_bytes()
    assert _replace_artifact(second_cache, "litert", one_example_only)
    with ServerProcess("--tuning", cache_dir=second_cache) as process:
        stubs = Stubs(process.address)
        version = load(stubs, "default", engine_models / "convnet")
        assert version.engine.engine == ENGINE_LITERT
        close(reference, predict(stubs, "default", "convnet", given=inputs(version, IMAGES)))
        eventually(lambda: describe(stubs, "default", "convnet").engine.engine == ENGINE_TENSORFLOW)
        demoted = describe(stubs, "default", "convnet").engine
        assert ENGINE_OUTCOME_FAILED in [candidate.outcome for candidate in demoted.candidates]
        close(reference, predict(stubs, "default", "convnet", given=inputs(version, IMAGES)))
        again = load(stubs, "default", engine_models / "convnet", "again")
        assert again.engine.engine == ENGINE_TENSORFLOW, "it is remembered"
        stubs.close()


def test_an_artifact_that_cannot_be_loaded_leaves_tensorflow(convnet, second_cache, engine_models):
    engine = {ENGINE_LITERT: "litert", ENGINE_OPENVINO: "openvino"}[convnet[0].engine]
    assert _replace_artifact(second_cache, engine, b"damaged")
    with ServerProcess("--tuning", cache_dir=second_cache) as process:
        stubs = Stubs(process.address)
        version = load(stubs, "default", engine_models / "convnet")
        assert version.engine.engine == ENGINE_TENSORFLOW
        assert "cannot load it" in version.engine.explanation
        close(convnet[1], predict(stubs, "default", "convnet", given=inputs(version, IMAGES)))
        stubs.close()


def test_workers_that_need_no_tensorflow_have_none(convnet, cache, engine_models, models):
    with ServerProcess("--tuning", cache_dir=cache) as process:
        stubs = Stubs(process.address)
        load(stubs, "default", engine_models / "scale.tflite", "scale")
        version = load(stubs, "default", engine_models / "convnet")
        assert version.engine.engine != ENGINE_TENSORFLOW
        close(convnet[1], predict(stubs, "default", "convnet", given=inputs(version, IMAGES)))
        for running in process.processes():
            assert not [m.path for m in running.memory_maps() if "tensorflow" in Path(m.path).name.lower()]
        load(stubs, "default", models / "half_plus_two")
        assert_serves(stubs, "default", "half_plus_two")
        close(convnet[1], predict(stubs, "default", "convnet", given=inputs(version, IMAGES)))
        stubs.close()
