"""Builds one of the models that engines are compared on.

Usage: python -m benchmarks.common.zoo_build NAME DIRECTORY (needs TensorFlow, and scikit-learn for the digits)

All but one have random weights, as if trained: the statistics of batch normalisation are those of inputs, and the last
layer is scaled so that answers depend on inputs and are clear. Engines could pass with anything otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from .inputs import (
    CITIES,
    FEATURES,
    NUMBERS,
    PIXELS,
    SENTENCE,
    STEPS,
    USERS,
    VOCABULARY,
    deep_inputs,
    pictures,
    series,
    tokens,
)

_EXAMPLES = 16
# Standard deviation of a class's score over inputs, before the softmax.
_SPREAD = 3.0


def digits_cnn(directory: Path) -> keras.Model:
    """Trained here, on scikit-learn's 1797 images; a quarter of them is held out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    images = (data.images[..., None] / 16).astype(np.float32)
    train, test, train_digits, test_digits = train_test_split(
        images, data.target, test_size=0.25, random_state=0, stratify=data.target
    )
    network = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="x"),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    network.compile("adam", "sparse_categorical_crossentropy")
    network.fit(train, train_digits, batch_size=32, epochs=15, verbose=0)
    np.savez(directory / "held_out.npz", images=test, digits=test_digits)
    return network


def mobilenet_v2(directory: Path) -> keras.Model:
    """Of 3.5 million parameters."""
    return _application(keras.applications.MobileNetV2, brightest=1, shift=1)


def efficientnet_b0(directory: Path) -> keras.Model:
    """Of 5.3 million parameters; takes pixels from 0 to 255."""
    return _application(keras.applications.EfficientNetB0, brightest=255, shift=0)


def resnet50(directory: Path) -> keras.Model:
    """Of 25.6 million parameters."""
    return _application(keras.applications.ResNet50, brightest=1, shift=1)


def transformer(directory: Path) -> keras.Model:
    """An encoder of six layers that tells which of 100 classes a sentence is of."""
    width, heads = 256, 4
    words = keras.Input((SENTENCE,), dtype="int32", name="x")
    x = layers.Embedding(VOCABULARY, width)(words)
    x += layers.Embedding(SENTENCE, width)(keras.ops.arange(SENTENCE)[None])
    for _ in range(6):
        y = layers.LayerNormalization()(x)
        x += layers.MultiHeadAttention(heads, width // heads)(y, y)
        y = layers.LayerNormalization()(x)
        x += layers.Dense(width)(layers.Dense(4 * width, activation="gelu")(y))
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    network = keras.Model(words, layers.Dense(100, activation="softmax")(x))
    return _spread(network, tokens(np.random.default_rng(0), _EXAMPLES))


def lstm(directory: Path) -> keras.Model:
    """Two recurrent layers over a series."""
    x = measured = keras.Input((STEPS, FEATURES), name="x")
    x = layers.LSTM(128, return_sequences=True)(x)
    x = layers.LSTM(128)(x)
    network = keras.Model(measured, layers.Dense(20, activation="softmax")(x))
    return _spread(network, series(np.random.default_rng(0), _EXAMPLES))


def wide_and_deep(directory: Path) -> keras.Model:
    """Strings and numbers looked up in tables: single ones straight to the answer (wide), and embedded (deep)."""
    inputs = {
        "city": keras.Input((1,), dtype="string", name="city"),
        "user": keras.Input((1,), dtype="int64", name="user"),
        "numbers": keras.Input((NUMBERS,), name="numbers"),
    }
    city = layers.StringLookup(vocabulary=list(CITIES))(inputs["city"])
    user = layers.IntegerLookup(vocabulary=list(range(USERS)))(inputs["user"])
    wide = layers.CategoryEncoding(len(CITIES) + 1, output_mode="multi_hot")(city)
    deep = layers.Concatenate()(
        [
            layers.Flatten()(layers.Embedding(len(CITIES) + 1, 32)(city)),
            layers.Flatten()(layers.Embedding(USERS + 1, 64)(user)),
            inputs["numbers"],
        ]
    )
    for _ in range(3):
        deep = layers.Dense(256, activation="relu")(deep)
    answer = layers.Dense(10, activation="softmax")(layers.Concatenate()([wide, deep]))
    return _spread(keras.Model(inputs, answer), _constant(deep_inputs(np.random.default_rng(0), _EXAMPLES)))


def _application(make: Callable[..., keras.Model], brightest: float, shift: float) -> keras.Model:
    """A network for pictures; `shift` is what batch normalisation moves values by.

    With the wrong shift each layer multiplies the rounding of those before, as the layers of no trained network do.
    """
    network = make(weights=None, input_tensor=keras.Input((PIXELS, PIXELS, 3), name="x"))
    random = np.random.default_rng(0)
    images = pictures(random, _EXAMPLES, brightest)
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.gamma.assign(random.uniform(0.8, 1.2, layer.gamma.shape))
            layer.beta.assign(random.normal(shift, 0.1, layer.beta.shape))
            # What is seen next is remembered, and nothing else.
            layer.momentum = 0.0
    network(images, training=True)
    return _spread(network, images)


def _spread(network: keras.Model, examples: Any) -> keras.Model:
    """Scales the last layer by what it answers to examples."""
    last = network.layers[-1]
    features = keras.Model(network.inputs, last.input)
    if isinstance(examples, dict):
        examples = [examples[item.name] for item in network.inputs]
    kernel, _ = last.get_weights()
    scores = keras.ops.convert_to_numpy(features(examples)) @ kernel
    kernel *= _SPREAD / (scores - scores.mean(axis=0)).std()
    scores = keras.ops.convert_to_numpy(features(examples)) @ kernel
    last.set_weights([kernel, -scores.mean(axis=0)])
    return network


def _constant(inputs: dict[str, np.ndarray]) -> dict[str, Any]:
    import tensorflow as tf

    return {name: tf.constant(array) for name, array in inputs.items()}


_BUILDERS = (digits_cnn, mobilenet_v2, efficientnet_b0, resnet50, transformer, lstm, wide_and_deep)


def main(name: str, directory: Path) -> None:
    """Builds a model into `model` below a directory."""
    keras.utils.set_random_seed(0)
    network = {build.__name__: build for build in _BUILDERS}[name](directory)
    network.export(str(directory / "model"), verbose=False)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
