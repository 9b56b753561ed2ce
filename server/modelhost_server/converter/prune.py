"""Stage `prune`: a copy of a SavedModel in which the smallest weights of each kernel are zero.

Only the checkpoint changes, so that it works whichever loader the SavedModel needs.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ..compat import saved_model_pb2 as pb
from ..errors import ModelhostError, Reason, brief
from .weights import OBJECT_GRAPH_KEY, is_kernel, used_variables

_PREFIX = Path("variables") / "variables"


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Prunes the SavedModel at `path`, with these `tags`, into the directory `target`.

    In each kernel that a signature uses (see weights.py; embeddings are among them), the share `sparsity` of the values
    becomes zero: those of the smallest magnitude.

    Returns:
        {"pruned_variables": how many kernels, "zero_share": the share of all their values that is zero now}.

    Raises:
        ModelhostError: one of the SOURCE_ reasons; INVALID_REQUEST; UNSUPPORTED when there is nothing to prune.
    """
    path, target, sparsity = Path(job["path"]), Path(job["target"]), job["sparsity"]
    if not 0 < sparsity < 1:
        raise ModelhostError(
            Reason.INVALID_REQUEST, f"expected a sparsity above 0 and below 1, got {brief(sparsity)}", field="sparsity"
        )
    values = _read_checkpoint(path)
    graph = values.get(OBJECT_GRAPH_KEY)
    objects = None if graph is None else pb.TrackableObjectGraph.FromString(graph.item())
    used = used_variables(str(path), job["tags"], objects)
    kernels = [key for key, v in used.items() if key in values and is_kernel(v.name, v.dtype, values[key].shape)]
    if not kernels:
        raise ModelhostError(
            Reason.UNSUPPORTED,
            "there is nothing to prune: no signature uses a float variable with two dimensions or more",
        )
    copies = {key: _copies(key, values) for key in kernels}
    zeros = size = 0
    for key in kernels:
        pruned = _prune(values[key], sparsity)
        zeros += pruned.size - int(np.count_nonzero(pruned))
        size += pruned.size
        for name in (key, *copies[key]):
            values[name] = pruned
    shutil.copytree(path, target, dirs_exist_ok=True, ignore=_without_checkpoint)
    _write_checkpoint(target, values)
    return {"pruned_variables": len(kernels), "zero_share": zeros / size}


def _read_checkpoint(path: Path) -> dict[str, NDArray[Any]]:
    """All that the checkpoint of a SavedModel holds."""
    if not (path / _PREFIX.with_suffix(".index")).is_file():
        raise ModelhostError(Reason.UNSUPPORTED, "there is nothing to prune: the SavedModel has no variables")
    try:
        reader = tf.train.load_checkpoint(str(path / _PREFIX))
        return {key: _array(reader.get_tensor(key)) for key in reader.get_variable_to_shape_map()}
    except (tf.errors.OpError, RuntimeError, ValueError, LookupError) as error:
        raise ModelhostError(Reason.SOURCE_INVALID, f"the SavedModel's variables cannot be read: {error}") from None


def _array(value: Any) -> NDArray[Any]:
    # A scalar string is read as bytes, whose trailing zeros numpy's own string arrays would drop.
    return np.array(value, object) if isinstance(value, bytes) else np.asarray(value)


def _copies(key: str, values: Mapping[str, NDArray[Any]]) -> list[str]:
    """Keys with the same value: Keras stores a weight for its layer and once more for what it exports."""
    value = values[key]
    return [
        other
        for other, candidate in values.items()
        if other != key
        and candidate.dtype == value.dtype
        and candidate.shape == value.shape
        and np.array_equal(candidate, value)
    ]


def _prune(value: NDArray[Any], sparsity: float) -> NDArray[Any]:
    flat = value.flatten()
    smallest = round(flat.size * sparsity)
    if smallest:
        # numpy sorts only its own dtypes, and bfloat16 is none.
        magnitude = np.abs(flat.astype(np.float64 if flat.dtype == np.float64 else np.float32))
        flat[np.argpartition(magnitude, smallest - 1)[:smallest]] = 0
    return flat.reshape(value.shape)


def _without_checkpoint(directory: str, names: list[str]) -> list[str]:
    if Path(directory).name != _PREFIX.parent.name:
        return []
    return [name for name in names if name == f"{_PREFIX.name}.index" or name.startswith(f"{_PREFIX.name}.data-")]


def _write_checkpoint(target: Path, values: Mapping[str, NDArray[Any]]) -> None:
    # TensorFlow wants its index sorted.
    keys = sorted(values)
    tf.raw_ops.SaveV2(
        prefix=str(target / _PREFIX),
        tensor_names=keys,
        shape_and_slices=[""] * len(keys),
        tensors=[tf.constant(values[key]) for key in keys],
    )
