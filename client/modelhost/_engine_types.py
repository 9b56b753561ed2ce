"""What the client answers with about engines: plain frozen data, as in `_types`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Engine: TypeAlias = Literal["TENSORFLOW", "LITERT", "OPENVINO"]
EngineName: TypeAlias = Literal["tensorflow", "litert", "openvino"] | Engine
"""An engine as callers may write it."""

EngineOutcome: TypeAlias = Literal["CHOSEN", "SLOWER", "DIFFERENT", "REFUSED", "FAILED"]
TuningState: TypeAlias = Literal["OFF", "WAITING", "RUNNING", "DONE"]


@dataclass(frozen=True, slots=True)
class EngineTiming:
    """Median times of one execution.

    Attributes:
        batch_size: examples in the execution; None for a signature without a batch dimension.
        tensorflow_seconds: on TensorFlow.
        engine_seconds: on the engine that was tried.
    """

    batch_size: int | None
    tensorflow_seconds: float
    engine_seconds: float


@dataclass(frozen=True, slots=True)
class EngineCandidate:
    """An engine that was tried in TensorFlow's place.

    Attributes:
        outcome: CHOSEN (it serves the version), SLOWER (right, but not worth a change), DIFFERENT (its outputs are not
            TensorFlow's), REFUSED (it cannot run all that the model accepts), FAILED (it failed while it served the
            version, and TensorFlow took over).
        reason: why, in words.
        speedup: TensorFlow's time over its time, the geometric mean over `timings`; None when it was not timed.
        max_relative_difference: largest difference from TensorFlow's outputs seen, relative to the output's scale.
        timings: at each batch size tried.
        side_by_side_speedup: as `speedup`, with as many calls at once as the scope may have in flight; None when that
            was not measured.
    """

    engine: Engine
    outcome: EngineOutcome
    reason: str
    speedup: float | None
    max_relative_difference: float
    timings: tuple[EngineTiming, ...]
    side_by_side_speedup: float | None


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What serves a version, how it was loaded, and why this engine.

    Attributes:
        tuning: whether the server looks for a faster engine: OFF (it does not), WAITING (for its turn), RUNNING, or
            DONE, when `candidates` tells what it found.
        candidates: the engines that were tried in TensorFlow's place.
    """

    engine: Engine
    loader: str
    explanation: str
    tuning: TuningState = "OFF"
    candidates: tuple[EngineCandidate, ...] = ()

    @property
    def is_settled(self) -> bool:
        """Whether the engine is the one that will stay: no search for a faster one is under way or to come."""
        return self.tuning not in ("WAITING", "RUNNING")
