"""Builds the models of tests, each builder once for each state of its file, by a process that has TensorFlow."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]


@functools.cache
def built(builder: str) -> Path:
    """The directory of what `tests/models/{builder}.py` builds."""
    script = _ROOT / "tests" / "models" / f"{builder}.py"
    digest = hashlib.sha256(script.read_bytes()).hexdigest()[:16]
    directory = _ROOT / ".cache" / "test-models" / f"{builder}-{digest}"
    directory.parent.mkdir(parents=True, exist_ok=True)
    # Tests run in several processes, and only one of them is to build.
    with open(directory.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "complete").exists():
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}
            process = subprocess.run(
                [sys.executable, str(script), str(directory)], env=environment, capture_output=True, text=True
            )
            assert process.returncode == 0, process.stderr[-4000:]
            (directory / "complete").touch()
    return directory
