"""What the servers are compared on: models, what goes in, and how many ask.

A request is one example; float32 goes in and comes out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .building import built
from .inputs import pictures
from .models import model_path


class Model(NamedTuple):
    """A model, and what somebody who knows it would tell a server.

    Attributes:
        max_batch: the largest batch that is worth while; 0 for none.
        is_light: it takes so little time that a thread of its own costs more.
    """

    name: str
    path: Callable[[], Path]
    max_batch: int
    is_light: bool

    def told(self) -> dict[str, Any]:
        """The same for the peers, as JSON."""
        return {"path": str(self.path()), "max_batch": self.max_batch, "is_light": self.is_light}


class Case(NamedTuple):
    """A model and its input.

    Attributes:
        callers: so many who wait for their answers.
        rates: calls a second whatever comes back.
    """

    key: str
    model: Model
    payload: str
    x: np.ndarray
    callers: tuple[int, ...] = (1, 8, 64)
    rates: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """How tables call it."""
        return f"{self.model.name}, {self.payload}"


def _rows() -> Path:
    return model_path("half_plus_two_rows")


def _row(width: int) -> np.ndarray:
    return np.random.default_rng(0).random((1, width), dtype=np.float32)


# Next to nothing to compute, so that all the rest shows.
_TINY = Model("tiny", _rows, max_batch=64, is_light=True)
# Two layers: 64 -> 128 -> 10. A batch takes little longer than one example.
_DENSE = Model("dense", lambda: built("benchmarks.common.batch_build", "small", "1") / "0", max_batch=64, is_light=True)
_MOBILENET = Model(
    "mobilenet_v2",
    lambda: built("benchmarks.common.zoo_build", "mobilenet_v2", also=["benchmarks.common.inputs"]) / "model",
    max_batch=16, is_light=False,
)  # fmt: skip
# The tiny one again: to gather tensors of 10 MB into a batch would be nothing but copying.
_LARGE = Model("large", _rows, max_batch=0, is_light=False)

TINY = Case("tiny", _TINY, "16 B", _row(4), rates=(200, 1000))
TINY_4K = Case("tiny-4k", _TINY, "4 kB", _row(1024))
DENSE = Case("dense", _DENSE, "256 B", _row(64), rates=(200, 1000))
MOBILENET = Case("mobilenet", _MOBILENET, "600 kB", pictures(np.random.default_rng(0), 1), rates=(20, 60))
# Of 64 such calls side by side none is answered before all have arrived, seconds later.
LARGE = Case("large", _LARGE, "10 MB", _row(2_621_440), callers=(1, 8))

CASES = (TINY, TINY_4K, DENSE, MOBILENET, LARGE)
