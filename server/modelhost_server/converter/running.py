"""Runs models on numpy arrays, and takes times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..engines.base import LITERT, OPENVINO, Engine, EngineFailure, EngineOptions, LoadedModel
from ..errors import ModelhostError
from ..tensors import RawTensor
from .arrays import to_array, to_tensor
from .probes import Array

_WARM_CALLS = 3
_MOST_CALLS = 100
# Turns with calls side by side, at most, and what each thread calls in one, at least.
_MOST_TURNS = 10
_TURN_CALLS = 2

# What a run of a model raises that does not take its inputs.
FAILURES = (ModelhostError, EngineFailure)


def make_engine(name: str, options: EngineOptions) -> Engine:
    """An engine by its name. Each is imported by need: they are large."""
    if name == LITERT:
        from ..engines.litert import LitertEngine

        return LitertEngine(options)
    if name == OPENVINO:
        from ..engines.openvino import OpenvinoEngine

        return OpenvinoEngine(options)
    from ..engines.tensorflow import TensorflowEngine

    return TensorflowEngine(options)


class _Arrays:
    """Takes outputs as arrays."""

    def __init__(self) -> None:
        self.taken: list[Array] = []

    def put(self, dtype: int, shape: Sequence[int], data: memoryview | Sequence[bytes]) -> None:
        """See OutputSink."""
        self.taken.append(to_array(dtype, shape, bytes(data)))  # type: ignore[arg-type]


class _Discard:
    """Takes outputs that nobody wants."""

    def put(self, dtype: int, shape: Sequence[int], data: memoryview | Sequence[bytes]) -> None:
        """See OutputSink."""


class Candidate:
    """A model that is loaded anew after each failure, so that none has to do with the one before: an engine may need
    a while to recover, and refuses everything meanwhile.
    """

    def __init__(self, load: Callable[[], LoadedModel]) -> None:
        self._load = load
        self._model: LoadedModel | None = load()

    @property
    def model(self) -> LoadedModel:
        """The model as it is now."""
        if self._model is None:
            self._model = self._load()
        return self._model

    def run(self, signature: int, inputs: Sequence[Array]) -> list[Array]:
        """As `run`."""
        try:
            return run(self.model, signature, inputs)
        except FAILURES:
            self.model.close()
            self._model = None
            raise


def raw_inputs(inputs: Sequence[Array]) -> list[tuple[int, RawTensor]]:
    """Inputs as engines take them."""
    return [(i, to_tensor(value)) for i, value in enumerate(inputs)]


def run(model: LoadedModel, signature: int, inputs: Sequence[Array]) -> list[Array]:
    """All outputs of a signature.

    Raises:
        ModelhostError, EngineFailure: the engine's.
    """
    outputs = _Arrays()
    model.run(signature, raw_inputs(inputs), (), outputs)
    return outputs.taken


def race(models: Sequence[LoadedModel], signature: int, inputs: Sequence[Array], seconds: float) -> list[int]:
    """The median nanoseconds of a call on each model: in turns, so that what else the machine does hits all alike."""
    given = raw_inputs(inputs)
    sink: Any = _Discard()
    for model in models:
        for _ in range(_WARM_CALLS):
            model.run(signature, given, (), sink)
    times: list[list[int]] = [[] for _ in models]
    end = time.monotonic() + seconds
    while not times[0] or (len(times[0]) < _MOST_CALLS and time.monotonic() < end):
        for model, taken in zip(models, times, strict=True):
            start = time.perf_counter_ns()
            model.run(signature, given, (), sink)
            taken.append(time.perf_counter_ns() - start)
    return [int(statistics.median(taken)) for taken in times]


def race_side_by_side(
    models: Sequence[LoadedModel], signature: int, inputs: Sequence[Array], lanes: int, seconds: float
) -> list[int]:
    """The median nanoseconds from answer to answer of each model when this many threads call it at once: in turns, as
    in `race`.
    """
    given = raw_inputs(inputs)
    sink: Any = _Discard()

    def call(model: LoadedModel, until: float) -> float:
        """How many calls a second come back to one thread."""
        start, count = time.monotonic(), 0
        while count < _TURN_CALLS or time.monotonic() < until:
            model.run(signature, given, (), sink)
            count += 1
        return count / (time.monotonic() - start)

    rates: list[list[float]] = [[] for _ in models]
    share = seconds / len(models) / _MOST_TURNS
    with ThreadPoolExecutor(lanes) as pool:
        end = time.monotonic() + seconds
        # In the first turn engines make what they need for calls side by side.
        while len(rates[0]) < 2 or (len(rates[0]) < _MOST_TURNS and time.monotonic() < end):
            for model, taken in zip(models, rates, strict=True):
                until = time.monotonic() + share
                taken.append(sum(pool.map(lambda _, m=model, u=until: call(m, u), range(lanes))))
    return [int(1e9 / statistics.median(taken[1:])) for taken in rates]
