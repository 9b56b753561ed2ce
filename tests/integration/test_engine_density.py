"""Weights that models share: right values, one copy, gone with the last user, and never another's change."""

from __future__ import annotations

import gc
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modelhost_server.engines import tensorflow_weights
from modelhost_server.engines.base import EngineOptions, LoadRequest
from modelhost_server.engines.tensorflow import TensorflowEngine
from modelhost_server.engines.tensorflow_model import TensorflowModel
from modelhost_server.tensors import STRING, RawTensor, element_count
from support.building import built as build_models

LAYER = 200 * 200 * 4
CHANGING = ["added", "scattered", "sliced", "in_place", "branched"]


@pytest.fixture(scope="module")
def built() -> Path:
    return build_models("build_weights")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def engine(cache: Path) -> Iterator[Loads]:
    loads = Loads(cache)
    yield loads
    loads.close()
    gc.collect()
    assert mapped(cache) == []


class Loads:
    """An engine with a cache, and the models it has loaded."""

    def __init__(self, cache: Path | None) -> None:
        self.engine = TensorflowEngine(EngineOptions(1, 1, 2, cache))
        self._models: list[TensorflowModel] = []

    def load(self, path: Path, digest: str = "", tags: tuple[str, ...] = ()) -> TensorflowModel:
        model = self.engine.load(LoadRequest(str(path), tags, digest), lambda *_: None)
        self._models.append(model)
        return model

    def drop(self, model: TensorflowModel) -> None:
        self._models.remove(model)
        model.close()

    def close(self) -> None:
        while self._models:
            self._models.pop().close()


class Outputs:
    """Takes outputs as bytes or strings."""

    def __init__(self) -> None:
        self.all: list[tuple[int, tuple[int, ...], Any]] = []

    def put(self, dtype: int, shape: Sequence[int], data: memoryview | Sequence[bytes]) -> None:
        self.all.append((dtype, tuple(shape), list(data) if dtype == STRING else bytes(data)))  # type: ignore[arg-type]


def call(model: TensorflowModel, **inputs: np.ndarray) -> dict[str, tuple[int, tuple[int, ...], Any]]:
    """The outputs of `serving_default` by name: dtype, shape and content."""
    position = next(i for i, signature in enumerate(model.signatures) if signature.name == "serving_default")
    specs, sink = model.signatures[position], Outputs()
    names = [spec.name for spec in specs.inputs]
    given = []
    for name, value in inputs.items():
        spec = specs.inputs[names.index(name)]
        given.append((names.index(name), RawTensor(spec.dtype, value.shape, value.tobytes())))
    model.run(position, given, (), sink)
    return dict(zip((spec.name for spec in specs.outputs), sink.all, strict=True))


def floats(model: TensorflowModel, output: str, **inputs: np.ndarray) -> np.ndarray:
    _, shape, data = call(model, **inputs)[output]
    return np.frombuffer(data, np.float32).reshape(shape)


