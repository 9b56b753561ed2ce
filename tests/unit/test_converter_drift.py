"""How far two models' outputs are apart, in numbers that can be checked by hand."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from modelhost_server.converter.drift import OutputDrift

NAN, INF = math.nan, math.inf


def drift_of(*pairs: tuple[Any, Any], dtype: Any = np.float32, is_batched: bool = True) -> dict[str, Any]:
    drift = OutputDrift("signature", "output")
    for original, optimized in pairs:
        rows = len(original) if is_batched else 1
        drift.add(np.array(original, dtype), np.array(optimized, dtype), rows, is_batched)
    return drift.to_json()


def test_scale_is_the_largest_of_all_executions() -> None:
    report = drift_of(([[1.0], [2.0]], [[1.5], [2.0]]), ([[-10.0]], [[-9.0]]))
    assert (report["signature"], report["output"]) == ("signature", "output")
    assert report["max_relative_difference"] == pytest.approx(0.1)
    assert report["mean_relative_difference"] == pytest.approx(1.5 / 3 / 10)
    assert report["argmax_agreement"] is None


def test_agreement_counts_rows() -> None:
    original = [[0.1, 0.9], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6]]
    assert drift_of((original, [[0.2, 0.8], [0.1, 0.9], [0.6, 0.4], [0, 1]]))["argmax_agreement"] == 0.75
    assert drift_of(([0.1, 0.9], [0.4, 0.6]), is_batched=False)["argmax_agreement"] == 1


def test_ties_do_not_agree() -> None:
    """A model that answers all alike proves nothing; one clear row among ties is all that counts."""
    assert drift_of(([[0.5, 0.5]], [[0, 0]]))["argmax_agreement"] is None
    assert drift_of(([[0.5, 0.5], [0.1, 0.9]], [[0, 0], [0.9, 0.1]]))["argmax_agreement"] == 0


@pytest.mark.parametrize(
    ("original", "optimized", "largest"),
    [
        ([1, NAN, INF], [1, NAN, INF], 0),
        ([1, NAN, 2], [1, 0, 2], INF),
        ([1, INF], [1, -INF], INF),
        ([1, 2], [1, NAN], INF),
        ([1, 2], [1, INF], INF),
        ([0, 0], [0, 0], 0),
        ([0, 0], [0, 1], INF),
        ([], [], 0),
    ],
)
def test_numbers_that_are_none(original: list[float], optimized: list[float], largest: float) -> None:
    report = drift_of((original, optimized))
    assert report["max_relative_difference"] == largest
    assert not math.isnan(report["mean_relative_difference"])


def test_other_shapes_have_no_measure() -> None:
    report = drift_of(([[1.0], [2.0]], [[1.0]]))
    assert (report["max_relative_difference"], report["mean_relative_difference"]) == (INF, INF)


def test_other_dtypes() -> None:
    assert drift_of(([b"a", b"b"], [b"a", b"c"]), dtype=object)["mean_relative_difference"] == 0.5
    assert drift_of(([3 + 4j], [3 + 3j]), dtype=np.complex64)["max_relative_difference"] == pytest.approx(0.2)
    assert drift_of(([True, False], [True, True]), dtype=bool)["max_relative_difference"] == 1
    assert drift_of(([[1, 2]], [[2, 1]]), dtype=ml_dtypes.bfloat16)["argmax_agreement"] == 0
    # Integers are not scores of classes.
    assert drift_of(([[1, 4]], [[2, 4]]), dtype=np.int64) == {
        "signature": "signature",
        "output": "output",
        "max_relative_difference": 0.25,
        "mean_relative_difference": 0.125,
        "argmax_agreement": None,
    }
