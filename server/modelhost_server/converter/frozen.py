"""What stage `freeze` leaves for the others: a directory of graphs without variables, and `frozen.json`.

In every graph, placeholders `in_<i>` and nodes `out_<i>` stand for a signature's inputs and outputs, by their
positions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..tensors import SignatureSpec, VariableSpec

_FILE = "frozen.json"
IN, OUT = "in_", "out_"


@dataclass(frozen=True, slots=True)
class FrozenSignature:
    """A signature, the file of its graph, and the inputs that the graph has: at each its own position, or None when
    nothing depends on it.
    """

    spec: SignatureSpec
    graph: str
    inputs: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Frozen:
    """A model as graphs of constants. Signatures that compute the same share a graph."""

    signatures: tuple[FrozenSignature, ...]
    variables: tuple[VariableSpec, ...]

    def graphs(self) -> Iterator[FrozenSignature]:
        """One signature of each graph."""
        yield from {signature.graph: signature for signature in reversed(self.signatures)}.values()

    def write(self, directory: Path) -> None:
        """Writes the description beside the graphs."""
        data = {
            "signatures": [{"spec": s.spec.to_json(), "graph": s.graph, "inputs": s.inputs} for s in self.signatures],
            "variables": [[v.name, v.dtype, v.shape] for v in self.variables],
        }
        (directory / _FILE).write_text(json.dumps(data))


def read_frozen(directory: Path) -> Frozen:
    """What stage `freeze` left in a directory."""
    data = json.loads((directory / _FILE).read_text())
    return Frozen(
        tuple(
            FrozenSignature(SignatureSpec.from_json(s["spec"]), s["graph"], tuple(s["inputs"]))
            for s in data["signatures"]
        ),
        tuple(VariableSpec(name, dtype, tuple(shape)) for name, dtype, shape in data["variables"]),
    )
