"""What a model costs: bytes on disk, and bytes of memory, measured in a process of its own.

`python -m modelhost_server.converter.footprint` is that process: it loads a model, runs it once, and prints by how many
bytes its private memory has grown.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..engines.base import EngineOptions, LoadRequest
from ..errors import ModelhostError, Reason
from ..memory import give_back, measure
from ..samples import Sample, read_samples, write_samples
from .execution import execute
from .running import make_engine

_CHUNK = 1 << 20
_GZIP_FORMAT = 31


def disk_bytes(path: Path) -> tuple[int, int]:
    """Size of a file, or of all files below a directory: as they are, and compressed by gzip."""
    plain = compressed = 0
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if not file.is_file():
            continue
        compressor = zlib.compressobj(wbits=_GZIP_FORMAT)
        with file.open("rb") as opened:
            while chunk := opened.read(_CHUNK):
                plain += len(chunk)
                compressed += len(compressor.compress(chunk))
        compressed += len(compressor.flush())
    return plain, compressed


def private_bytes(engine: str, path: str, tags: Sequence[str], threads: int, sample: Sample, scratch: Path) -> int:
    """Growth of a fresh process's private memory by loading a model and running it on a sample.

    Raises:
        ModelhostError: UNSUPPORTED when the process could not.
    """
    write_samples(scratch, [sample])
    job = {"engine": engine, "path": path, "tags": list(tags), "threads": threads, "samples": str(scratch)}
    result = subprocess.run(
        [sys.executable, "-m", __name__], input=json.dumps(job), stdout=subprocess.PIPE, text=True, check=False
    )
    if result.returncode:
        raise ModelhostError(
            Reason.UNSUPPORTED, f"the {engine} engine cannot run the model (the process ended with {result.returncode})"
        )
    return int(result.stdout)


def _grow(job: dict[str, Any]) -> int:
    engine = make_engine(job["engine"], EngineOptions(job["threads"], 1, 1))
    engine.prepare()
    (sample,) = read_samples(Path(job["samples"]))
    give_back()
    before = measure()["private"]
    model = engine.load(LoadRequest(job["path"], tuple(job["tags"])), lambda *_: None)
    execute(model, sample.signature, sample.inputs)
    give_back()
    return max(0, measure()["private"] - before)


if __name__ == "__main__":
    # What libraries print must not get between the parent and the answer.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(_grow(json.load(sys.stdin)), file=answer, flush=True)
