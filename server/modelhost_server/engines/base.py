"""What every engine offers to the worker that runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..tensors import RawTensor, SignatureSpec, VariableSpec

# Called with the stage's name ("reading", "warming"), bytes done and bytes in all (0 when unknown).
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What to load: a path on this machine, and the tags of the MetaGraph (empty for the usual one)."""

    path: str
    tags: tuple[str, ...] = ()


class OutputSink(Protocol):
    """Takes the outputs of one run, in order; copies what it is given before it returns."""

    def put(self, dtype: int, shape: Sequence[int], data: memoryview | Sequence[bytes]) -> None:
        """Takes one output: `data` as in RawTensor."""


class LoadedModel(Protocol):
    """A version in memory. `run` may be called from several threads at once."""

    @property
    def engine(self) -> str:
        """Its name."""

    @property
    def loader(self) -> str:
        """How the version was loaded."""

    @property
    def signatures(self) -> Sequence[SignatureSpec]:
        """The signatures, in alphabetical order."""

    @property
    def variables(self) -> Sequence[VariableSpec]:
        """The variables, in alphabetical order."""

    def run(
        self,
        signature: int,
        inputs: Sequence[tuple[int, RawTensor]],
        outputs: Sequence[int],
        sink: OutputSink,
    ) -> None:
        """Runs a signature.

        Args:
            signature: position in `signatures`.
            inputs: position in the signature's inputs, and value, of each input given.
            outputs: positions of the outputs wanted; all when empty.
            sink: takes the outputs, in the order asked for.

        Raises:
            ModelhostError: MODEL_REJECTED_INPUT or MODEL_EXECUTION_FAILED.
        """

    def close(self) -> None:
        """Frees everything; no run may be under way."""
