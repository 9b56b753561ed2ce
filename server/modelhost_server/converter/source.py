"""What a stage that works on LiteRT's files is given: the directory of an artifact, or a `.tflite` file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ai_edge_litert.interpreter import Interpreter

from ..engines.artifact import FULL_PRECISION, Artifact, ArtifactSignature, is_artifact, read_artifact
from ..engines.base import LITERT
from ..engines.litert_file import check_file, describe
from ..errors import ModelhostError, Reason, brief


def litert_source(path: Path) -> tuple[Artifact, Path]:
    """The artifact at a path, and the directory that its files are in; of a `.tflite` file, the artifact it would be.

    Raises:
        ModelhostError: SOURCE_NOT_FOUND, SOURCE_INVALID, SOURCE_UNSUPPORTED.
    """
    if is_artifact(path):
        artifact = read_artifact(path)
        if artifact.engine != LITERT:
            raise ModelhostError(
                Reason.SOURCE_UNSUPPORTED, f"expected an artifact for litert, got one for {artifact.engine}"
            )
        return artifact, path
    check_file(path)
    try:
        interpreter = Interpreter(str(path))
    except ValueError as error:
        raise ModelhostError(Reason.SOURCE_INVALID, f"LiteRT cannot read {brief(path.name)}: {error}") from None
    described = describe(path)
    if described.is_stateful:
        raise ModelhostError(Reason.SOURCE_UNSUPPORTED, f"{brief(path.name)} keeps state between calls")
    if any(signature.subgraph for signature in described.signatures):
        # An artifact's file is run from its first graph.
        raise ModelhostError(
            Reason.SOURCE_UNSUPPORTED,
            f"{brief(path.name)} computes its signatures by several graphs: convert each to a file of its own",
        )
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    signatures = tuple(
        ArtifactSignature(s.spec, path.name, _positions(s.inputs, inputs), _positions(s.outputs, outputs))
        for s in described.signatures
    )
    return Artifact(LITERT, FULL_PRECISION, signatures), path.parent


def _positions(tensors: Sequence[int], details: Sequence[dict[str, Any]]) -> tuple[int, ...]:
    """Where tensors are among a file's inputs or outputs."""
    indices = [int(tensor["index"]) for tensor in details]
    return tuple(indices.index(tensor) for tensor in tensors)
