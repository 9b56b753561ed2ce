"""What the converter makes of models that tempt it to be wrong; and its process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modelhost_server.engines.artifact import Artifact, ArtifactSignature, read_artifact
from modelhost_server.samples import Sample, write_samples
from modelhost_server.sandbox.rights import Rights
from modelhost_server.tensors import RawTensor
from support.building import built
from support.conversions import judge_job
from support.disks import mount, unmount

_ROOT = Path(__file__).parent.parent.parent
_CONVERSIONS = _ROOT / "tests" / "support" / "conversions.py"
_ENVIRONMENT = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}
# Of who is free to do all.
RIGHTS = Rights(sandboxed=False).to_json()

# All models are converted by whichever test comes first.
pytestmark = pytest.mark.timeout(600)

NOT_FROZEN = {
    "strings": "string tensor",
    "strings_inside": "strings",
    "int_table": "lookup table",
    "random": "random numbers",
    "counter": "changes a variable",
    "hidden_counter": "changes a variable",
    "optional": "default value",
    "complex_output": "complex",
    "unknown_rank": "unknown rank",
    "float64": "float64",
    "without_inputs": "no inputs",
    "python_function": "Python code",
    "assertion": "checks its inputs",
    "check_numerics": "checks its values",
    "one_tensor_twice": "one tensor",
}
NOT_CONVERTED = {
    ("erfinv", "litert"): "Erfinv",
    ("erfinv", "openvino"): "Erfinv",
    ("inverse", "litert"): "MatrixInverse",
    ("bitcast", "openvino"): "Bitcast",
    ("stateless_random", "litert"): "StatelessRandom",
    ("stateless_random", "openvino"): "StatelessRandom",
    ("lstm", "litert"): "TensorListReserve",
    ("v1_loop", "litert"): "frame",
}
# Each is answered, and wrongly, by that engine.
DIFFERENT = {
    ("boxes", "litert"): "shape",
    ("rsqrt", "litert"): "infinity",
    ("division", "openvino"): "others",
    ("power", "openvino"): "others",
    ("uint8", "openvino"): "others",
    ("unique", "openvino"): "others",
    ("embedding", "openvino"): "TensorFlow rejects",
    ("embedding_int64", "openvino"): "TensorFlow rejects",
    ("transformer", "openvino"): "TensorFlow rejects",
    ("segments", "openvino"): "TensorFlow rejects",
    ("reverse_sequence", "litert"): "TensorFlow rejects",
    ("picky", "openvino"): "TensorFlow rejects",
}
UNPROVEN = {
    ("constant_output", "litert"): "same for all",
    ("constant_output", "openvino"): "same for all",
    ("picky", "litert"): "no made-up input",
    ("chaotic", "litert"): "last digits",
    ("chaotic", "openvino"): "last digits",
}
BOTH = [
    "argmax", "asserts_constants", "branch", "delicate", "images_of_any_size", "keras_export", "keras_saved", "loop",
    "many_outputs", "nan", "one_hot", "overflow", "passes_on", "plain", "resize", "rounding", "square", "stft", "top_k",
    "two_open", "two_signatures", "where",
]  # fmt: skip
ACCEPTED = [
    *((model, engine) for model in BOTH for engine in ("litert", "openvino")),
    ("embedding", "litert"), ("embedding_int64", "litert"), ("int64", "litert"), ("segments", "litert"),
    ("transformer", "litert"), ("unique", "litert"),
    ("half", "openvino"), ("lstm", "openvino"), ("v1_loop", "openvino"),
]  # fmt: skip


@dataclass(frozen=True)
class Results:
    models: Path
    directory: Path

    def said(self, model: str, stage: str) -> dict[str, Any]:
        """What the converter said of a model at a stage; {} when it did not come to that."""
        file = self.directory / f"{model}.{stage}.json"
        said: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        return said


@pytest.fixture(scope="session")
def tricky() -> Path:
    """The models of build_tricky.py."""
    return built("build_tricky")


@pytest.fixture(scope="session")
def results(tricky: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """All models, frozen, converted and judged."""
    directory = tmp_path_factory.mktemp("converted")
    for part in ("tensorflow", "engines"):
        _run_script(str(_CONVERSIONS), part, str(tricky), str(directory))
    return Results(tricky, directory)


def _run_script(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], env=_ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]


def stage(name: str, job: dict[str, Any], **environment: str) -> tuple[int, dict[str, Any], str]:
    """The converter process's status, answer and log."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "modelhost_server.converter", name, RIGHTS],
        input=json.dumps(job), capture_output=True, text=True, timeout=300, env=os.environ | environment,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


