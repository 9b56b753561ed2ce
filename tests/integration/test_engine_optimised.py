"""What the litert and openvino engines have in common: the answers are TensorFlow's, whoever asks, and however."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from modelhost_server.engines.base import EngineFailure, LoadedModel, NotForEngine
from modelhost_server.engines.litert import LitertEngine
from modelhost_server.engines.openvino import OpenvinoEngine
from modelhost_server.engines.optimised_pool import Pool
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.tensors import LentMemory, RawTensor
from support.optimised import Collected, built, check, load, options, recorded, run

ENGINES = {"litert": LitertEngine, "openvino": OpenvinoEngine}
MODELS = ["mlp", "pair", "cnn", "scalar", "dynamic", "unused", "square", "large"]


@pytest.fixture(params=list(ENGINES))
def engine_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def opened(engine_name: str) -> Iterator[dict[str, LoadedModel]]:
    """Models by name, loaded when they are asked for."""

    class Opened(dict[str, LoadedModel]):
        def __missing__(self, name: str) -> LoadedModel:
            self[name] = load(ENGINES[engine_name](options()), built() / name / engine_name)
            return self[name]

    models = Opened()
    yield models
    for model in models.values():
        model.close()


@pytest.mark.parametrize("name", [*MODELS, "dtypes"])
def test_a_model_answers_as_in_tensorflow(opened, engine_name, name):
    name = f"dtypes-{engine_name}" if name == "dtypes" else name
    calls = recorded(name)
    # Twice, so that every shape follows every other.
    for inputs, outputs in [*calls, *calls[::-1]]:
        if name == "unused":
            inputs = {**inputs, "a": np.array([b"nothing depends on it"], object)}
        if not is_ordinary(inputs.values()):
            with pytest.raises(NotForEngine):
                run(opened[name], inputs)
            continue
        got = run(opened[name], inputs)
        check(got, outputs)


def is_ordinary(arrays: Iterable[np.ndarray]) -> bool:
    """Whether engines answer, and do not leave the call to TensorFlow."""
    return all(array.size and (array.dtype.kind != "f" or np.isfinite(array).all()) for array in arrays)


def test_a_model_tells_what_it_is(opened, engine_name):
    model = opened["pair"]
    assert (model.engine, model.is_pure, model.shared_bytes()) == (engine_name, True, 0)
    assert model.loader.endswith(", float32")
    assert [signature.name for signature in model.signatures] == ["serving_default", "turned"]
    assert [str(spec) for spec in model.signatures[0].inputs] == ["float32 [?, ?]", "int64 [?]"]


def test_signatures_may_share_a_file(opened):
    for inputs, outputs in recorded("pair")[:4]:
        for _ in range(2):
            check(run(opened["pair"], inputs), outputs)
            turned = run(opened["pair"], {"p": inputs["b"], "q": inputs["a"]}, "turned")
            check(turned, {"y": outputs["b"], "z": outputs["a"]})


@pytest.mark.parametrize("wanted", [["b"], ["a"], ["b", "a"], ["a", "a"]])
def test_only_the_outputs_wanted_are_put_in_the_order_asked_for(opened, wanted):
    inputs, outputs = recorded("pair")[1]
    got = run(opened["pair"], inputs, wanted=wanted)
    assert list(got) == list(dict.fromkeys(wanted))
    check(got, {name: outputs[name] for name in wanted})


def test_inputs_are_used_wherever_they_are(opened):
    inputs, outputs = recorded("mlp")[2]
    x = inputs["x"]
    odd = bytearray(b"-" + x.tobytes())
    lent = LentMemory(memoryview(bytearray(x.tobytes())))
    for data in (x.tobytes(), memoryview(x.tobytes()), memoryview(odd)[1:], lent):
        check(run(opened["mlp"], {"x": RawTensor(1, x.shape, data)}), outputs)
    assert not lent.in_use


def test_what_is_put_is_not_overwritten_by_the_next_call(opened):
    x = [np.full([2, 4], value, np.float32) for value in (1, 2)]
    first = run(opened["mlp"], {"x": x[0]})["y"]
    kept = first.copy()
    run(opened["mlp"], {"x": x[1]})
    assert first.tolist() == kept.tolist()


@pytest.mark.parametrize(("threads", "lanes"), [(1, 1), (1, 2), (2, 2), (1, 4)])
def test_calls_side_by_side_get_their_own_answers(engine_name, threads, lanes):
    weights = np.load(built() / "mlp-weights.npy")
    model = load(ENGINES[engine_name](options(threads, lanes)), built() / "mlp" / engine_name)

    def calls(seed: int) -> int:
        random = np.random.default_rng(seed)
        for _ in range(60):
            x = random.normal(size=[random.integers(1, 40), 4]).astype(np.float32)
            np.testing.assert_allclose(run(model, {"x": x})["y"], np.maximum(x @ weights, 0), rtol=1e-5, atol=1e-5)
        return 60

    with ThreadPoolExecutor(lanes) as callers:
        assert sum(callers.map(calls, range(lanes))) == 60 * lanes
    model.close()


@pytest.mark.parametrize(("threads", "lanes"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_a_failure_is_told_and_answers_after_it_are_right(engine_name, threads, lanes):
    model = load(ENGINES[engine_name](options(threads, lanes)), built() / "pair" / engine_name)
    (right, answer), unlike = recorded("pair")[1], {"a": np.ones([3, 1], np.float32), "b": np.arange(4)}
    for _ in range(3):
        check(run(model, right), answer)
        with pytest.raises(EngineFailure) as caught:
            run(model, unlike)
        assert 0 < len(str(caught.value)) <= 500
        assert "\n" not in str(caught.value)
        check(answered(model, right), answer)
    model.close()


def answered(model: LoadedModel, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The first answer that is not a failure: an engine may need a moment after one."""
    for _ in range(1000):
        try:
            return run(model, inputs)
        except EngineFailure:
            threading.Event().wait(0.01)
    raise AssertionError("the engine does not come back")


