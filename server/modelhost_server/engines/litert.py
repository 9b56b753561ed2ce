"""The litert engine: `.tflite` files, converted ones and callers' own, in LiteRT's interpreters.

An interpreter runs one call at a time and has packed weights of its own (21 MB for MobileNetV2). So a model has one
until calls overlap, and then as many as there are processors for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelhostError, Reason, brief
from ..tensors import RawTensor, SignatureSpec, TensorSpec, VariableSpec
from . import optimised_maker
from .artifact import FULL_PRECISION, is_artifact, read_artifact
from .base import LITERT, EngineFailure, EngineOptions, LoadRequest, NotForEngine, OutputSink, Progress, out_of_memory
from .litert_file import FileDescription, FileSignature, check_file, describe
from .litert_interpreter import Instance, Places, ShapesRefused
from .litert_pool import InstancePool, Running, new_instance
from .optimised_arrays import NUMPY_DTYPE, Array, array_of, check_ordinary, first_line, view_of


@dataclass(frozen=True, slots=True)
class _Bound:
    """A signature, and where it is computed."""

    spec: SignatureSpec
    places: Places
    path: Path
    pool: InstancePool


class LitertEngine:
    """Loads artifacts and `.tflite` files, with the thread counts of one scope."""

    name = LITERT

    def __init__(self, options: EngineOptions) -> None:
        self._threads = options.intra_op_threads
        # More of them than processors for their threads make each other wait: with two of two threads on two
        # processors, two callers of MobileNetV2 got 388 answers a second instead of 507.
        self._limit = min(options.lanes, max(1, len(os.sched_getaffinity(0)) // options.intra_op_threads))

        self._running = Running()

    def prepare(self) -> None:
        """See Engine. The thread that calls this must be scheduled as predictions are."""
        optimised_maker.start()

    def load(self, request: LoadRequest, progress: Progress) -> LitertModel:
        """Loads an artifact's directory or a `.tflite` file.

        Raises:
            ModelhostError: SOURCE_NOT_FOUND, SOURCE_INVALID, SOURCE_UNSUPPORTED.
        """
        progress("reading", 0, 0)
        path = Path(request.path)
        try:
            if not is_artifact(path):
                return optimised_maker.make(self._load_file, path).result()
            return optimised_maker.make(self._load_artifact, path, request.alone_threads).result()
        except (RuntimeError, ValueError, OSError) as error:
            raise ModelhostError(
                Reason.SOURCE_INVALID, f"LiteRT cannot load {brief(path.name)}: {first_line(error)}"
            ) from None

    def _load_artifact(self, directory: Path, alone_threads: int) -> LitertModel:
        artifact = read_artifact(directory)
        firsts: dict[str, Instance] = {}
        pools: dict[str, InstancePool] = {}
        bound = []
        for signature in artifact.signatures:
            file, path = signature.file, directory / signature.file
            if file not in pools:
                check_file(path)
                is_wide = alone_threads > self._threads
                firsts[file] = new_instance(path, alone_threads if is_wide else self._threads)
                pools[file] = InstancePool(firsts[file], path, self._threads, self._limit, self._running, is_wide)
            inputs, outputs = firsts[file].input_details(), firsts[file].output_details()
            places = Places(
                tuple(
                    None if position is None else _index(spec, inputs, position)
                    for spec, position in zip(signature.spec.inputs, signature.inputs, strict=True)
                ),
                tuple(
                    _index(spec, outputs, position)
                    for spec, position in zip(signature.spec.outputs, signature.outputs, strict=True)
                ),
            )
            if {details["index"] for details in inputs}.difference(places.inputs):
                raise ModelhostError(
                    Reason.SOURCE_INVALID,
                    f"the artifact's file has inputs that the signature {brief(signature.spec.name)} lacks",
                )
            bound.append(_Bound(signature.spec, places, path, pools[file]))
        return LitertModel(
            bound, self._threads, f"flatbuffer, {artifact.precision}", artifact.variables,
            # What is less precise than the original answers for itself.
            stands_alone=artifact.precision != FULL_PRECISION,
        )  # fmt: skip

    def _load_file(self, path: Path) -> LitertModel:
        check_file(path)
        # The interpreter verifies the file, which our own reading relies on.
        first = new_instance(path, self._threads)
        described = describe(path)
        if first.shapes is None:
            _check_first(first, described)
        # State is an interpreter's own: all calls must meet the same one.
        limit = 1 if described.is_stateful else self._limit
        pool = InstancePool(first, path, self._threads, limit, self._running)
        bound = [_Bound(s.spec, _places(s), path, pool) for s in described.signatures]
        return LitertModel(bound, self._threads, "flatbuffer", stands_alone=True, is_pure=not described.is_stateful)


def _check_first(first: Instance, described: FileDescription) -> None:
    """Refuses a file that could not be prepared, unless shapes of a caller's may mend it."""
    if described.custom_ops:
        raise ModelhostError(
            Reason.SOURCE_UNSUPPORTED,
            f"the file uses operations that LiteRT does not have: {', '.join(described.custom_ops)[:300]}; "
            "convert with TFLITE_BUILTINS alone, or load the SavedModel",
        )
    specs = [spec for signature in described.signatures for spec in signature.spec.inputs]
    if not any(spec.shape is None or -1 in spec.shape for spec in specs):
        first.prepare(())


