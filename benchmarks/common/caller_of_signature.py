"""Calls a SavedModel's signature in its own process, with plain TensorFlow, on command (see `on_command`).

Usage: python -m benchmarks.common.caller_of_signature signature|session SAVED_MODEL INPUTS.npz THREADS

THREADS are those of one operation; TensorFlow chooses when 0. What to call is always 0.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from .on_command import WARM_UP, parse, say_ready, tell

_SIGNATURE = "serving_default"
Call = Callable[[], object]


def _signature(path: str, inputs: dict[str, np.ndarray]) -> Call:
    loaded = tf.saved_model.load(path)
    run = loaded.signatures[_SIGNATURE]

    def call() -> object:
        # `loaded` is named so that it is kept: the signature alone does not keep the variables.
        assert loaded is not None
        return [tensor.numpy() for tensor in run(**{name: tf.constant(x) for name, x in inputs.items()}).values()]

    return call


def _session(path: str, inputs: dict[str, np.ndarray], threads: int) -> Call:
    config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=threads)
    session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
    signature = tf.compat.v1.saved_model.load(session, ["serve"], path).signature_def[_SIGNATURE]
    fetches = {name: info.name for name, info in signature.outputs.items()}
    feeds = {signature.inputs[name].name: x for name, x in inputs.items()}
    return lambda: session.run(fetches, feeds)


def _window(call: Call, callers: int, seconds: float) -> None:
    calls: list[tuple[float, float]] = []
    begin = time.monotonic()

    def caller() -> None:
        while (started := time.monotonic()) < begin + WARM_UP + seconds:
            call()
            calls.append((started, time.monotonic() - started))

    threads = [threading.Thread(target=caller) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tell(calls, begin)


def main(kind: str, path: str, inputs_file: str, threads: int) -> None:
    """Obeys until its input ends."""
    with np.load(inputs_file) as arrays:
        inputs = dict(arrays)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    call = _session(path, inputs, threads) if kind == "session" else _signature(path, inputs)
    call()
    say_ready()
    for line in sys.stdin:
        _, callers, seconds = parse(line)
        _window(call, callers, seconds)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