@pytest.mark.parametrize("model", NOT_FROZEN)
def test_what_only_tensorflow_can_serve_is_refused_up_front(results, model):
    assert NOT_FROZEN[model] in results.said(model, "freeze")["error"]["message"]
    assert not results.said(model, "litert")
    assert not results.said(model, "openvino")


@pytest.mark.parametrize(("model", "engine"), NOT_CONVERTED)
def test_a_converter_that_refuses_a_model_says_why(results, model, engine):
    assert "result" in results.said(model, "freeze")
    assert NOT_CONVERTED[model, engine] in results.said(model, engine)["error"]["message"]
    assert not results.said(model, f"judge-{engine}")


@pytest.mark.parametrize(("model", "engine"), DIFFERENT)
def test_a_wrong_answer_is_found(results, model, engine):
    judgement = results.said(model, f"judge-{engine}")["result"]
    assert (judgement["accepted"], judgement["outcome"]) == (False, "DIFFERENT"), judgement
    assert DIFFERENT[model, engine] in judgement["reason"]


@pytest.mark.parametrize(("model", "engine"), UNPROVEN)
def test_what_probes_cannot_prove_is_not_used(results, model, engine):
    judgement = results.said(model, f"judge-{engine}")["result"]
    assert (judgement["accepted"], judgement["outcome"]) == (False, "REFUSED"), judgement
    assert UNPROVEN[model, engine] in judgement["reason"]


def test_numbers_an_engine_cannot_hold_are_tried(results):
    judgement = results.said("int64", "judge-openvino")["result"]
    assert not judgement["accepted"]
    assert "wide" in judgement["reason"]


@pytest.mark.parametrize(("model", "engine"), ACCEPTED)
def test_a_right_conversion_is_accepted_and_timed(results, model, engine):
    said = results.said(model, f"judge-{engine}")
    assert said.get("result", {}).get("accepted"), said
    judgement = said["result"]
    tolerance = 4e-3 if model == "half" else 1e-4
    assert 0 <= judgement["max_relative_difference"] <= tolerance
    assert {size for size, _, _ in judgement["timings"]} == {1, 8}
    assert all(reference > 0 and candidate > 0 for _, reference, candidate in judgement["timings"])
    assert judgement["speedup"] > 0


def test_signatures_that_compute_the_same_share_a_file(results):
    frozen = json.loads((results.directory / "two_signatures" / "frozen" / "frozen.json").read_text())
    graphs = {signature["spec"]["name"]: signature["graph"] for signature in frozen["signatures"]}
    assert graphs["same"] == graphs["serving_default"] != graphs["other"]
    for engine in ("litert", "openvino"):
        artifact = read_artifact(results.directory / "two_signatures" / engine)
        files = {signature.spec.name: signature.file for signature in artifact.signatures}
        assert files["same"] == files["serving_default"] != files["other"]
    exported = read_artifact(results.directory / "keras_export" / "litert")
    assert [signature.spec.name for signature in exported.signatures] == ["serve", "serving_default"]
    assert len({signature.file for signature in exported.signatures}) == 1


