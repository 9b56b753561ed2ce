"""The ways to run a SavedModel that `engine` compares: from an array's bytes to the outputs' bytes.

Usage: python -m benchmarks.engine_ways WAY MODEL INTRA_OP_THREADS LANES SECONDS
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from modelhost_server.engines.base import EngineOptions, LoadRequest
from modelhost_server.engines.tensorflow import TensorflowEngine
from modelhost_server.tensors import RawTensor

from .common.models import INPUT, input_array, model_path

Run = Callable[[bytes], object]
_SIGNATURE = "serving_default"
_FLOAT32 = 1
_WARM_UP = 1.0


def signature(path: str, shape: tuple[int, ...], intra: int) -> Run:
    """The restored signature of `tf.saved_model.load`: what one would write."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(intra)
    loaded = tf.saved_model.load(path)
    function = loaded.signatures[_SIGNATURE]

    def run(data: bytes) -> object:
        x = tf.constant(np.frombuffer(data, np.float32).reshape(shape))
        # The model lives for as long as something holds it.
        assert loaded
        return [tensor.numpy().tobytes() for tensor in function(**{INPUT: x}).values()]

    return run


def session(path: str, shape: tuple[int, ...], intra: int, make_callable: bool = False) -> Run:
    """Session.run of TensorFlow 1's Python API."""
    import tensorflow as tf

    v1 = tf.compat.v1
    opened = v1.Session(
        graph=tf.Graph(),
        config=v1.ConfigProto(intra_op_parallelism_threads=intra, inter_op_parallelism_threads=1),
    )
    signature_def = v1.saved_model.load(opened, ["serve"], path).signature_def[_SIGNATURE]
    feed = signature_def.inputs[INPUT].name
    fetches = [output.name for output in signature_def.outputs.values()]
    call = opened.make_callable(fetches, [feed]) if make_callable else lambda x: opened.run(fetches, {feed: x})

    def run(data: bytes) -> object:
        return [array.tobytes() for array in call(np.frombuffer(data, np.float32).reshape(shape))]

    return run


def session_callable(path: str, shape: tuple[int, ...], intra: int) -> Run:
    """Session.make_callable, the faster half of that API."""
    return session(path, shape, intra, make_callable=True)


class _Bytes:
    """Takes outputs as bytes."""

    def put(self, dtype: int, shape: Any, data: Any) -> None:
        """See OutputSink."""
        bytes(data)


def c_api(path: str, shape: tuple[int, ...], intra: int, inter: int = 1) -> Run:
    """The tensorflow engine of modelhost: sessions of the C library, operations in the caller's own thread."""
    model = TensorflowEngine(EngineOptions(intra, inter, 1)).load(LoadRequest(path), lambda stage, done, total: None)
    position = next(i for i, spec in enumerate(model.signatures) if spec.name == _SIGNATURE)
    sink = _Bytes()
    return lambda data: model.run(position, [(0, RawTensor(_FLOAT32, shape, data))], (), sink)


def c_api_pool(path: str, shape: tuple[int, ...], intra: int) -> Run:
    """The same with operations side by side in a pool of two threads."""
    return c_api(path, shape, intra, inter=2)


WAYS = {
    "signature": signature,
    "Session.run": session,
    "make_callable": session_callable,
    "C API, inter-op -1": c_api,
    "C API, inter-op 2": c_api_pool,
}


def measure(run: Run, data: bytes, lanes: int, seconds: float) -> dict[str, float]:
    """Calls a second, and microseconds of a call."""
    latencies: list[float] = []

    def lane(end: float) -> None:
        while (started := time.monotonic()) < end:
            run(data)
            latencies.append(time.monotonic() - started)

    def all_lanes(duration: float) -> float:
        latencies.clear()
        begin = time.monotonic()
        threads = [threading.Thread(target=lane, args=(begin + duration,)) for _ in range(lanes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.monotonic() - begin

    all_lanes(_WARM_UP)
    cpu = time.process_time()
    duration = all_lanes(seconds)
    cpu = time.process_time() - cpu
    p50, p99 = np.percentile(latencies, [50, 99]) * 1e6
    count = len(latencies)
    return {"per_second": count / duration, "p50": float(p50), "p99": float(p99), "cpu": cpu / count * 1e6}


def main(way: str, model: str, intra: int, lanes: int, seconds: float) -> None:
    """Measures one way and prints it as JSON."""
    # As in the worker: many lanes that compute for microseconds between calls into C.
    sys.setswitchinterval(0.0005)
    x = input_array(model)
    run = WAYS[way](str(model_path(model)), x.shape, intra)
    print(json.dumps(measure(run, x.tobytes(), lanes, seconds)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:5]), float(sys.argv[5]))
