"""Examples of a prediction's inputs, in a file: how they go from the server to workers and converters.

The file is one line of JSON that describes the tensors, then their bytes, one after the other.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .tensors import STRING, RawTensor


@dataclass(frozen=True, slots=True)
class Sample:
    """Inputs by name, for a signature ("" for the usual one)."""

    signature: str
    inputs: Mapping[str, RawTensor]


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Writes samples to a file."""
    described: list[dict[str, Any]] = []
    content: list[Any] = []
    for sample in samples:
        inputs = {}
        for name, tensor in sample.inputs.items():
            parts = list(tensor.data) if tensor.dtype == STRING else [tensor.data]  # type: ignore[arg-type]
            inputs[name] = [tensor.dtype, list(tensor.shape), [len(part) for part in parts]]  # type: ignore[arg-type]
            content += parts
        described.append({"signature": sample.signature, "inputs": inputs})
    with path.open("wb") as file:
        file.write(json.dumps(described).encode() + b"\n")
        file.writelines(content)


def keep_samples(folder: Path, samples: Sequence[Sample]) -> str:
    """The file in a folder that has these samples, named by its content; "" when there are none."""
    if not samples:
        return ""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        partial = Path(file.name)
    write_samples(partial, samples)
    with partial.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return str(partial.replace(folder / digest))


def read_samples(path: Path) -> list[Sample]:
    """The samples in a file.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    with path.open("rb") as file:
        described = json.loads(file.readline())
        samples = []
        for item in described:
            inputs = {}
            for name, (dtype, shape, sizes) in item["inputs"].items():
                parts = [file.read(size) for size in sizes]
                inputs[name] = RawTensor(dtype, tuple(shape), parts if dtype == STRING else parts[0])
            samples.append(Sample(item["signature"], inputs))
    return samples
