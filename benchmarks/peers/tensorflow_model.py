"""A SavedModel as one would call it from Python: by its restored signature."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

INPUT, OUTPUT = "x", "y"


class TensorflowModel:
    """Runs float32 batches."""

    def __init__(self, path: str) -> None:
        self._loaded = tf.saved_model.load(path)
        self._run = self._loaded.signatures["serving_default"]
        (x,), (y,) = self._run.structured_input_signature[1].values(), self._run.structured_outputs.values()
        self.input_rank, self.output_rank = len(x.shape), len(y.shape)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The output for one batch."""
        (y,) = self._run(**{INPUT: tf.constant(x)}).values()
        return y.numpy()


def told_models() -> dict[str, dict[str, Any]]:
    """The models to host, from the file named first on the command line: see `common.cases.Model.told`."""
    models: dict[str, dict[str, Any]] = json.loads(Path(sys.argv[1]).read_text())
    return models
