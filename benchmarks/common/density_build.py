"""Builds fine-tunes of a ResNet50: they differ in the last layer's weights only.

Usage: python -m benchmarks.common.density_build COUNT DIRECTORY (needs TensorFlow).
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np


def main(count: int, directory: Path) -> None:
    """Builds as many as asked for, each into a directory of its number."""
    keras.utils.set_random_seed(0)
    image = keras.Input((224, 224, 3), name="x")
    network = keras.applications.ResNet50(weights=None, input_tensor=image)
    last = network.layers[-1]
    for number in range(count):
        random = np.random.default_rng(number)
        last.set_weights([random.normal(0, 0.02, w.shape).astype(np.float32) for w in last.get_weights()])
        network.export(str(directory / str(number)), verbose=False)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
