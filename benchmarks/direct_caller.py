"""Calls a model in its own process, without a server, from several threads (see `common.load`).

Usage: python -m benchmarks.direct_caller signature SAVED_MODEL INPUT.npy CALLERS   by `tf.saved_model.load`
       python -m benchmarks.direct_caller ENGINE ARTIFACT INPUT.npy CALLERS         by an engine of modelhost's
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .common.load import tell

Call = Callable[[], object]
_FLOAT32 = 1


def _signature(path: str, x: np.ndarray, callers: int) -> Call:
    from .peers.tensorflow_model import TensorflowModel

    model = TensorflowModel(path)
    return lambda: model(x)


class _Bytes:
    """Takes outputs as bytes."""

    def put(self, dtype: int, shape: Any, data: Any) -> None:
        """See OutputSink."""
        bytes(data)


def _engine(name: str, path: str, x: np.ndarray, callers: int) -> Call:
    from modelhost_server.engines.base import TENSORFLOW, EngineOptions, LoadRequest
    from modelhost_server.engines.litert import LitertEngine
    from modelhost_server.engines.tensorflow import TensorflowEngine
    from modelhost_server.tensors import RawTensor

    # As in a worker: operations of one call in turn, calls side by side.
    options = EngineOptions(max(1, (os.cpu_count() or 1) // 2), 1, callers)
    engine = TensorflowEngine(options) if name == TENSORFLOW else LitertEngine(options)
    engine.prepare()
    model = engine.load(LoadRequest(path), lambda stage, done, total: None)
    position = next(i for i, spec in enumerate(model.signatures) if spec.name == "serving_default")
    data, sink = x.tobytes(), _Bytes()
    return lambda: model.run(position, [(0, RawTensor(_FLOAT32, x.shape, data))], (), sink)


def main(way: str, path: str, input_file: str, callers: int) -> None:
    """Calls until the input is closed."""
    # As in the worker: many threads that compute for microseconds between calls into C.
    sys.setswitchinterval(0.0005)
    x = np.load(input_file)
    call = _signature(path, x, callers) if way == "signature" else _engine(way, path, x, callers)
    calls: list[tuple[float, float]] = []
    stop = threading.Event()

    def caller() -> None:
        while not stop.is_set():
            started = time.monotonic()
            call()
            calls.append((started, time.monotonic() - started))

    call()
    print("ready", flush=True)
    threads = [threading.Thread(target=caller) for _ in range(callers)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    tell(calls)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