def mapped(cache: Path) -> list[str]:
    """The files of the cache that this process has in memory."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sorted(line.split()[5] for line in lines if f"{cache}/weights/" in line)


def answer(built: Path, name: str, output: str = "y") -> np.ndarray:
    """What TensorFlow itself answered."""
    return np.load(built / f"{name}.npz")[output]


ONES = np.ones((2, 200), np.float32)


# Right values


def test_a_model_with_shared_weights_answers_as_in_tensorflow(built: Path, engine: Loads) -> None:
    for name in ("tuned_0", "tuned_1"):
        np.testing.assert_allclose(floats(engine.load(built / name), "y", x=ONES), answer(built, name), rtol=1e-5)
    taller = engine.load(built / "tuned_taller")
    result = floats(taller, "y", x=np.ones((2, 201), np.float32))
    np.testing.assert_allclose(result, answer(built, "tuned_taller"), rtol=1e-5)


def test_rows_of_a_shared_table_are_read(built: Path, engine: Loads) -> None:
    rows = floats(engine.load(built / "embedding"), "rows", ids=np.int64([[0, 999, 5], [5, 6, 7]]))
    assert rows.tobytes() == answer(built, "embedding", "rows").tobytes()


def test_variables_that_a_loop_captures_are_shared(built: Path, engine: Loads, cache: Path) -> None:
    x = np.load(built / "recurrent.npz")["x"]
    for _ in range(2):
        model = engine.load(built / "recurrent")
        result = floats(model, "output_0", x=x)
        np.testing.assert_allclose(result, answer(built, "recurrent", "output_0"), rtol=1e-4, atol=1e-5)
    # The larger matrix of the GRU, and all that is small.
    assert len(mapped(cache)) == 2
    assert model.shared_bytes() > 150 * 450 * 4


@pytest.mark.parametrize("loads", ["cold", "from the index", "without a cache"])
def test_variables_of_every_dtype_and_size_have_their_values(built: Path, cache: Path, loads: str) -> None:
    engine = Loads(None if loads == "without a cache" else cache)
    if loads == "from the index":
        engine.load(built / "dtypes", "digest")
    outputs = call(engine.load(built / "dtypes", "digest"))
    bits = np.load(built / "dtypes.npz")
    assert len(bits.files) == 15 * 4
    for name in bits.files:
        assert outputs[name][2] == bits[name].tobytes(), name
        size = {"scalar": 1, "empty": 0, "small": 15, "large": 300 * 301}[name.rpartition("_")[2]]
        assert element_count(outputs[name][1]) == size
    assert outputs["string_scalar"][2] == [b"a\0b"]
    assert outputs["string_small"][2] == [b"a\0b", b"", b"\xff" * 100] * 5
    assert outputs["string_empty"][1:] == ((0, 3), [])
    engine.close()


# One copy


def test_two_fine_tunes_share_what_is_equal_and_nothing_else(built: Path, engine: Loads, cache: Path) -> None:
    first = engine.load(built / "tuned_0")
    assert first.shared_bytes() == 0
    second = engine.load(built / "tuned_1")
    # The first layer; two second layers; two files with what is small.
    assert len(mapped(cache)) == 5
    assert first.shared_bytes() == second.shared_bytes() == LAYER
    x = np.random.default_rng(3).normal(size=(4, 200)).astype(np.float32)
    assert not np.array_equal(floats(first, "y", x=x), floats(second, "y", x=x))


def test_closing_a_fine_tune_leaves_the_other_right_and_unmaps_what_it_had_alone(
    built: Path, engine: Loads, cache: Path
) -> None:
    first, second = engine.load(built / "tuned_0"), engine.load(built / "tuned_1")
    floats(first, "y", x=ONES)
    engine.drop(first)
    assert len(mapped(cache)) == 3
    assert second.shared_bytes() == 0
    np.testing.assert_allclose(floats(second, "y", x=ONES), answer(built, "tuned_1"), rtol=1e-5)
    engine.drop(second)
    assert mapped(cache) == []


def test_fine_tunes_run_in_one_session_and_others_do_not(built: Path, engine: Loads) -> None:
    first, second = engine.load(built / "tuned_0"), engine.load(built / "tuned_1")
    taller = engine.load(built / "tuned_taller")
    assert first._session is second._session
    assert first._session is not taller._session


def test_a_model_answers_while_others_of_its_graph_come_and_go(built: Path, engine: Loads) -> None:
    kept = engine.load(built / "tuned_0")
    want = floats(kept, "y", x=ONES).tobytes()
    done, wrong = threading.Event(), []

    def lane() -> None:
        while not done.is_set():
            if floats(kept, "y", x=ONES).tobytes() != want:
                wrong.append(1)

    lanes = [threading.Thread(target=lane) for _ in range(3)]
    for thread in lanes:
        thread.start()
    for _ in range(30):
        other = engine.load(built / "tuned_1", "digest")
        np.testing.assert_allclose(floats(other, "y", x=ONES), answer(built, "tuned_1"), rtol=1e-5)
        engine.drop(other)
    done.set()
    for thread in lanes:
        thread.join()
    assert not wrong


def test_many_threads_load_the_same_model_at_once(built: Path, engine: Loads, cache: Path) -> None:
    loaded: list[TensorflowModel] = []
    threads = [
        threading.Thread(target=lambda: loaded.append(engine.load(built / "tuned_0", "digest"))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 6
    assert len({id(model._session) for model in loaded}) == 1
    assert len(mapped(cache)) == 3
    for model in loaded:
        np.testing.assert_allclose(floats(model, "y", x=ONES), answer(built, "tuned_0"), rtol=1e-5)


# Never another's change


@pytest.mark.parametrize("change", CHANGING)
def test_a_model_that_changes_its_variable_has_one_of_its_own(
    built: Path, engine: Loads, cache: Path, change: str
) -> None:
    reading = engine.load(built / "reading", "reading")
    ones = floats(reading, "v").tobytes()
    first, second = engine.load(built / change, "same"), engine.load(built / change, "same")
    assert len(mapped(cache)) == 1
    for i in range(1, 4):
        assert floats(first, "first", x=np.float32(10)) == 1 + 10 * i
        assert floats(reading, "v").tobytes() == ones
    assert floats(second, "first", x=np.float32(1)) == 2
    assert floats(engine.load(built / "reading", "reading"), "v").tobytes() == ones


@pytest.mark.parametrize(
    ("model", "is_pure"),
    [
        ("tuned_0", True), ("embedding", True), ("recurrent", True), ("assert", True), ("stateless_random", True),
        ("trace_random", False), ("trace_print", False), ("trace_queue", False), ("trace_table", False),
        *((name, False) for name in CHANGING),
    ],
)  # fmt: skip
def test_it_is_told_whether_runs_leave_a_trace(built: Path, engine: Loads, model: str, is_pure: bool) -> None:
    assert engine.load(built / model).is_pure is is_pure


# The index


def without_values(built: Path, name: str, directory: Path) -> Path:
    """A copy of a model whose checkpoint has lost its values."""
    path = directory / f"{name} without values"
    shutil.copytree(built / name, path)
    for file in (path / "variables").glob("variables.data*"):
        file.unlink()
    return path


@pytest.mark.parametrize("name", ["tuned_0", "embedding", "recurrent"])
def test_known_content_is_loaded_without_its_checkpoint(built: Path, cache: Path, tmp_path: Path, name: str) -> None:
    first = Loads(cache)
    variables = first.load(built / name, "digest").variables
    first.close()
    engine = Loads(cache)
    model = engine.load(without_values(built, name, tmp_path), "digest")
    assert model.variables == variables
    if name == "tuned_0":
        np.testing.assert_allclose(floats(model, "y", x=ONES), answer(built, name), rtol=1e-5)
    engine.close()


def test_content_that_is_not_known_or_known_by_other_tags_is_read(built: Path, engine: Loads, cache: Path) -> None:
    engine.load(built / "tuned_0")
    assert not (cache / "index").exists()
    engine.load(built / "tuned_0", "digest")
    engine.load(built / "tuned_0", "digest", ("serve",))
    assert len(list((cache / "index").iterdir())) == 2


@pytest.mark.parametrize("how", ["vanished", "truncated", "empty"])
def test_files_that_are_not_as_they_should_be_are_made_again(built: Path, engine: Loads, cache: Path, how: str) -> None:
    engine.drop(engine.load(built / "tuned_0", "digest"))
    files = sorted((cache / "weights").iterdir())
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, contents, strict=True):
        if how == "vanished":
            file.unlink()
        else:
            file.write_bytes(content[: -1 if how == "truncated" else 0])
    model = engine.load(built / "tuned_0", "digest")
    np.testing.assert_allclose(floats(model, "y", x=ONES), answer(built, "tuned_0"), rtol=1e-5)
    assert [file.read_bytes() for file in files] == contents


def test_files_that_are_cleaned_away_while_a_model_has_them_are_made_again(
    built: Path, engine: Loads, cache: Path
) -> None:
    before = engine.load(built / "tuned_0", "digest")
    files = sorted((cache / "weights").iterdir())
    for file in files:
        file.unlink()
    np.testing.assert_allclose(floats(before, "y", x=ONES), answer(built, "tuned_0"), rtol=1e-5)
    after = engine.load(built / "tuned_0", "digest")
    np.testing.assert_allclose(floats(after, "y", x=ONES), answer(built, "tuned_0"), rtol=1e-5)
    assert sorted((cache / "weights").iterdir()) == files
    assert after.shared_bytes() > 2 * LAYER


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format": 1, "values": [[1]]}', b'{"format": 0}'])
def test_an_index_that_makes_no_sense_is_made_again(built: Path, engine: Loads, cache: Path, content: bytes) -> None:
    engine.drop(engine.load(built / "tuned_0", "digest"))
    (index,) = (cache / "index").iterdir()
    good = index.read_bytes()
    index.write_bytes(content)
    model = engine.load(built / "tuned_0", "digest")
    np.testing.assert_allclose(floats(model, "y", x=ONES), answer(built, "tuned_0"), rtol=1e-5)
    assert index.read_bytes() == good


def test_a_cache_that_cannot_be_written_is_done_without(
    built: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorflow_weights, "_said", set())
    (tmp_path / "file").touch()
    engine = Loads(tmp_path / "file")
    for name in ("tuned_0", "tuned_1"):
        model = engine.load(built / name, name)
        np.testing.assert_allclose(floats(model, "y", x=ONES), answer(built, name), rtol=1e-5)
        assert model.shared_bytes() == 0
    assert len([record for record in caplog.records if "weights are not shared" in record.message]) == 1
    engine.close()
