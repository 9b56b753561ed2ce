"""Builds models that tell who they are. Usage: python build_telling.py DIRECTORY (needs TensorFlow).

`answer` is a row for each element of `x`: the model's number, its version's number, and the element. The two numbers
are marks here: `support.telling.stamp` puts others in their place, so that copies differ in a few bytes only.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

MARKS = (1234567.0, 7654321.0)
LARGE = 500_000


def build(path: Path, ballast: int) -> None:
    """A model with so many float32 weights that nobody else has: they count as its own memory."""
    module = tf.Module()
    module.one = tf.Variable(1.0, name="one")
    weights = np.full(ballast, MARKS[0], np.float32)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def run(x: tf.Tensor) -> dict[str, tf.Tensor]:
        who = tf.constant(np.array(MARKS, np.float32))
        # Zero for each element, whichever that is.
        nothing = tf.gather(tf.constant(weights), tf.cast(x * 0, tf.int32)) * 0
        rows = [who[0] * module.one + x * 0 + nothing, who[1] * module.one + x * 0, x * module.one]
        return {"answer": tf.stack(rows, axis=1)}

    module.run = run
    tf.saved_model.save(module, str(path), signatures=run)


if __name__ == "__main__":
    build(Path(sys.argv[1]) / "small", 16)
    build(Path(sys.argv[1]) / "large", LARGE)