@pytest.mark.parametrize("engine", ["litert", "openvino"])
def test_an_input_that_nothing_uses_is_marked(results, engine):
    (signature,) = read_artifact(results.directory / "passes_on" / engine).signatures
    assert [spec.name for spec in signature.spec.inputs] == ["a", "b", "unused"]
    assert signature.inputs[2] is None
    assert set(signature.inputs[:2]) == {0, 1}


_LIST_VARIABLES = """
import json, sys
from modelhost_server.engines.base import EngineOptions, LoadRequest
from modelhost_server.engines.tensorflow import TensorflowEngine
model = TensorflowEngine(EngineOptions(1, 1, 1)).load(LoadRequest(sys.argv[1]), lambda *_: None)
print(json.dumps([[v.name, v.dtype, v.shape] for v in model.variables]))
"""


@pytest.mark.parametrize("model", ["keras_export", "keras_saved", "v1_loop", "two_signatures", "plain"])
def test_variables_are_those_of_the_tensorflow_engine(results, model):
    done = subprocess.run(
        [sys.executable, "-c", _LIST_VARIABLES, str(results.models / model)], capture_output=True, text=True, check=True
    )
    artifact = read_artifact(results.directory / model / "openvino")
    assert [[v.name, v.dtype, list(v.shape)] for v in artifact.variables] == json.loads(done.stdout)


def _copied(results: Results, model: str, engine: str, target: Path, **changes: Any) -> Artifact:
    """An artifact's copy with the signatures changed by position."""
    shutil.copytree(results.directory / model / engine, target)
    artifact = read_artifact(target)
    signatures = [
        ArtifactSignature(**{"spec": s.spec, "file": s.file, "inputs": s.inputs, "outputs": s.outputs, **changes})
        for s in artifact.signatures
    ]
    changed = Artifact(artifact.engine, artifact.precision, tuple(signatures), artifact.variables)
    changed.write(target)
    return changed


def test_outputs_in_another_order_are_found(results, tmp_path):
    _copied(results, "many_outputs", "litert", tmp_path / "a", outputs=(1, 0, *range(2, 12)))
    status, said, log = stage("judge", judge_job(results.models / "many_outputs", tmp_path / "a"))
    assert status == 0, log
    assert said["result"]["outcome"] == "DIFFERENT"


def test_the_file_of_another_signature_is_found(results, tmp_path):
    artifact = _copied(results, "two_signatures", "litert", tmp_path / "a", file="1.tflite")
    assert {signature.file for signature in artifact.signatures} == {"1.tflite"}
    status, said, log = stage("judge", judge_job(results.models / "two_signatures", tmp_path / "a"))
    assert status == 0, log
    assert said["result"]["outcome"] == "DIFFERENT"


@pytest.mark.parametrize("model", ["random", "counter"])
def test_nothing_is_accepted_for_a_model_whose_answers_change(results, model):
    artifact = results.directory / "plain" / "litert"
    status, said, log = stage("judge", judge_job(results.models / model, artifact))
    assert status == 0, log
    assert said["result"]["outcome"] == "REFUSED"
    assert "from call to call" in said["result"]["reason"]


def _samples(path: Path, *arrays: np.ndarray) -> str:
    write_samples(path, [Sample("", {"x": RawTensor(1, a.shape, a.tobytes())}) for a in arrays])
    return str(path)


def test_samples_prove_what_made_up_inputs_cannot(results, tmp_path):
    random = np.random.default_rng(0)
    rows = [random.normal(size=[size, 37]).astype(np.float32) for size in (1, 2, 3)]
    samples = _samples(tmp_path / "samples", *rows)
    job = judge_job(results.models / "picky", results.directory / "picky" / "litert", samples=samples)
    status, said, log = stage("judge", job)
    assert status == 0, log
    assert said["result"]["accepted"], said


def test_a_sample_that_makes_a_constant_output_move_proves_it(results, tmp_path):
    samples = _samples(tmp_path / "samples", np.full([2, 3], 5e5, np.float32))
    job = judge_job(results.models / "constant_output", results.directory / "constant_output" / "litert")
    status, said, log = stage("judge", {**job, "samples": samples})
    assert status == 0, log
    assert said["result"]["accepted"], said