def test_failures_beside_other_calls_do_not_spoil_their_answers(engine_name):
    model = load(ENGINES[engine_name](options(1, 2)), built() / "square" / engine_name)
    x, y = np.ones([2, 3], np.float32), np.ones([3, 4], np.float32)
    right = wrong = 0

    def fail() -> None:
        for rows in itertools.islice(itertools.cycle([2, 4, 5]), 60):
            with pytest.raises(EngineFailure):
                run(model, {"x": x, "y": np.ones([rows, 4], np.float32)})

    thread = threading.Thread(target=fail)
    thread.start()
    while thread.is_alive() or not right:
        try:
            got = run(model, {"x": x, "y": y})["z"]
        except EngineFailure:
            continue
        right += got.tolist() == [[3.0] * 4] * 2
        wrong += got.tolist() != [[3.0] * 4] * 2
    thread.join()
    assert wrong == 0
    model.close()


HUGE = {
    "more than 32 bits": (2**40, 0),
    "more than 64 bits": (2**62, 0),
    "nothing": (0, 0),
}


@pytest.mark.parametrize("shape", HUGE.values(), ids=HUGE)
def test_odd_extents_are_answered_or_refused(opened, shape):
    inputs = {"x": RawTensor(1, shape, b""), "y": np.zeros([0, 3], np.float32)}
    try:
        assert run(opened["square"], inputs)["z"].shape == (shape[0], 3)
    except EngineFailure:
        pass
    right, answer = recorded("square")[0]
    check(answered(opened["square"], right), answer)


def test_an_input_that_was_left_out_is_not_made_up(opened):
    inputs, _ = recorded("pair")[1]
    run(opened["pair"], inputs)
    with pytest.raises(EngineFailure, match="left out"):
        run(opened["pair"], {"a": inputs["a"]})


def test_an_error_of_the_sink_is_not_the_engines(opened):
    class Full(Collected):
        def put(self, *_: object) -> None:
            raise MemoryError("the arena is full")

    inputs, outputs = recorded("mlp")[1]
    for _ in range(3):
        with pytest.raises(MemoryError):
            opened["mlp"].run(0, [(0, RawTensor(1, inputs["x"].shape, inputs["x"].tobytes()))], (), Full())
    check(run(opened["mlp"], inputs), outputs)


