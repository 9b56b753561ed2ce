"""What every engine offers to the process that runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import ModelhostError, Reason
from ..tensors import RawTensor, SignatureSpec, VariableSpec

TENSORFLOW, LITERT, OPENVINO = "tensorflow", "litert", "openvino"

# Called with the stage's name ("reading", "warming"), bytes done and bytes in all (0 when unknown).
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What an engine may use: threads of one operation, operations of a run side by side, runs side by side, and a
    directory (of its own) for what it prepares once; None for nowhere.
    """

    intra_op_threads: int
    inter_op_threads: int
    lanes: int
    cache_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What to load: a path on this machine, and, for a SavedModel, the tags of the MetaGraph (empty for the usual one).

    `digest` identifies the content of the path, for what an engine prepares once and finds again; "" when unknown.
    `alone_threads` are for an operation of a call that comes while no other of the model runs, where the engine can
    tell; 0 for no more than all calls have.
    """

    path: str
    tags: tuple[str, ...] = ()
    digest: str = ""
    alone_threads: int = 0


class EngineFailure(Exception):
    """The engine could not run a model that another engine stands behind. The message says why."""


def out_of_memory(why: str) -> ModelhostError:
    """Of a model that asked for more memory than its worker may have, or than there is."""
    return ModelhostError(
        Reason.MEMORY_LIMIT,
        f"the model found no more memory (memory_limit_bytes of its scope or the server, or the machine's): {why}",
    )


class NotForEngine(EngineFailure):
    """The engine is as it should be, but this call is not for it, or not at this moment."""


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

    @property
    def is_pure(self) -> bool:
        """Whether runs leave no trace in the model, so that it may be run on made-up inputs before callers do."""

    def shared_bytes(self) -> int:
        """Memory that other models of this process use, too, in bytes."""

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
            sink: takes the outputs, in the order asked for. It has taken none when an error is raised.

        Raises:
            ModelhostError: MODEL_REJECTED_INPUT or MODEL_EXECUTION_FAILED.
            EngineFailure: by other engines than tensorflow, which cannot tell whether it is theirs or the input's.
        """

    def close(self) -> None:
        """Frees everything; no run may be under way."""


class Engine(Protocol):
    """Loads models."""

    @property
    def name(self) -> str:
        """Its name: TENSORFLOW, LITERT or OPENVINO."""

    def prepare(self) -> None:
        """Starts the threads that all models of this process share."""

    def load(self, request: LoadRequest, progress: Progress) -> LoadedModel:
        """Loads a model.

        Raises:
            ModelhostError: SOURCE_NOT_FOUND, SOURCE_INVALID, SOURCE_UNSUPPORTED, UNSUPPORTED.
        """
