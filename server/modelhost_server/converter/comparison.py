"""Compares what two engines answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..tensors import TensorSpec
from .arrays import numpy_dtype
from .probes import Array

# A row of this many scores is taken for those of classes.
_MOST_CLASSES = 100_000
# Types of half precision cannot be nearer than this many of their own steps.
_STEPS = 4


class Different(Exception):
    """Two answers are not the same; the message says how."""


@dataclass(slots=True)
class OutputComparison:
    """One output of a signature, over all probes."""

    spec: TensorSpec
    tolerance: float
    largest_difference: float = 0.0
    _smallest_scale: float = np.inf
    # Largest values answered where the reference is all zeros, which gives no scale of its own.
    _at_zero: float = 0.0
    _first: dict[tuple[int, ...], Array] = field(default_factory=dict)
    _varies: bool = False

    @property
    def is_float(self) -> bool:
        """Whether answers are compared within the tolerance, not bit by bit."""
        return not _is_exact(numpy_dtype(self.spec.dtype))

    @property
    def varies(self) -> bool:
        """Whether the reference's answers depend on more than the shapes of the inputs."""
        return self._varies

    def note(self, reference: Array) -> None:
        """Takes an answer of the reference into account for `varies`."""
        if self._varies:
            return
        first = self._first.setdefault(reference.shape, reference)
        if first is not reference:
            try:
                # Into a copy of this comparison, for the two are not meant to be the same.
                OutputComparison(self.spec, self.tolerance).check(first, reference)
            except Different:
                self._varies = True

    def check(self, reference: Array, answer: Array) -> None:
        """Compares an answer with the reference's.

        Raises:
            Different: it is another.
        """
        if reference.dtype != answer.dtype:
            raise Different(f"dtype {answer.dtype}, expected {reference.dtype}")
        if reference.shape != answer.shape:
            raise Different(f"shape {list(answer.shape)}, expected {list(reference.shape)}")
        if _is_exact(reference.dtype):
            count = int(np.count_nonzero(reference != answer))
            if count:
                raise Different(f"{count} of {reference.size} values are others")
            return
        self._check_floats(reference.astype(np.float64), answer.astype(np.float64), reference.dtype)

    def _check_floats(self, reference: Array, answer: Array, dtype: np.dtype[Any]) -> None:
        finite = np.isfinite(reference)
        if not np.array_equal(reference[~finite], answer[~finite], equal_nan=True):
            raise Different("NaN or infinity in other places")
        if not np.isfinite(answer[finite]).all():
            raise Different("NaN or infinity where there should be none")
        if not finite.any():
            return
        tolerance = max(self.tolerance, _STEPS * step_of(dtype)) if dtype.itemsize < 4 else self.tolerance
        scale = float(np.abs(reference[finite]).max())
        distance = float(np.abs(reference[finite] - answer[finite]).max())
        # Engines may take numbers too small for full precision as zero.
        if scale <= _tiny(dtype):
            self._at_zero = max(self._at_zero, distance)
            return
        if distance > tolerance * scale:
            raise Different(f"values differ by up to {distance / scale:.2g} of the largest, more than {tolerance:.2g}")
        self._smallest_scale = min(self._smallest_scale, scale)
        self.largest_difference = max(self.largest_difference, distance / scale)
        if reference.ndim == 2 and 2 <= reference.shape[1] <= _MOST_CLASSES:
            _check_best(reference, answer, tolerance * scale)

    def finish(self) -> None:
        """Compares where the reference was all zeros, by the smallest scale of all its other answers.

        Raises:
            Different: there were values too large to be zeros.
        """
        scale = self._smallest_scale if np.isfinite(self._smallest_scale) else 0.0
        if self._at_zero > max(self.tolerance * scale, _tiny(numpy_dtype(self.spec.dtype))):
            raise Different(f"values up to {self._at_zero:.2g} where all should be zero")


def _check_best(reference: Array, answer: Array, margin: float) -> None:
    rows = np.isfinite(reference).all(axis=1)
    reference, answer = reference[rows], answer[rows]
    two = np.sort(np.partition(reference, -2, axis=1)[:, -2:], axis=1)
    clear = two[:, 1] - two[:, 0] > margin
    if (reference.argmax(axis=1) != answer.argmax(axis=1))[clear].any():
        raise Different("another class is the best")


def _is_exact(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iub"


def step_of(dtype: np.dtype[Any]) -> float:
    """The distance between 1 and the next number of a float dtype."""
    return 2.0**-7 if dtype.name == "bfloat16" else float(np.finfo(dtype).eps)


def _tiny(dtype: np.dtype[Any]) -> float:
    return float(np.finfo(np.float32 if dtype.name == "bfloat16" else dtype).tiny) if not _is_exact(dtype) else 0.0


def check_outputs(comparisons: Sequence[OutputComparison], reference: Sequence[Array], answer: Sequence[Array]) -> None:
    """Compares all outputs of a run.

    Raises:
        Different: one is another.
    """
    for comparison, expected, got in zip(comparisons, reference, answer, strict=True):
        try:
            comparison.check(expected, got)
        except Different as error:
            raise Different(f"output {comparison.spec.name!r}: {error}") from None
