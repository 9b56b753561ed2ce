"""Builds one of the models that are measured. Usage: python build_models.py NAME DIRECTORY (needs TensorFlow)."""

from __future__ import annotations

import sys

import keras
import tensorflow as tf


def half_plus_two(path: str) -> None:
    """Answers y = 0.5 x + 2: next to nothing to compute, so that all the rest shows."""
    module = tf.Module()
    module.a, module.b = tf.Variable(0.5, name="a"), tf.Variable(2.0, name="b")
    module.run = tf.function(
        lambda x: {"y": module.a * x + module.b}, input_signature=[tf.TensorSpec([None], tf.float32, "x")]
    )
    tf.saved_model.save(module, path, signatures=module.run)


def half_plus_two_rows(path: str) -> None:
    """The same on rows of any width: a row is an example, and rows of one width can be run together."""
    module = tf.Module()
    module.a, module.b = tf.Variable(0.5, name="a"), tf.Variable(2.0, name="b")
    module.run = tf.function(
        lambda x: {"y": module.a * x + module.b}, input_signature=[tf.TensorSpec([None, None], tf.float32, "x")]
    )
    tf.saved_model.save(module, path, signatures=module.run)


def mobilenet_v2(path: str) -> None:
    """A few milliseconds of work, as many models of services have."""
    image = keras.Input((224, 224, 3), name="x")
    keras.applications.MobileNetV2(weights=None, input_tensor=image).export(path, verbose=False)


def resnet50(path: str) -> None:
    """A hundred megabytes of weights."""
    image = keras.Input((224, 224, 3), name="x")
    keras.applications.ResNet50(weights=None, input_tensor=image).export(path, verbose=False)


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    {build.__name__: build for build in (half_plus_two, half_plus_two_rows, mobilenet_v2, resnet50)}[sys.argv[1]](
        sys.argv[2]
    )
