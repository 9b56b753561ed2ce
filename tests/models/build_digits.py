"""Builds what optimizations are tested on. Usage: python build_digits.py DIRECTORY (needs TensorFlow, scikit-learn).

Leaves a small CNN trained on scikit-learn's handwritten digits: `digits` as Keras exports it, `digits_training` with
the optimizer's state, `digits_sharded` with its checkpoint in two files; `calibration.npz` (training images without
labels) and `test.npz` (images that training did not see, and their labels); and `heads`, a model whose inputs and
outputs are easily mistaken for one another.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def digits(directory: Path) -> None:
    """Trains, saves, and stores the images."""
    data = load_digits()
    images = (data.images / 16).astype(np.float32)[..., None]
    train_x, test_x, train_y, test_y = train_test_split(
        images, data.target.astype(np.int64), test_size=0.3, random_state=0, stratify=data.target
    )
    network = keras.Sequential(
        [
            keras.Input([8, 8, 1], name="image"),
            keras.layers.Conv2D(32, 3, activation="relu", padding="same"),
            keras.layers.Conv2D(64, 3, activation="relu", padding="same"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10, activation="softmax", name="scores"),
        ]
    )
    network.compile("adam", "sparse_categorical_crossentropy")
    network.fit(train_x, train_y, batch_size=32, epochs=12, verbose=0)
    network.export(str(directory / "digits"), verbose=False)
    tf.saved_model.save(network, str(directory / "digits_training"))
    np.savez(directory / "calibration.npz", image=train_x[:200])
    np.savez(directory / "test.npz", image=test_x, labels=test_y)


def shard(source: Path, target: Path) -> None:
    """Copies a SavedModel, its checkpoint in two data files."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("variables"))
    reader = tf.train.load_checkpoint(str(source / "variables" / "variables"))
    keys = sorted(reader.get_variable_to_shape_map())
    prefixes = []
    for number, part in enumerate((keys[::2], keys[1::2])):
        prefixes.append(str(target / f"part_{number}"))
        values = [tf.constant(reader.get_tensor(key)) for key in part]
        tf.raw_ops.SaveV2(prefix=prefixes[-1], tensor_names=part, shape_and_slices=[""] * len(part), tensors=values)
    (target / "variables").mkdir()
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=prefixes, destination_prefix=str(target / "variables" / "variables")
    )


def heads(directory: Path) -> None:
    """Two signatures that share a weight; one has an input it ignores, and an output named like its input."""
    random = np.random.default_rng(0)

    def weight(*shape: int) -> tf.Variable:
        return tf.Variable(random.normal(scale=shape[0] ** -0.5, size=shape).astype(np.float32))

    module = tf.Module()
    module.wide, module.narrow, module.top = weight(64, 96), weight(32, 48), weight(96, 24)

    def mix(narrow: tf.Tensor, unused: tf.Tensor, wide: tf.Tensor) -> dict[str, tf.Tensor]:
        hidden = tf.nn.relu(wide @ module.wide)
        return {"narrow": narrow @ module.narrow, "hidden": hidden, "answer": hidden @ module.top}

    def one(narrow: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.tanh(narrow @ module.narrow)}

    narrow, wide = (tf.TensorSpec([None, size], tf.float32, name) for size, name in ((32, "narrow"), (64, "wide")))
    signatures = {
        "mix": tf.function(mix, input_signature=[narrow, tf.TensorSpec([None, 7], tf.float32, "unused"), wide]),
        "one": tf.function(one, input_signature=[narrow]),
    }
    module.functions = signatures
    tf.saved_model.save(module, str(directory / "heads"), signatures=signatures)


def main(directory: Path) -> None:
    """Builds all."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    keras.utils.set_random_seed(0)
    digits(directory)
    shard(directory / "digits", directory / "digits_sharded")
    heads(directory)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
