"""Compares what one model answers on two engines."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


class Agreement:
    """How near the answers of two engines are, over all that were compared."""

    def __init__(self) -> None:
        self.compared = 0
        self.same_argmax = True
        self.largest_difference = 0.0

    def add(self, answer: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
        """Compares two answers. Differences are relative to the largest magnitude of an output."""
        if answer.keys() != expected.keys():
            raise RuntimeError(f"outputs {sorted(answer)}, expected {sorted(expected)}")
        self.compared += 1
        for name, right in expected.items():
            given = answer[name]
            if (given.dtype, given.shape) != (right.dtype, right.shape):
                raise RuntimeError(f"{name}: {given.dtype} {given.shape}, expected {right.dtype} {right.shape}")
            distance = np.abs(given - right).max() / np.abs(right).max()
            self.largest_difference = max(self.largest_difference, float(distance))
            # Of an example: its class, where the model is a classifier.
            self.same_argmax &= np.array_equal(_argmax(given), _argmax(right))


def _argmax(output: np.ndarray) -> np.ndarray:
    return output.reshape(len(output), -1).argmax(axis=1)
