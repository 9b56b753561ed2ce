"""Reads a caller's `.npz` file of examples."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelhostError, Reason, brief
from ..samples import Sample
from ..tensors import DTYPE_NAME, STRING, SignatureSpec, TensorSpec
from .arrays import numpy_dtype, to_tensor

_LABELS = "labels"


def read_npz(path: Path, spec: SignatureSpec) -> tuple[list[Sample], list[int] | None]:
    """The samples in a file of one array an input, whose first dimension counts examples; and the array "labels".

    The arrays go in as they are when the signature takes batches, in parts when its batches have a fixed size, and one
    by one when it has no batch dimension.

    Raises:
        ModelhostError: INVALID_REQUEST, or one of the INPUT_ reasons; the file cannot be read, or does not fit.
    """
    arrays = _read(path)
    classes = _classes(arrays.pop(_LABELS)) if _LABELS in arrays and _LABELS not in _names(spec) else None
    for unknown in sorted(arrays.keys() - _names(spec)):
        raise _fault(Reason.INPUT_UNKNOWN, f"has an array {brief(unknown)}, but no input is named so")
    needed = [tensor for tensor in spec.inputs if tensor.name in arrays or not tensor.optional]
    inputs = {tensor.name: _converted(tensor, arrays) for tensor in needed}
    counts = {name: len(array) for name, array in inputs.items()}
    if len(set(counts.values())) != 1:
        raise _fault(
            Reason.INPUT_SHAPE_MISMATCH, f"must have as many examples for each input, got {brief(counts, 200)}"
        )
    count = next(iter(counts.values()))
    samples = [
        Sample(spec.name, {name: to_tensor(array[part]) for name, array in inputs.items()})
        for part in _parts(needed, inputs, count)
    ]
    return samples, classes


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file:
            # Pickled objects could run any code.
            loaded = np.load(file, allow_pickle=False)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                raise _fault(Reason.INVALID_REQUEST, "holds a single array: expected one an input (numpy.savez)")
            return {name: loaded[name] for name in loaded.files}
    except OSError as error:
        raise _fault(Reason.INVALID_REQUEST, f"cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _fault(Reason.INVALID_REQUEST, f"is not a file of arrays without Python objects: {error}") from None


def _classes(labels: NDArray[Any]) -> list[int]:
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise _fault(
            Reason.INVALID_REQUEST,
            f'must have one integer an example in "{_LABELS}", got {labels.dtype} {list(labels.shape)}',
        )
    return [int(label) for label in labels]


def _names(spec: SignatureSpec) -> set[str]:
    return {tensor.name for tensor in spec.inputs}


def _converted(tensor: TensorSpec, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    if tensor.name not in arrays:
        raise _fault(Reason.INPUT_MISSING, f"has no array {brief(tensor.name)}; it has {brief(sorted(arrays), 200)}")
    array = arrays[tensor.name]
    if array.ndim == 0:
        raise _fault(Reason.INPUT_SHAPE_MISMATCH, f"must count examples in the first dimension of {brief(tensor.name)}")
    if tensor.dtype == STRING and array.dtype.kind in "SU":
        encoded = np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array
        return encoded.astype(object)
    if array.dtype != numpy_dtype(tensor.dtype):
        name = DTYPE_NAME[tensor.dtype]
        raise _fault(
            Reason.INPUT_DTYPE_MISMATCH,
            f"must have {brief(tensor.name)} as {name}, got {array.dtype}; convert it with astype({name!r})",
        )
    return array


def _parts(specs: Sequence[TensorSpec], inputs: Mapping[str, NDArray[Any]], count: int) -> list[slice | int]:
    """How to cut the arrays, so that the signature takes the parts."""
    if all(spec.accepts_shape(inputs[spec.name].shape) for spec in specs):
        return [slice(None)]
    size = next((spec.shape[0] for spec in specs if spec.shape and spec.shape[0] > 0), 0)
    if size and count % size == 0:
        parts = [slice(start, start + size) for start in range(0, count, size)]
        if all(spec.accepts_shape(inputs[spec.name][:size].shape) for spec in specs):
            return list(parts)
    for spec in specs:
        shape = inputs[spec.name].shape
        if not spec.accepts_shape(shape[1:]):
            raise _fault(
                Reason.INPUT_SHAPE_MISMATCH,
                f"has {brief(spec.name)} with the shape {list(shape)}, but the signature expects {spec}",
            )
    return list(range(count))


def _fault(reason: Reason, message: str) -> ModelhostError:
    return ModelhostError(reason, f"samples_file {message}", field="samples_file")