def _index(spec: TensorSpec, details: Sequence[Mapping[str, int]], position: int) -> int:
    if not 0 <= position < len(details) or details[position]["dtype"] != NUMPY_DTYPE.get(spec.dtype):
        raise ModelhostError(
            Reason.SOURCE_INVALID, f"the artifact's file has no tensor for {brief(spec.name)}, which is {spec}"
        )
    return details[position]["index"]


def _places(signature: FileSignature) -> Places:
    if signature.subgraph == 0:
        return Places(signature.inputs, signature.outputs)
    spec = signature.spec
    return Places(
        signature.inputs,
        signature.outputs,
        spec.name,
        tuple(i.name for i in spec.inputs),
        tuple(o.name for o in spec.outputs),
    )


class LitertModel:
    """A model in interpreters."""

    engine = LITERT

    def __init__(
        self,
        bound: Sequence[_Bound],
        threads: int,
        loader: str,
        variables: Sequence[VariableSpec] = (),
        *,
        stands_alone: bool = False,
        is_pure: bool = True,
    ) -> None:
        self.loader = loader
        self.signatures = [b.spec for b in bound]
        self.variables = variables
        self.is_pure = is_pure
        self._bound = list(bound)
        self._threads = threads
        self._stands_alone = stands_alone

    def shared_bytes(self) -> int:
        """See LoadedModel."""
        return 0

    def run(
        self, signature: int, inputs: Sequence[tuple[int, RawTensor]], outputs: Sequence[int], sink: OutputSink
    ) -> None:
        """See LoadedModel."""
        bound = self._bound[signature]
        wanted = outputs or range(len(bound.spec.outputs))
        if not self._stands_alone:
            check_ordinary(bound.spec, inputs)
        elif not bound.spec.accepts_shapes(inputs):
            raise self._failure(ShapesRefused(f"it takes {', '.join(map(str, bound.spec.inputs))}"))
        try:
            arrays = {
                position: array_of(tensor, NUMPY_DTYPE[tensor.dtype])
                for position, tensor in inputs
                if bound.places.inputs[position] is not None
            }
        except ValueError as error:
            # More extents than numpy takes, or larger ones.
            raise self._failure(ShapesRefused(str(error))) from None
        if len(arrays) < sum(place is not None for place in bound.places.inputs):
            raise EngineFailure("an input was left out, and the file has no default for it")
        if any(array.size == 0 for array in arrays.values()):
            # Interpreters that have seen an empty input have been seen to answer later calls wrongly.
            self._run(Instance(bound.path, self._threads), bound, arrays, wanted, sink)
            return
        with bound.pool.lease(bound.places.shapes(arrays)) as instance:
            self._run(instance, bound, arrays, wanted, sink)

    def close(self) -> None:
        """See LoadedModel."""
        for bound in self._bound:
            bound.pool.close()

    def _run(
        self, instance: Instance, bound: _Bound, arrays: Mapping[int, Array], wanted: Sequence[int], sink: OutputSink
    ) -> None:
        try:
            results = instance.compute(bound.places, arrays, wanted)
        except Exception as error:
            raise self._failure(error) from None
        for position, result in zip(wanted, results, strict=True):
            sink.put(bound.spec.outputs[position].dtype, result.shape, view_of(result))

    def _failure(self, error: Exception) -> Exception:
        why = first_line(error)
        if not self._stands_alone:
            # What there is no memory for now says nothing of the engine.
            return NotForEngine(why) if isinstance(error, MemoryError) else EngineFailure(why)
        if isinstance(error, ShapesRefused):
            return ModelhostError(Reason.MODEL_REJECTED_INPUT, f"the model does not take inputs of these shapes: {why}")
        if isinstance(error, MemoryError):
            return out_of_memory(why)
        return ModelhostError(Reason.MODEL_EXECUTION_FAILED, f"the model failed: {why}")
