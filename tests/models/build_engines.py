"""Builds the models of the tests about engines. Usage: python build_engines.py DIRECTORY (needs TensorFlow).

Beside SavedModels there are `.tflite` files: some to be loaded, some to be put in the place of a right conversion.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2


def save(path: Path, function: Callable[..., object], *specs: tf.TensorSpec, **state: object) -> None:
    """Saves a function as `serving_default`, with what it uses."""
    module = tf.Module()
    for name, value in state.items():
        setattr(module, name, value)
    module.run = tf.function(function, input_signature=specs)
    tf.saved_model.save(module, str(path), signatures=module.run)


def flatbuffer(path: Path, function: Callable[..., object], *specs: tf.TensorSpec) -> None:
    """Saves a function as a `.tflite` file."""
    concrete = convert_variables_to_constants_v2(tf.function(function, input_signature=specs).get_concrete_function())
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert())


def convnet(root: Path) -> None:
    """A convolutional classifier that other engines run several times as fast as TensorFlow."""
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Input([48, 48, 3])]
    for filters in (16, 32, 32, 64, 64):
        layers += [keras.layers.SeparableConv2D(filters, 3, padding="same"), keras.layers.BatchNormalization()]
        layers += [keras.layers.ReLU()]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10, kernel_initializer="glorot_normal")]
    model = keras.Sequential(layers)
    # Statistics as training leaves them, so that outputs are not all alike.
    generator = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights(
                [generator.uniform(0.5, 1.5, gamma.shape), generator.normal(0, 0.2, beta.shape),
                 generator.normal(0, 0.1, mean.shape), generator.uniform(0.01, 0.1, variance.shape)]
            )  # fmt: skip
    model.export(str(root / "convnet"), verbose=False)

    spec = tf.TensorSpec([None, 48, 48, 3], tf.float32, "in_0")
    # What a wrong conversion may be: right in its inputs and outputs, but made for one example only.
    flatbuffer(
        root / "one_example_only.tflite",
        lambda x: tf.reshape(tf.reduce_mean(x, [1, 2]), [1, 3]) @ tf.ones([3, 10]),
        spec,
    )
    model.save(root / "convnet.keras")


def scale(root: Path) -> None:
    """A `.tflite` file with a signature of two inputs: y = 3 a + b."""
    flatbuffer(
        root / "scale.tflite", lambda a, b: {"y": 3.0 * a + b},
        tf.TensorSpec([None, 2], tf.float32, "a"), tf.TensorSpec([None, 2], tf.float32, "b"),
    )  # fmt: skip


def warmed(root: Path) -> None:
    """A counter with warm-up requests in its SavedModel: it counts its calls, so that one sees them."""
    count = tf.Variable(0.0)

    def run(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"count": count.assign_add(1.0) + 0.0 * tf.reduce_sum(x)}

    save(root / "counter", run, tf.TensorSpec([None], tf.float32, "x"), count=count)


def refused(root: Path) -> None:
    """Models that only TensorFlow can serve."""
    save(root / "strings", lambda s: {"n": tf.strings.length(s)}, tf.TensorSpec([None], tf.string, "s"))
    save(root / "random", lambda x: {"y": x + tf.random.uniform([1])}, tf.TensorSpec([None], tf.float32, "x"))
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.constant([1, 2], tf.int64), tf.constant([10, 20], tf.int64)), -1
    )
    save(root / "table", lambda k: {"v": table.lookup(k)}, tf.TensorSpec([None], tf.int64, "k"), table=table)


def ids(root: Path) -> None:
    """An embedding: what is out of its range must be refused by every engine."""
    table = tf.Variable(np.random.default_rng(2).normal(size=(50, 64)).astype(np.float32))
    dense = tf.Variable(np.random.default_rng(3).normal(size=(64, 2048)).astype(np.float32))

    def run(ids: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.nn.relu(tf.reduce_sum(tf.gather(table, ids), axis=1) @ dense)}

    save(root / "ids", run, tf.TensorSpec([None, 4], tf.int32, "ids"), table=table, dense=dense)


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for build in (convnet, scale, warmed, refused, ids):
        build(directory)
