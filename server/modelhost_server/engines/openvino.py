"""The openvino engine: converted models in OpenVINO's CPU plug-in.

A compiled file has as many streams as calls may run side by side; they share its packed weights.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import openvino as ov

from ..errors import ModelhostError, Reason, brief
from ..tensors import RawTensor
from . import optimised_maker
from .artifact import Artifact, ArtifactSignature, read_artifact
from .base import OPENVINO, EngineFailure, EngineOptions, LoadRequest, OutputSink, Progress
from .openvino_program import TYPES, Program, message_of
from .optimised_arrays import Array, check_ordinary, view_of
from .optimised_pages import drop_pages


class OpenvinoEngine:
    """Loads artifacts, with the thread counts of one scope."""

    name = OPENVINO

    def __init__(self, options: EngineOptions) -> None:
        streams = min(options.lanes, max(1, len(os.sched_getaffinity(0)) // options.intra_op_threads))
        self._core = ov.Core()
        self._cache_dir = options.cache_dir
        self._properties: dict[str, Any] = {
            # What OpenVINO would choose is bfloat16, where the processor has it.
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": options.intra_op_threads * streams,
            "NUM_STREAMS": streams,
            # Pinned threads of several workers would share one processor and leave another idle.
            "ENABLE_CPU_PINNING": False,
        }
        if options.cache_dir:
            self._properties["CACHE_DIR"] = str(options.cache_dir)

    def prepare(self) -> None:
        """See Engine. The thread that calls this must be scheduled as predictions are."""
        optimised_maker.start()

    def load(self, request: LoadRequest, progress: Progress) -> OpenvinoModel:
        """Loads an artifact's directory.

        Raises:
            ModelhostError: SOURCE_INVALID.
        """
        progress("reading", 0, 0)
        directory = Path(request.path)
        artifact = read_artifact(directory)
        files: dict[str, _File] = {}
        for signature in artifact.signatures:
            if signature.file not in files:
                files[signature.file] = _File(directory / signature.file, self._compile, self._cache_dir)
            _check(signature, files[signature.file].program)
        return OpenvinoModel(artifact, files)

    def _compile(self, path: Path) -> Program:
        try:
            return Program(self._core.compile_model(path, "CPU", self._properties))
        except RuntimeError as error:
            raise ModelhostError(
                Reason.SOURCE_INVALID, f"OpenVINO cannot load {brief(path.name)}: {message_of(error)}"
            ) from None


class _File:
    """A file's program, which is replaced by a new one after a failure."""

    def __init__(self, path: Path, compile_file: Callable[[Path], Program], cache_dir: Path | None) -> None:
        self._path = path
        self._compile = compile_file
        self._mapped = [path.with_suffix(".bin"), *([cache_dir] if cache_dir else [])]
        self._lock = threading.Lock()
        self._is_restoring = self._is_closed = False
        self.program = optimised_maker.make(compile_file, path).result()

    def ran(self) -> None:
        """Must be called after the first run, which packed the weights: what was read for them is not needed again."""
        for path in self._mapped:
            drop_pages(path)

    def failed(self) -> None:
        """Must be called after a failure."""
        with self._lock:
            if not self._is_restoring and not self._is_closed:
                self._is_restoring = True
                optimised_maker.make(self._restore)

    def close(self) -> None:
        """Drops the program; no run may be under way."""
        with self._lock:
            self._is_closed = True
            del self.program

    def _restore(self) -> None:
        program = self._compile(self._path)
        with self._lock:
            self._is_restoring = False
            if not self._is_closed:
                self.program = program


def _check(signature: ArtifactSignature, program: Program) -> None:
    """Refuses a file that does not hold the tensors of the signature, or inputs that nobody would give."""
    for specs, positions, types in (
        (signature.spec.inputs, signature.inputs, program.inputs),
        (signature.spec.outputs, signature.outputs, program.outputs),
    ):
        for spec, position in zip(specs, positions, strict=True):
            if position is not None and (not 0 <= position < len(types) or types[position] != TYPES.get(spec.dtype)):
                raise ModelhostError(
                    Reason.SOURCE_INVALID, f"the artifact's file has no tensor for {brief(spec.name)}, which is {spec}"
                )
    if set(range(len(program.inputs))).difference(signature.inputs):
        raise ModelhostError(
            Reason.SOURCE_INVALID,
            f"the artifact's file has inputs that the signature {brief(signature.spec.name)} lacks",
        )


class OpenvinoModel:
    """A model in programs of OpenVINO."""

    engine = OPENVINO
    is_pure = True

    def __init__(self, artifact: Artifact, files: Mapping[str, _File]) -> None:
        self.loader = f"OpenVINO IR, {artifact.precision}"
        self.signatures = [signature.spec for signature in artifact.signatures]
        self.variables = artifact.variables
        self._bound = artifact.signatures
        self._files = files

    def shared_bytes(self) -> int:
        """See LoadedModel."""
        return 0

    def run(
        self, signature: int, inputs: Sequence[tuple[int, RawTensor]], outputs: Sequence[int], sink: OutputSink
    ) -> None:
        """See LoadedModel."""
        bound = self._bound[signature]
        file = self._files[bound.file]
        program = file.program
        wanted = outputs or range(len(bound.outputs))
        fed = [(place, tensor) for position, tensor in inputs if (place := bound.inputs[position]) is not None]
        if len(fed) < sum(place is not None for place in bound.inputs):
            raise EngineFailure("an input was left out, and the file has no default for it")
        check_ordinary(bound.spec, inputs)
        is_first = not program.has_run

        def put(results: Sequence[Array]) -> None:
            for position, result in zip(wanted, results, strict=True):
                sink.put(bound.spec.outputs[position].dtype, result.shape, view_of(result))

        try:
            program.run(fed, [bound.outputs[position] for position in wanted], put)
        finally:
            if program.has_failed:
                file.failed()
        if is_first:
            file.ran()

    def close(self) -> None:
        """See LoadedModel."""
        for file in self._files.values():
            file.close()
