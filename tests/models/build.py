"""Builds the SavedModels that tests load. Usage: python build.py DIRECTORY (needs TensorFlow).

Each function builds one model into a directory of its own name; its docstring says what the model is for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

BUILDERS: list[Callable[[str], None]] = []


def model(build: Callable[[str], None]) -> Callable[[str], None]:
    """Registers a builder."""
    BUILDERS.append(build)
    return build


def save(path: str, function: Callable[..., object], *specs: tf.TensorSpec, **variables: tf.Variable) -> None:
    """Saves a function as `serving_default`, with the variables it uses."""
    module = tf.Module()
    for name, variable in variables.items():
        setattr(module, name, variable)
    module.run = tf.function(function, input_signature=specs)
    tf.saved_model.save(module, path, signatures=module.run)


@model
def half_plus_two(path: str) -> None:
    """y = 0.5 x + 2, TensorFlow Serving's own smallest model."""
    a, b = tf.Variable(0.5, name="a"), tf.Variable(2.0, name="b")
    save(path, lambda x: {"y": a * x + b}, tf.TensorSpec([None], tf.float32, "x"), a=a, b=b)


@model
def half_plus_three(path: str) -> None:
    """As half_plus_two, with variables of the same names and other values."""
    a, b = tf.Variable(0.5, name="a"), tf.Variable(3.0, name="b")
    save(path, lambda x: {"y": a * x + b}, tf.TensorSpec([None], tf.float32, "x"), a=a, b=b)


@model
def slow(path: str) -> None:
    """Counts to `steps` in a loop of matrix products (about a millisecond for ten steps), then answers `steps`."""

    def run(steps: tf.Tensor) -> dict[str, tf.Tensor]:
        noise = tf.random.stateless_uniform([64, 64], [1, 2])

        def body(i: tf.Tensor, m: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return i + 1, tf.linalg.l2_normalize(m @ noise)

        i, m = tf.while_loop(lambda i, m: i < steps, body, [tf.constant(0), noise])
        return {"steps": i + tf.cast(tf.reduce_sum(m) * 0, tf.int32)}

    save(path, run, tf.TensorSpec([], tf.int32, "steps"))


def main(directory: Path) -> None:
    """Builds all."""
    np.random.seed(0)
    keras.utils.set_random_seed(0)
    for build in BUILDERS:
        build(str(directory / build.__name__))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
