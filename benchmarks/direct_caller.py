"""Calls a model in its own process, through `tf.saved_model.load`, from several threads (see `common.load`).

Usage: python -m benchmarks.direct_caller MODEL CALLERS
"""

from __future__ import annotations

import sys
import threading
import time

import tensorflow as tf

from .common.load import tell
from .common.models import INPUT, input_array, model_path


def main(model: str, callers: int) -> None:
    """Calls until the input is closed."""
    loaded = tf.saved_model.load(str(model_path(model)))
    run, x = loaded.signatures["serving_default"], input_array(model)
    calls: list[tuple[float, float]] = []
    stop = threading.Event()

    def once() -> None:
        started = time.monotonic()
        for tensor in run(**{INPUT: tf.constant(x)}).values():
            tensor.numpy()
        calls.append((started, time.monotonic() - started))

    def caller() -> None:
        while not stop.is_set():
            once()

    once()
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
    main(sys.argv[1], int(sys.argv[2]))
