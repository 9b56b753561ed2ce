"""How far the outputs of one model are from another's, and how often its classes are right."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .probes import Array

# A row of this many scores is taken for those of classes.
_MOST_CLASSES = 100_000


def class_scores(output: Array, count: int, is_batched: bool) -> Array | None:
    """An output as one row of scores an example; None when it does not look like scores of classes."""
    rows = output if is_batched else output[None]
    looks_so = rows.ndim == 2 and rows.shape[0] == count and 2 <= rows.shape[1] <= _MOST_CLASSES
    return rows if looks_so and rows.dtype.kind in "fV" else None


@dataclass(slots=True)
class OutputDrift:
    """One output of a signature, over all executions."""

    signature: str
    output: str
    largest: float = 0.0
    total: float = 0.0
    size: int = 0
    scale: float = 0.0
    rows: int = 0
    agreeing: int = 0

    def add(self, original: Array, optimized: Array, count: int, is_batched: bool) -> None:
        """Takes the outputs of one execution into account."""
        if original.shape != optimized.shape:
            # There is no measure for it.
            self.largest = self.total = math.inf
            self.size += original.size
            return
        difference, magnitude = _difference(original, optimized)
        if difference.size:
            self.largest = max(self.largest, float(difference.max()))
            self.total += float(difference.sum())
            self.scale = max(self.scale, magnitude)
            self.size += difference.size
        scores = class_scores(original, count, is_batched)
        if scores is not None:
            # Where several classes are best, as in a model that answers all alike, to agree means nothing.
            clear = (scores == scores.max(axis=1, keepdims=True)).sum(axis=1) == 1
            theirs = optimized.reshape(scores.shape)
            self.rows += int(clear.sum())
            self.agreeing += int((scores.argmax(axis=1) == theirs.argmax(axis=1))[clear].sum())

    def to_json(self) -> dict[str, Any]:
        """As the report has it."""
        return {
            "signature": self.signature,
            "output": self.output,
            "max_relative_difference": self._relative(self.largest),
            "mean_relative_difference": self._relative(self.total / self.size if self.size else 0.0),
            "argmax_agreement": self.agreeing / self.rows if self.rows else None,
        }

    def _relative(self, difference: float) -> float:
        if not difference:
            return 0.0
        return difference / self.scale if self.scale else math.inf


def _difference(original: Array, optimized: Array) -> tuple[Array, float]:
    """Absolute differences, infinite where only one is a number; and the original's largest magnitude."""
    if original.dtype == object:
        return (original != optimized).astype(np.float64), 1.0
    kind = np.complex128 if original.dtype.kind == "c" else np.float64
    a, b = original.astype(kind), optimized.astype(kind)
    known = np.isfinite(a)
    with np.errstate(invalid="ignore"):
        difference = np.abs(a - b)
    difference[np.isnan(difference)] = np.inf
    # Where the original is no finite number, only the same counts as no difference.
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    difference[~known] = np.where(same[~known], 0.0, np.inf)
    return difference, float(np.abs(a[known]).max()) if known.any() else 0.0
