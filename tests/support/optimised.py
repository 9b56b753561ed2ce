"""Short ways to load and run models in engines, in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from modelhost_server.engines.base import EngineOptions, LoadedModel, LoadRequest
from modelhost_server.engines.litert import LitertEngine
from modelhost_server.engines.openvino import OpenvinoEngine
from modelhost_server.tensors import DTYPE_NAME, STRING, RawTensor

from . import building

Engine = LitertEngine | OpenvinoEngine


def built() -> Path:
    """The directory of models."""
    return building.built("build_optimised")


class Collected:
    """Takes outputs; copies them, as a sink must."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray[Any, Any]] = []

    def put(self, dtype: int, shape: Sequence[int], data: memoryview | Sequence[bytes]) -> None:
        assert isinstance(data, memoryview)
        assert (data.format, data.ndim) == ("B", 1)
        self.arrays.append(np.frombuffer(bytes(data), numpy_dtype(dtype)).reshape(shape))


def numpy_dtype(number: int) -> np.dtype[Any]:
    """Numpy's dtype of a DataType."""
    name = DTYPE_NAME[number]
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def raw(value: Any, dtype: int) -> RawTensor:
    """A value as engines get it; bfloat16 is given as the uint16 of its bits."""
    array = np.asarray(value)
    if dtype == STRING:
        return RawTensor(dtype, array.shape, [bytes(item) for item in array.flat])
    if DTYPE_NAME[dtype] != "bfloat16":
        array = array.astype(DTYPE_NAME[dtype])
    return RawTensor(dtype, array.shape, array.tobytes())


def load(engine: Engine, path: Path) -> LoadedModel:
    """Loads a model."""
    return engine.load(LoadRequest(str(path)), lambda stage, done, total: None)


def options(intra_op_threads: int = 1, lanes: int = 2, cache_dir: Path | None = None) -> EngineOptions:
    """Options of an engine."""
    return EngineOptions(intra_op_threads, 1, lanes, cache_dir)


def run(
    model: LoadedModel, inputs: Mapping[str, Any], signature: str = "serving_default", wanted: Sequence[str] = ()
) -> dict[str, np.ndarray[Any, Any]]:
    """Runs a signature; all by name."""
    position = [spec.name for spec in model.signatures].index(signature)
    spec = model.signatures[position]
    names = [i.name for i in spec.inputs]
    given = [
        (names.index(name), value if isinstance(value, RawTensor) else raw(value, spec.inputs[names.index(name)].dtype))
        for name, value in inputs.items()
    ]
    outputs = [o.name for o in spec.outputs]
    sink = Collected()
    model.run(position, given, [outputs.index(name) for name in wanted], sink)
    return dict(zip(wanted or outputs, sink.arrays, strict=True))


def recorded(name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Inputs of calls, and what TensorFlow answered."""
    calls: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    with np.load(built() / f"{name}.npz") as arrays:
        for key, value in arrays.items():
            number, side, tensor = key.split("|")
            calls.setdefault(number, ({}, {}))[side == "out"][tensor] = value
    return list(calls.values())


def check(got: Mapping[str, np.ndarray[Any, Any]], want: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Outputs are TensorFlow's: floats nearly, all else bit by bit."""
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name].shape == value.shape, name
        if value.dtype == np.float32:
            np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=1e-5)
        else:
            assert got[name].tobytes() == value.tobytes(), name
