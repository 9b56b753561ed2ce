"""What the client takes and answers with about optimizations: plain frozen data, as in `_types`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

from ._engine_types import Engine
from ._types import VersionInfo

OptimizationStage: TypeAlias = Literal["WAITING", "CONVERTING", "COMPARING", "LOADING"]


class OptimizationMethod(StrEnum):
    """What `optimize` can do to a model; the plain words do as well as the members.

    Attributes:
        DYNAMIC_INT8: weights become int8, activations are quantized while running. Needs no samples.
        FLOAT16: weights become float16, the computation stays in float32. Needs no samples.
        FULL_INT8: weights and activations become int8. Needs samples, which it is calibrated with.
        WEIGHT_ONLY_INT8: weights become int8 and are widened for the computation. Needs no samples.
        PRUNE: the smallest weights of each layer become zero. Needs a sparsity.
    """

    DYNAMIC_INT8 = "dynamic_int8"
    FLOAT16 = "float16"
    FULL_INT8 = "full_int8"
    WEIGHT_ONLY_INT8 = "weight_only_int8"
    PRUNE = "prune"


@dataclass(frozen=True, slots=True)
class OptimizationProgress:
    """Where an optimization stands: `fraction` of the whole done, from 0 to 1."""

    stage: OptimizationStage
    fraction: float


@dataclass(frozen=True, slots=True)
class OptimizationMeasure:
    """A version, measured.

    Attributes:
        engine: what ran it.
        disk_bytes: size on disk.
        compressed_bytes: size on disk, compressed by gzip.
        private_bytes: growth of a process's private memory by loading it and running it once.
        latency_seconds: median time of one execution.
        batch_size: examples in that execution; None for a signature without a batch dimension.
        accuracy: share of examples whose class is right; None without true classes.
        zero_share: share of the weights that are zero.
    """

    engine: Engine
    disk_bytes: int
    compressed_bytes: int
    private_bytes: int
    latency_seconds: float
    batch_size: int | None
    accuracy: float | None
    zero_share: float


@dataclass(frozen=True, slots=True)
class OutputDrift:
    """How far an output of the new version is from the original's, relative to the output's scale.

    Attributes:
        argmax_agreement: share of rows whose largest element is in the same place; None for outputs that do not look
            like classes.
    """

    signature: str
    output: str
    max_relative_difference: float
    mean_relative_difference: float
    argmax_agreement: float | None


@dataclass(frozen=True, slots=True)
class OptimizationReport:
    """What an optimization gave.

    Attributes:
        version: the new version.
        original_version: number of the version it was made from.
        method: what was done, in words.
        original: the original, measured.
        optimized: the new version, measured in the same way.
        drift: for each output of each signature.
        example_count: examples that the two were compared on.
        examples_made_up: the server made those up, so that the drift says little about real inputs.
        remarks: what to know about it, e.g. that nothing was gained.
    """

    version: VersionInfo
    original_version: int
    method: str
    original: OptimizationMeasure
    optimized: OptimizationMeasure
    drift: tuple[OutputDrift, ...]
    example_count: int
    examples_made_up: bool
    remarks: tuple[str, ...]
