"""What optimizations make of a trained model: as accurate as before, smaller, and with the same signatures."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modelhost_server.engines.artifact import read_artifact
from modelhost_server.samples import Sample, write_samples
from modelhost_server.sandbox.rights import Rights
from modelhost_server.tensors import RawTensor
from support.building import built as build_models

_FLOAT32 = 1
METHODS = ["dynamic_int8", "float16", "full_int8", "weight_only_int8"]

Job = dict[str, Any]


class Refused(Exception):
    """A stage said why it will not do it."""


def stage(name: str, job: Job) -> Job:
    """Runs a stage of the converter, as the server does."""
    process = subprocess.run(
        [sys.executable, "-m", "modelhost_server.converter", name, Rights(sandboxed=False).to_json()],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert process.stdout, process.stderr[-4000:]
    answer = json.loads(process.stdout)
    if "error" in answer:
        raise Refused(answer["error"]["message"])
    result: Job = answer["result"]
    return result


@pytest.fixture(scope="module")
def built() -> Path:
    return build_models("build_digits")


def convert(source: Path, directory: Path) -> Path:
    """The float32 LiteRT artifact of a SavedModel."""
    frozen, artifact = directory / "frozen", directory / "litert"
    frozen.mkdir(parents=True)
    artifact.mkdir()
    stage("freeze", {"path": str(source), "tags": [], "target": str(frozen)})
    stage("litert", {"frozen": str(frozen), "target": str(artifact)})
    return artifact


@pytest.fixture(scope="module")
def artifact(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(built / "digits", tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def heads(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(built / "heads", tmp_path_factory.mktemp("heads"))


def quantize(source: Path, target: Path, method: str, **more: Any) -> Job:
    target.mkdir(exist_ok=True)
    return stage(
        "quantize", {"artifact": str(source), "method": method, "target": str(target), "samples": None, **more}
    )


def prune(source: Path, target: Path, sparsity: float) -> Job:
    return stage("prune", {"path": str(source), "tags": [], "sparsity": sparsity, "target": str(target)})


def compare(original: Path, optimized: Path, engine: str, **more: Any) -> Job:
    sides = {
        "original": {"path": str(original), "tags": [], "engine": "tensorflow"},
        "optimized": {"path": str(optimized), "tags": [], "engine": engine},
    }
    return stage("compare", {**sides, "intra_op_threads": 1, "samples": None, "true_classes": None, **more})


def check_measures(report: Job) -> None:
    for side in ("original", "optimized"):
        measure = report[side]
        assert 0 < measure["compressed_bytes"] <= measure["disk_bytes"]
        assert measure["latency_ns"] > 0
        assert measure["private_bytes"] >= 0


@pytest.mark.parametrize(
    ("method", "bound"), [("dynamic_int8", 0.01), ("float16", 0.01), ("full_int8", 0.03), ("weight_only_int8", 0.01)]
)
def test_quantized_model_is_as_accurate(built: Path, artifact: Path, tmp_path: Path, method: str, bound: float) -> None:
    calibration = {"samples_file": str(built / "calibration.npz")} if method == "full_int8" else {}
    assert quantize(artifact, tmp_path / "small", method, **calibration) == {"remarks": []}
    before, after = read_artifact(artifact), read_artifact(tmp_path / "small")
    assert (after.engine, after.precision) == ("litert", method)
    assert (after.signatures, after.variables) == (before.signatures, before.variables)

    report = compare(built / "digits", tmp_path / "small", "litert", samples_file=str(built / "test.npz"))
    original, optimized = report["original"], report["optimized"]
    check_measures(report)
    assert original["accuracy"] > 0.96
    assert abs(optimized["accuracy"] - original["accuracy"]) <= bound
    assert (original["batch_size"], optimized["batch_size"]) == (1, 1)
    assert report["example_count"] == len(np.load(built / "test.npz")["labels"])
    assert not report["examples_made_up"]
    (drift,) = report["drift"]
    assert (drift["signature"], drift["output"]) == ("serving_default", "output_0")
    assert 0 < drift["mean_relative_difference"] < drift["max_relative_difference"] < 0.2
    assert drift["argmax_agreement"] > 0.98
    share = 0.6 if method == "float16" else 0.35
    assert (tmp_path / "small" / "0.tflite").stat().st_size < share * (artifact / "0.tflite").stat().st_size


def test_tflite_file(built: Path, artifact: Path, tmp_path: Path) -> None:
    file = shutil.copy(artifact / "0.tflite", tmp_path / "mine.tflite")
    quantize(Path(file), tmp_path / "small", "dynamic_int8")
    (signature,) = read_artifact(tmp_path / "small").signatures
    assert (signature.file, signature.inputs, signature.outputs) == ("mine.tflite", (0,), (0,))
    assert [spec.shape for spec in (*signature.spec.inputs, *signature.spec.outputs)] == [(-1, 8, 8, 1), (-1, 10)]
    small = (tmp_path / "small" / "mine.tflite").stat().st_size
    assert small < 0.35 * Path(file).stat().st_size


@pytest.mark.parametrize("method", METHODS)
def test_inputs_and_outputs_keep_their_places(built: Path, heads: Path, tmp_path: Path, method: str) -> None:
    """Their sizes differ, so that a mistake fails or is far off. A signature that has no samples stays float32."""
    random = np.random.default_rng(1)
    sizes = {"narrow": 32, "unused": 7, "wide": 64}
    inputs = {
        name: RawTensor(_FLOAT32, (50, size), random.normal(size=(50, size)).astype(np.float32).tobytes())
        for name, size in sizes.items()
    }
    samples = tmp_path / "samples"
    write_samples(samples, [Sample("mix", inputs), Sample("one", {"narrow": inputs["narrow"]})])
    for_mix = tmp_path / "for_mix"
    write_samples(for_mix, [Sample("mix", inputs)])
    result = quantize(heads, tmp_path / "small", method, samples=str(for_mix))
    remarks = ["Stayed float32, because it has no samples: one."] if method == "full_int8" else []
    assert result["remarks"] == remarks
    report = compare(built / "heads", tmp_path / "small", "litert", samples=str(samples))
    drift = {(d["signature"], d["output"]): d["max_relative_difference"] for d in report["drift"]}
    assert drift.keys() == {("mix", "narrow"), ("mix", "hidden"), ("mix", "answer"), ("one", "y")}
    assert max(drift.values()) < 0.05
    if method == "full_int8":
        assert drift["one", "y"] < 1e-5 < drift["mix", "answer"]


@pytest.mark.parametrize("name", ["digits", "digits_training", "digits_sharded"])
def test_pruned_model(built: Path, tmp_path: Path, name: str) -> None:
    result = prune(built / name, tmp_path / "pruned", 0.5)
    assert result == {"pruned_variables": 4, "zero_share": pytest.approx(0.5, abs=0.001)}
    examples = np.load(built / "test.npz")
    named = {"digits_training": "inputs"}.get(name, "image")
    np.savez(tmp_path / "test.npz", **{named: examples["image"], "labels": examples["labels"]})
    report = compare(built / name, tmp_path / "pruned", "tensorflow", samples_file=str(tmp_path / "test.npz"))
    check_measures(report)
    original, optimized = report["original"], report["optimized"]
    assert original["accuracy"] > 0.96
    assert original["accuracy"] - optimized["accuracy"] <= 0.1
    assert (original["zero_share"], optimized["zero_share"]) == (0, pytest.approx(0.5, abs=0.001))
    assert report["drift"][0]["max_relative_difference"] > 0
    # Zeros are stored, too: only compression gains.
    assert optimized["disk_bytes"] == pytest.approx(original["disk_bytes"], rel=0.01)
    assert optimized["compressed_bytes"] < 0.9 * original["compressed_bytes"]


def test_too_much_pruning_is_told(built: Path, tmp_path: Path) -> None:
    assert prune(built / "digits", tmp_path / "pruned", 0.9)["zero_share"] == pytest.approx(0.9, abs=0.001)
    report = compare(built / "digits", tmp_path / "pruned", "tensorflow", samples_file=str(built / "test.npz"))
    assert report["optimized"]["accuracy"] < report["original"]["accuracy"] - 0.05
    assert report["drift"][0]["argmax_agreement"] < 0.95


# Prints the checkpoint keys whose values differ, with the share of zeros there is now.
_DIFFERENCES = """
import json, sys
import numpy as np
import tensorflow as tf

