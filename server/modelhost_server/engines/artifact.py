"""What a conversion leaves for an engine: a directory with `artifact.json` and the files that it names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelhostError, Reason, brief
from ..tensors import SignatureSpec, VariableSpec

_FILE = "artifact.json"
_FORMAT = 1
# The precision of what gives TensorFlow's own answers.
FULL_PRECISION = "float32"


@dataclass(frozen=True, slots=True)
class ArtifactSignature:
    """A signature, the file that holds it, and where its inputs and outputs are among that file's own.

    An input is at None when the file, because nothing depends on it, does not have it.
    """

    spec: SignatureSpec
    file: str
    inputs: tuple[int | None, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model made ready for an engine. Signatures that compute the same may share a file."""

    engine: str
    precision: str
    signatures: tuple[ArtifactSignature, ...]
    variables: tuple[VariableSpec, ...] = ()

    def write(self, directory: Path) -> None:
        """Writes the description beside the files, which are there already."""
        data: dict[str, Any] = {
            "format": _FORMAT,
            "engine": self.engine,
            "precision": self.precision,
            "signatures": [
                {"spec": s.spec.to_json(), "file": s.file, "inputs": s.inputs, "outputs": s.outputs}
                for s in self.signatures
            ],
            "variables": [[v.name, v.dtype, v.shape] for v in self.variables],
        }
        (directory / _FILE).write_text(json.dumps(data))


def is_artifact(path: Path) -> bool:
    """Whether a path is the directory of an artifact."""
    return (path / _FILE).is_file()


def read_artifact(directory: Path) -> Artifact:
    """The artifact in a directory.

    Raises:
        ModelhostError: SOURCE_INVALID.
    """
    try:
        data = json.loads((directory / _FILE).read_text())
        if data["format"] != _FORMAT:
            raise ModelhostError(Reason.SOURCE_INVALID, f"{_FILE} has the unknown format {brief(data['format'])}")
        return Artifact(
            str(data["engine"]),
            str(data["precision"]),
            tuple(_signature(signature) for signature in data["signatures"]),
            tuple(VariableSpec(name, dtype, tuple(shape)) for name, dtype, shape in data["variables"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelhostError(Reason.SOURCE_INVALID, f"{_FILE} cannot be read: {brief(str(error), 200)}") from None


def _signature(data: dict[str, Any]) -> ArtifactSignature:
    file: str = data["file"]
    if Path(file).name != file:
        raise ValueError(f"the file {file!r} is not in the artifact's directory")
    inputs: Sequence[int | None] = data["inputs"]
    return ArtifactSignature(SignatureSpec.from_json(data["spec"]), file, tuple(inputs), tuple(data["outputs"]))
