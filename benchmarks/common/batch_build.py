"""Builds many models of one kind, each with weights of its own.

Usage: python -m benchmarks.common.batch_build small|mobilenet COUNT DIRECTORY (needs TensorFlow)
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from .zoo_build import mobilenet_v2

_WIDTH, _HIDDEN, _CLASSES = 64, 128, 10


def small(count: int, directory: Path) -> None:
    """Two dense layers: 10,000 weights."""
    shapes = ((_WIDTH, _HIDDEN), (_HIDDEN,), (_HIDDEN, _CLASSES), (_CLASSES,))
    module = tf.Module()
    module.weights = [tf.Variable(tf.zeros(shape)) for shape in shapes]

    @tf.function(input_signature=[tf.TensorSpec([None, _WIDTH], tf.float32, "x")])
    def run(x: tf.Tensor) -> dict[str, tf.Tensor]:
        kernel, bias, last_kernel, last_bias = module.weights
        return {"y": tf.nn.softmax(tf.nn.relu(x @ kernel + bias) @ last_kernel + last_bias)}

    module.run = run
    for number in range(count):
        random = np.random.default_rng(number)
        for variable in module.weights:
            variable.assign(random.normal(0, 0.1, variable.shape))
        tf.saved_model.save(module, str(directory / str(number)), signatures=run)


def mobilenet(count: int, directory: Path) -> None:
    """MobileNetV2: 3.5 million weights."""
    network = mobilenet_v2(directory)
    weights = network.get_weights()
    for number in range(count):
        random = np.random.default_rng(number)
        # Only a little, so that answers go on to depend on inputs.
        network.set_weights([w * random.uniform(0.95, 1.05, w.shape).astype(w.dtype) for w in weights])
        network.export(str(directory / str(number)), verbose=False)


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    {"small": small, "mobilenet": mobilenet}[sys.argv[1]](int(sys.argv[2]), Path(sys.argv[3]))