def test_the_process_answers_with_one_line_and_steps_back(tricky, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "modelhost_server.converter", "freeze", RIGHTS],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    job = {"path": str(tricky / "plain"), "tags": [], "target": str(tmp_path)}
    assert process.stdin
    process.stdin.write(json.dumps(job))
    process.stdin.close()
    scheduled: set[tuple[int, int]] = set()
    while process.poll() is None and (19, os.SCHED_IDLE) not in scheduled:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        scheduled.add((int(fields[16]), int(fields[38])))
        time.sleep(0.01)
    assert (19, os.SCHED_IDLE) in scheduled
    assert process.stdout
    assert process.stderr
    answer = process.stdout.read()
    assert process.wait(120) == 0, process.stderr.read()
    process.stderr.close()
    process.stdout.close()
    assert json.loads(answer) == {"result": {"graphs": 1, "signatures": 1}}
    assert answer.count("\n") == 1


def test_a_refusal_is_one_helpful_line(tricky, tmp_path):
    status, said, _ = stage("freeze", {"path": str(tricky / "strings"), "tags": [], "target": str(tmp_path)})
    assert status == 1
    assert said.keys() == {"error"}
    assert said["error"]["reason"] == "SOURCE_UNSUPPORTED"
    assert said["error"]["message"] == "signature 'serving_default': the input 'x' is a string tensor"


def test_a_conversion_beyond_its_memory_ends(tricky, tmp_path):
    job = {"path": str(tricky / "keras_export"), "tags": [], "target": str(tmp_path), "memory_bytes": 150 << 20}
    status, said, _ = stage("freeze", job)
    assert status != 0
    assert "result" not in said


def test_a_keras_file_becomes_a_saved_model(models, tmp_path):
    target = tmp_path / "exported"
    status, said, log = stage("export", {"source": str(models / "keras_file.keras"), "target": str(target)})
    assert (status, said) == (0, {"result": {}}), log
    assert (target / "saved_model.pb").is_file()


def test_basic_pitch_is_converted(tmp_path):
    model = _ROOT / ".cache/basic-pitch-0.4.0/basic_pitch/saved_models/icassp_2022/nmp"
    if not model.exists():
        pytest.skip("basic-pitch is not downloaded")
    frozen, artifact = tmp_path / "frozen", tmp_path / "artifact"
    frozen.mkdir()
    artifact.mkdir()
    # TensorFlow's first loader refuses it, for the slots of its optimizer.
    assert stage("freeze", {"path": str(model), "tags": [], "target": str(frozen)})[0] == 0
    assert stage("openvino", {"frozen": str(frozen), "target": str(artifact)})[0] == 0
    status, said, log = stage("judge", judge_job(model, artifact))
    assert status == 0, log
    assert said["result"]["accepted"], said


@pytest.mark.parametrize("name", ["export", "freeze", "litert", "openvino"])
def test_a_full_disk_is_no_fault_of_the_model(results, tmp_path, name):
    disk = tmp_path / "disk"
    disk.mkdir()
    if not mount(disk, "64k"):
        pytest.skip("a small file system is needed, and may not be mounted")
    try:
        target = disk / "target"
        target.mkdir()
        with pytest.raises(OSError, match="No space left"):
            (disk / "filler").write_bytes(bytes(1 << 20))
        job = {"path": str(results.models / "plain"), "tags": [], "target": str(target)}
        if name == "export":
            job["source"] = str(built("build") / "keras_file.keras")
        if name in ("litert", "openvino"):
            job["frozen"] = str(results.directory / "plain" / "frozen")
        status, said, log = stage(name, job, TMPDIR=str(target))
        assert status == 1
        assert said.keys() == {"storage"}, log
    finally:
        unmount(disk)
