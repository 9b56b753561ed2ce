"""What the models answer to the inputs of the cases, by TensorFlow without any server.

Usage: python -m benchmarks.common.expected FILE.npz (needs TensorFlow)
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from . import ROOT
from .cases import CASES, Case

# Of the largest value: engines differ in their last digits.
_TOLERANCE = 1e-3


@cache
def _expected() -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "expected.npz"
        done = subprocess.run([sys.executable, "-m", __name__, str(file)], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"no answers to compare with:\n{done.stderr[-4000:]}")
        with np.load(file) as arrays:
            return dict(arrays)


def is_right(case: Case, y: np.ndarray) -> bool:
    """Whether an answer is what TensorFlow answers."""
    right = _expected()[case.key]
    return y.shape == right.shape and bool(np.abs(y - right).max() <= _TOLERANCE * np.abs(right).max())


def main(file: str) -> None:
    """Writes the answers to all cases."""
    from ..peers.tensorflow_model import TensorflowModel

    np.savez(file, **{case.key: TensorflowModel(str(case.model.path()))(case.x) for case in CASES})


if __name__ == "__main__":
    main(sys.argv[1])
