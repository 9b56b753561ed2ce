"""How many of a model's weights are zero: the elements of its kernels (see weights.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools.flatbuffer_utils import read_model

from ..engines import tensorflow_capi as capi
from ..engines.base import LITERT, TENSORFLOW
from ..engines.tensorflow_checkpoint import Checkpoint, CheckpointReader
from .arrays import to_array
from .probes import Array
from .weights import is_kernel, used_variables

_FLOAT32 = 1
_STORED: dict[int, np.dtype[Any]] = {
    schema.TensorType.FLOAT32: np.dtype(np.float32),
    schema.TensorType.FLOAT16: np.dtype(np.float16),
    schema.TensorType.INT8: np.dtype(np.int8),
}


def zero_share(engine: str, path: Path, tags: Sequence[str]) -> float:
    """The share of zeros among the weights of a SavedModel, or of the `.tflite` files at or below a path; 0 where they
    cannot be told.
    """
    zeros = size = 0
    for kernel in _kernels(engine, path, tags):
        zeros += kernel.size - int(np.count_nonzero(kernel))
        size += kernel.size
    return zeros / size if size else 0.0


def _kernels(engine: str, path: Path, tags: Sequence[str]) -> Iterator[Array]:
    if engine == TENSORFLOW:
        yield from _variables(path, tags)
    elif engine == LITERT:
        for file in sorted(path.glob("*.tflite")) if path.is_dir() else [path]:
            yield from _constants(file)


def _variables(path: Path, tags: Sequence[str]) -> Iterator[Array]:
    checkpoint = Checkpoint(CheckpointReader(b""), str(path / "variables" / "variables"))
    for key, spec in used_variables(str(path), tags, checkpoint.object_graph()).items():
        try:
            tensor = checkpoint.read(key, spec.dtype)
        except capi.StatusError:
            # It is no variable of the checkpoint: the model's initialiser gives it its value.
            continue
        try:
            dtype, shape, data = capi.read_tensor(tensor)
            if is_kernel(spec.name, dtype, shape):
                yield to_array(dtype, shape, data)
        finally:
            capi.delete_tensor(tensor)


def _constants(file: Path) -> Iterator[Array]:
    model: Any = read_model(file)
    for tensor in (tensor for subgraph in model.subgraphs for tensor in subgraph.tensors):
        data = model.buffers[tensor.buffer].data
        if data is None or tensor.type not in _STORED or not is_kernel("", _FLOAT32, tensor.shape):
            continue
        # What int8 weights stand for is symmetric: 0 is 0.
        if tensor.type == schema.TensorType.INT8 and (tensor.quantization is None or tensor.quantization.scale is None):
            continue
        yield np.frombuffer(data, _STORED[tensor.type])