old, new = (tf.train.load_checkpoint(f"{path}/variables/variables") for path in sys.argv[1:])
shapes = old.get_variable_to_shape_map()
assert shapes == new.get_variable_to_shape_map()
assert old.get_variable_to_dtype_map() == new.get_variable_to_dtype_map()
changed = {}
for key in shapes:
    before, after = old.get_tensor(key), new.get_tensor(key)
    if not np.array_equal(before, after):
        assert (after[after != 0] == before[after != 0]).all(), key
        changed[key] = 1 - np.count_nonzero(after) / after.size
print(json.dumps([changed, len(shapes)]))
"""


@pytest.mark.parametrize("name", ["digits_training", "digits_sharded"])
def test_only_kernels_change(built: Path, tmp_path: Path, name: str) -> None:
    """Kernels, and the copies of them that Keras keeps; not biases, nor what the optimizer remembers."""
    prune(built / name, tmp_path / "pruned", 0.5)
    process = subprocess.run(
        [sys.executable, "-c", _DIFFERENCES, str(built / name), str(tmp_path / "pruned")],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr[-4000:]
    changed, total = json.loads(process.stdout)
    # The optimizer, too, knows the kernels; what it has of its own are moments and counters.
    assert not [key for key in changed if key.startswith("optimizer/_variables/")]
    assert 4 <= len(changed) < total / 2
    assert list(changed.values()) == [pytest.approx(0.5, abs=0.001)] * len(changed)
    old, new = (
        {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}
        for root in (built / name, tmp_path / "pruned")
    )
    kept = {path for path in old if not path.startswith("variables/")}
    assert {"saved_model.pb", "fingerprint.pb"} & kept
    assert {path: new[path] for path in kept} == {path: old[path] for path in kept}
    # Nothing of the old checkpoint is left among the new one's files.
    assert sorted(new.keys() - kept) == ["variables/variables.data-00000-of-00001", "variables/variables.index"]


@pytest.mark.parametrize("name", ["keras_saved", "v1_reference", "v1_resource"])
def test_pruned_models_load_however_they_load(models: Path, tmp_path: Path, name: str) -> None:
    """Each needs another way to load; two have no object graph."""
    assert prune(models / name, tmp_path / "pruned", 0.5)["pruned_variables"] >= 1
    report = compare(models / name, tmp_path / "pruned", "tensorflow")
    assert report["examples_made_up"]
    assert report["optimized"]["zero_share"] == pytest.approx(0.5, abs=0.01)
    assert max(drift["max_relative_difference"] for drift in report["drift"]) > 0


def test_compared_with_itself(built: Path, tmp_path: Path) -> None:
    """On made-up inputs, of several batch sizes; no class is right or wrong then."""
    report = compare(built / "digits", built / "digits", "tensorflow", batch_size=4)
    assert report["examples_made_up"]
    assert report["example_count"] > 2
    assert {drift["signature"] for drift in report["drift"]} == {"serve", "serving_default"}
    for drift in report["drift"]:
        assert (drift["max_relative_difference"], drift["mean_relative_difference"]) == (0, 0)
        assert drift["argmax_agreement"] == 1
    assert report["original"]["accuracy"] is None
    assert report["original"]["disk_bytes"] == report["optimized"]["disk_bytes"]


def test_samples_with_true_classes(built: Path, tmp_path: Path) -> None:
    examples = np.load(built / "test.npz")
    images, labels = examples["image"][:20], examples["labels"][:20].tolist()
    write_samples(
        tmp_path / "samples",
        [Sample("", {"image": RawTensor(_FLOAT32, part.shape, part.tobytes())}) for part in (images[:15], images[15:])],
    )
    job = {"samples": str(tmp_path / "samples"), "batch_size": 10}
    right = compare(built / "digits", built / "digits", "tensorflow", **job, true_classes=labels)
    wrong = compare(built / "digits", built / "digits", "tensorflow", **job, true_classes=[n + 1 for n in labels])
    assert right["original"]["accuracy"] >= 0.9
    assert wrong["original"]["accuracy"] <= 0.1
    assert (right["example_count"], right["original"]["batch_size"]) == (20, 10)


def test_quantizing_is_refused(models: Path, built: Path, artifact: Path, tmp_path: Path) -> None:
    target = tmp_path / "small"
    with pytest.raises(Refused, match="full_int8 needs samples of real inputs"):
        quantize(artifact, target, "full_int8")
    with pytest.raises(Refused, match="expected a method of"):
        quantize(artifact, target, "int3")
    write_samples(tmp_path / "samples", [Sample("", {})])
    with pytest.raises(Refused, match="sample 1: the input 'image' is missing"):
        quantize(artifact, target, "full_int8", samples=str(tmp_path / "samples"))
    with pytest.raises(Refused, match="there is no 'nowhere'"):
        quantize(tmp_path / "nowhere", target, "float16")
    (tmp_path / "text.tflite").write_text("not a model")
    with pytest.raises(Refused, match="it lacks the identifier TFL3"):
        quantize(tmp_path / "text.tflite", target, "float16")
    quantize(artifact, target, "float16")
    with pytest.raises(Refused, match="the model is quantized already"):
        quantize(target, tmp_path / "smaller", "dynamic_int8")
    with pytest.raises(Refused, match="no weights that dynamic_int8 applies to"):
        quantize(convert(models / "half_plus_two", tmp_path / "half"), tmp_path / "none", "dynamic_int8")


@pytest.mark.parametrize("sparsity", [0, 1, -0.5, 1.5])
def test_sparsity_out_of_range(built: Path, tmp_path: Path, sparsity: float) -> None:
    with pytest.raises(Refused, match="expected a sparsity above 0 and below 1"):
        prune(built / "digits", tmp_path / "pruned", sparsity)


def test_pruning_is_refused(models: Path, built: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no signature uses a float variable with two dimensions"):
        prune(models / "half_plus_two", tmp_path / "pruned", 0.5)
    with pytest.raises(Refused, match="the SavedModel has no variables"):
        prune(models / "v1_words", tmp_path / "pruned", 0.5)
    broken = shutil.copytree(built / "digits", tmp_path / "broken")
    (broken / "variables" / "variables.data-00000-of-00001").write_bytes(b"short")
    with pytest.raises(Refused, match="the SavedModel's variables cannot be read"):
        prune(broken, tmp_path / "pruned", 0.5)


def test_comparing_is_refused(models: Path, built: Path, artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="the optimized model has other signatures"):
        compare(models / "half_plus_two", artifact, "litert")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(Refused, match="samples_file has an array 'x'"):
        compare(built / "digits", artifact, "litert", samples_file=str(tmp_path / "other.npz"))
