"""The models that are measured, and a request for each."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
from modelhost.v1.prediction_service_pb2 import PredictRequest
from modelhost.v1.tensor_pb2 import DATA_TYPE_FLOAT32, Tensor

from . import ROOT

TINY, MOBILENET, RESNET = "half_plus_two", "mobilenet_v2", "resnet50"

_BUILDER = Path(__file__).with_name("build_models.py")
_SHAPES = {TINY: (3,), MOBILENET: (1, 224, 224, 3), RESNET: (1, 224, 224, 3)}
INPUT = "x"


def model_path(name: str) -> Path:
    """The SavedModel of that name, built once by a process that has TensorFlow."""
    digest = hashlib.sha256(_BUILDER.read_bytes()).hexdigest()[:16]
    directory = ROOT / ".cache" / "bench-models" / digest
    complete = directory / f"{name}.complete"
    if not complete.exists():
        directory.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(_BUILDER), name, str(directory / name)]
        built = subprocess.run(command, capture_output=True, text=True)
        if built.returncode:
            raise RuntimeError(f"{name} could not be built:\n{built.stderr[-4000:]}")
        complete.touch()
    return directory / name


def input_array(name: str) -> np.ndarray:
    """One input for a model, always the same."""
    return np.random.default_rng(0).random(_SHAPES[name], dtype=np.float32)


def predict_request(name: str, scope: str = "default") -> bytes:
    """A Predict request for a model, as it goes over the wire."""
    x = input_array(name)
    tensor = Tensor(dtype=DATA_TYPE_FLOAT32, shape=x.shape, raw=x.tobytes())
    return PredictRequest(scope=scope, model=name, inputs={INPUT: tensor}).SerializeToString()
