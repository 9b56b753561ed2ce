"""Builds the models of tests, each builder once for each state of its file, by a process that has TensorFlow."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]


def built(builder: str) -> Path:
    """The directory of what `tests/models/{builder}.py` builds."""
    script = _ROOT / "tests" / "models" / f"{builder}.py"
    digest = hashlib.sha256(script.read_bytes()).hexdigest()[:16]
    directory = _ROOT / ".cache" / "test-models" / f"{builder}-{digest}"
    if not (directory / "complete").exists():
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}
        process = subprocess.run(
            [sys.executable, str(script), str(directory)], env=environment, capture_output=True, text=True
        )
        assert process.returncode == 0, process.stderr[-4000:]
        (directory / "complete").touch()
    return directory
