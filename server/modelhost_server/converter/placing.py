"""Finds a signature's inputs and outputs among a converted file's own, and makes sure that they still are what they
were.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..engines.artifact import FULL_PRECISION, Artifact, ArtifactSignature
from ..tensors import DTYPE_NAME, TensorSpec
from .frozen import IN, OUT, Frozen, FrozenSignature
from .refusals import CannotConvert


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a converted file: all its names, its dtype by numpy's name, and its shape as specs have it,
    None when the file does not tell.
    """

    names: frozenset[str]
    dtype: str
    shape: tuple[int, ...] | None


def convert_all(
    frozen: Frozen, engine: str, target: Path, convert: Callable[[FrozenSignature], tuple[str, list[Port], list[Port]]]
) -> Artifact:
    """Converts each graph to a file, whose name, inputs and outputs `convert` returns, and describes the result."""
    converted = {signature.graph: convert(signature) for signature in frozen.graphs()}
    signatures = []
    for signature in frozen.signatures:
        file, inputs, outputs = converted[signature.graph]
        signatures.append(
            ArtifactSignature(signature.spec, file, place_inputs(signature, inputs), place_outputs(signature, outputs))
        )
    artifact = Artifact(engine, FULL_PRECISION, tuple(signatures), frozen.variables)
    artifact.write(target)
    return artifact


def place_inputs(signature: FrozenSignature, ports: Sequence[Port]) -> tuple[int | None, ...]:
    """Where a signature's inputs are among a file's."""
    places = []
    for position, spec in zip(signature.inputs, signature.spec.inputs, strict=True):
        place = None if position is None else _place(f"{IN}{position}", ports)
        if place is not None:
            _check("input", spec, ports[place])
        places.append(place)
    if len(ports) != sum(place is not None for place in places):
        raise CannotConvert(f"the conversion made {len(ports)} inputs of {len(places)}")
    return tuple(places)


def place_outputs(signature: FrozenSignature, ports: Sequence[Port]) -> tuple[int, ...]:
    """Where a signature's outputs are among a file's."""
    places = []
    for position, spec in enumerate(signature.spec.outputs):
        place = _place(f"{OUT}{position}", ports)
        # A file format may have renamed an output, never moved it.
        if place is None and len(ports) == len(signature.spec.outputs):
            place = position
        if place is None:
            raise CannotConvert(f"the conversion lost the output {spec.name!r}")
        _check("output", spec, ports[place])
        places.append(place)
    return tuple(places)


def _place(name: str, ports: Sequence[Port]) -> int | None:
    return next((i for i, port in enumerate(ports) if name in port.names), None)


def _check(side: str, spec: TensorSpec, port: Port) -> None:
    if port.dtype != DTYPE_NAME[spec.dtype]:
        raise CannotConvert(f"the conversion made the {side} {spec.name!r} {port.dtype} of {DTYPE_NAME[spec.dtype]}")
    if port.shape is None or spec.shape is None:
        return
    kept = len(port.shape) == len(spec.shape) and all(
        there in (-1, asked) for asked, there in zip(spec.shape, port.shape, strict=True)
    )
    if not kept:
        there = TensorSpec(spec.name, spec.dtype, port.shape)
        raise CannotConvert(f"the conversion made the {side} {spec.name!r} {there} of {spec}")
