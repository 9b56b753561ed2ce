"""Runs models on examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..engines.base import LoadedModel
from ..tensors import RawTensor
from .arrays import to_array
from .probes import Array


class _Outputs:
    """Takes outputs as arrays, strings too."""

    def __init__(self) -> None:
        self.taken: list[Array] = []

    def put(self, dtype: int, shape: Sequence[int], data: memoryview | Sequence[bytes]) -> None:
        """See OutputSink."""
        copied = bytes(data) if isinstance(data, memoryview) else list(data)
        self.taken.append(to_array(dtype, shape, copied))


def execute(model: LoadedModel, signature: str, inputs: Mapping[str, RawTensor]) -> dict[str, Array]:
    """All outputs of a signature, by name; an input with a default value may be left out.

    Raises:
        ModelhostError, EngineFailure: the engine's.
    """
    position = next(i for i, spec in enumerate(model.signatures) if spec.name == signature)
    spec = model.signatures[position]
    given = [(i, inputs[item.name]) for i, item in enumerate(spec.inputs) if item.name in inputs]
    outputs = _Outputs()
    model.run(position, given, (), outputs)
    return dict(zip((item.name for item in spec.outputs), outputs.taken, strict=True))