BROKEN = {
    "an input of another dtype": lambda d: d["signatures"][0]["spec"]["inputs"][0].update(dtype=2),
    "an output of another dtype": lambda d: d["signatures"][0]["spec"]["outputs"][0].update(dtype=19),
    "strings": lambda d: d["signatures"][0]["spec"]["inputs"][0].update(dtype=7),
    "a place that is not there": lambda d: d["signatures"][0].update(inputs=[1]),
    "an input that nobody gives": lambda d: d["signatures"][0].update(inputs=[None]),
    "a file that is not there": lambda d: d["signatures"][0].update(file="other.tflite"),
    "another format": lambda d: d.update(format=2),
}


@pytest.mark.parametrize("spoil", BROKEN.values(), ids=BROKEN)
def test_a_broken_artifact_is_refused(engine_name, tmp_path, spoil):
    target = shutil.copytree(built() / "mlp" / engine_name, tmp_path / "artifact")
    described = json.loads((target / "artifact.json").read_text())
    spoil(described)
    (target / "artifact.json").write_text(json.dumps(described))
    with pytest.raises(ModelhostError) as caught:
        load(ENGINES[engine_name](options()), target)
    assert caught.value.reason in (Reason.SOURCE_INVALID, Reason.SOURCE_NOT_FOUND)


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused(engine_name, tmp_path, kept):
    target = shutil.copytree(built() / "large" / engine_name, tmp_path / "artifact")
    name = {"litert": "m.tflite", "openvino": "m.xml"}[engine_name]
    content = (target / name).read_bytes()
    (target / name).write_bytes(content[: int(kept * len(content)) if kept < 1 else kept])
    with pytest.raises(ModelhostError) as caught:
        load(ENGINES[engine_name](options()), target)
    assert caught.value.reason == Reason.SOURCE_INVALID


# In a process of its own, whose memory nobody else uses; with one arena, because glibc keeps the ends of others, which
# may be as large as the weights: 16 MiB.
_LIFE = """
import ctypes, gc, json, os, sys
from pathlib import Path
from support.optimised import *
engine = {"litert": LitertEngine, "openvino": OpenvinoEngine}[sys.argv[1]](options(int(sys.argv[2]), 1))
engine.prepare()
path = built() / "large" / sys.argv[1]
inputs = {"x": np.ones([2, 2048], np.float32)}

def measure():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    lines = (line.split() for line in open("/proc/self/smaps_rollup"))
    memory = {fields[0]: int(fields[1]) / 1024 for fields in lines if fields[-1] == "kB"}
    mapped = sum(os.path.getsize(f) for f in path.iterdir() if str(f) in open("/proc/self/maps").read())
    return memory["Rss:"], len(os.listdir("/proc/self/task")), mapped

def life():
    model = load(engine, path)
    run(model, inputs)
    loaded = measure()
    model.close()
    del model
    return loaded, measure()

life()
before = measure()
results = [life() for _ in range(4)]
print(json.dumps([before, results[-1][0], results[-1][1], "tensorflow" in sys.modules]))
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_memory_and_threads_are_given_back(engine_name, threads):
    result = subprocess.run(
        [sys.executable, "-c", _LIFE, engine_name, str(threads)],
        capture_output=True, text=True, cwd=Path(__file__).parents[1], check=True, timeout=120,
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},
    )  # fmt: skip
    before, loaded, after, imported_tensorflow = json.loads(result.stdout.splitlines()[-1])
    weights = 16
    assert loaded[0] - before[0] > 0.8 * weights
    # Once: what the weights were packed from is no longer in memory.
    assert loaded[0] - before[0] < 1.6 * weights
    assert after[0] - before[0] < 0.5 * weights
    assert after[1] == before[1]
    assert after[2] == 0
    assert not imported_tensorflow


def test_who_waits_longest_is_served_first():
    pool = Pool(["the only one"])
    item = pool.take()
    served: list[int] = []
    threads = []
    for number in range(5):
        waiting = threading.Event()

        def wait(number: int = number, waiting: threading.Event = waiting) -> None:
            taken = pool.take(when_none=waiting.set)
            served.append(number)
            pool.put(taken)

        threads.append(threading.Thread(target=wait))
        threads[-1].start()
        assert waiting.wait(10)
    pool.put(item)
    for thread in threads:
        thread.join(10)
    assert served == [0, 1, 2, 3, 4]
