"""Models that a module of the benchmarks builds, once for each state of its sources."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from . import ROOT


def built(module: str, *arguments: str, also: Sequence[str] = ()) -> Path:
    """The directory that `python -m MODULE ARGUMENTS... DIRECTORY` has filled, by a process that has TensorFlow.

    What it builds also depends on the modules `also`.
    """
    key = hashlib.sha256("\0".join(arguments).encode())
    for name in (module, *also):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        key.update(Path(spec.origin).read_bytes())
    directory = ROOT / ".cache" / "bench-models" / key.hexdigest()[:16]
    if not directory.exists():
        # Complete or not at all.
        partial = directory.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        command = [sys.executable, "-m", module, *arguments, str(partial)]
        process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if process.returncode:
            raise RuntimeError(f"{module} {' '.join(arguments)} failed:\n{process.stderr[-4000:]}")
        partial.rename(directory)
    return directory
