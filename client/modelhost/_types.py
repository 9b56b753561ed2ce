"""What the client answers with and takes: plain frozen data, no protobuf.

Sizes are in bytes, durations in seconds, times in UTC. States and the like are words in capitals, as in the protocol.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Final, Literal, TypeAlias

from numpy.typing import ArrayLike, NDArray

from ._batching_types import Batching, SignatureBatching
from ._engine_types import Engine, EngineInfo, EngineName
from ._errors import ModelhostError

VersionState: TypeAlias = Literal["LOADING", "AVAILABLE", "UNLOADING", "UNLOADED", "FAILED", "EVICTED"]
LoadStage: TypeAlias = Literal["HASHING", "UPLOADING", "WAITING", "FETCHING", "CONVERTING", "READING", "WARMING"]
WatchEventType: TypeAlias = Literal["EXISTING", "SYNCED", "CHANGED", "PROGRESS"]

Inputs: TypeAlias = Mapping[str, ArrayLike] | ArrayLike
"""Arrays by input name, or one array for a model that needs a single input."""


DEFAULT_TIMEOUT: Final = 60.0


class _Default(Enum):
    CLIENT_TIMEOUT = "the client's own timeout"


CLIENT_TIMEOUT: Final = _Default.CLIENT_TIMEOUT
Timeout: TypeAlias = float | Literal[_Default.CLIENT_TIMEOUT] | None
"""Seconds a call may take; None is no limit, CLIENT_TIMEOUT what the client was made with."""


Metadata: TypeAlias = tuple[tuple[str, str], ...]


class Prediction(dict[str, NDArray[Any]]):
    """Outputs by name, and the version that answered.

    Numeric outputs are read-only views of the bytes received (copy them to write to them); string outputs are object
    arrays of `bytes`.

    Attributes:
        version: number of the version that answered.
    """

    def __init__(self, outputs: Mapping[str, NDArray[Any]], version: int) -> None:
        super().__init__(outputs)
        self.version = version


@dataclass(frozen=True, slots=True)
class Sample:
    """Inputs given as an example, for a signature other than the usual one if it is named."""

    inputs: Inputs
    signature: str = ""


@dataclass(frozen=True, slots=True)
class PredictTarget:
    """One of the models of `predict_many`, where a name alone does not say enough."""

    model: str
    signature: str = ""
    version: int | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class PredictItem:
    """One prediction of a stream: the arguments of `predict`."""

    model: str
    inputs: Inputs
    signature: str = ""
    version: int | None = None
    label: str | None = None
    outputs: Sequence[str] | None = None
    priority: int = 0


StreamRequest: TypeAlias = PredictItem | tuple[str, Inputs]
"""One prediction of a stream; a plain `(model, inputs)` will do."""


@dataclass(frozen=True, slots=True)
class StreamResult:
    """The answer to one prediction of a stream: either `prediction` or `error` is set.

    Attributes:
        index: position of the request in what was given to `predict_stream`, from 0.
    """

    index: int
    prediction: Prediction | None = None
    error: ModelhostError | None = None

    def unwrap(self) -> Prediction:
        """The prediction.

        Raises:
            ModelhostError: the prediction failed.
        """
        if self.prediction is None:
            raise self.error or ModelhostError("the server sent an answer without an outcome")
        return self.prediction


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a signature says of an input or output.

    Attributes:
        dtype: numpy's name of the dtype, or "string".
        shape: extents, None where any is accepted; None when not even the rank is fixed.
        optional: the input may be left out, because the model has a default for it.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    optional: bool = False

    def __str__(self) -> str:
        return f"{self.dtype} {format_shape(self.shape)}"


@dataclass(frozen=True, slots=True)
class SignatureInfo:
    """A named callable of a model, with its inputs and outputs by name."""

    name: str
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
    method_name: str = ""


@dataclass(frozen=True, slots=True)
class VariableInfo:
    """A variable of a model; `byte_size` is 0 when its shape is not fixed."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    byte_size: int


@dataclass(frozen=True, slots=True)
class VersionMemory:
    """Measured memory of a version, in bytes: its own, shared with other versions, and of its variables."""

    private_bytes: int
    shared_bytes: int
    variable_bytes: int


@dataclass(frozen=True, slots=True)
class Warmup:
    """How many of the requests that a version was warmed up with succeeded and failed, and why the first failed."""

    success_count: int
    failure_count: int
    first_error: str


@dataclass(frozen=True, slots=True)
class VersionStatistics:
    """What has been asked of a version; times are sums over all answered predictions, but `load_seconds`.

    Attributes:
        load_seconds: duration of its last load.
        hit_count: predictions that found it in memory.
        miss_count: predictions that had to wait until it was loaded again.
        eviction_count: times it was evicted.
        load_count: times it was loaded, in `total_load_seconds` altogether.
    """

    success_count: int
    failure_count: int
    in_flight: int
    queue_seconds: float
    run_seconds: float
    load_seconds: float
    crash_count: int
    last_used_time: datetime | None
    hit_count: int
    miss_count: int
    eviction_count: int
    load_count: int
    total_load_seconds: float


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """Where a load or an upload stands: `fraction` of the whole done, from 0 to 1, and bytes of weights that were read,
    fetched or sent.

    `bytes_total` is 0 while it is unknown. The stages HASHING and UPLOADING are an upload's.
    """

    stage: LoadStage
    fraction: float
    bytes_done: int
    bytes_total: int


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One version of a model.

    Attributes:
        error: why it is FAILED, why its last recovery was needed, or why it could not be loaded again after it was
            EVICTED.
        idle_timeout: seconds without predictions after which it is evicted; None for never.
        engine: what serves it; None until it has been AVAILABLE once.
        warmup: how its warm-up went; None until it has been AVAILABLE once.
        signatures: by name; empty in lists.
        variables: empty unless they were asked for.
        requested_engine: the engine that its load asked for; None when the server chooses.
        tolerance: largest difference from TensorFlow's outputs that another engine's may show, relative to the
            output's scale.
        requested_batching: how its load asked for predictions to run together.
        batching: how they do, by signature; empty in lists.
        require_warmup: its load fails when a warm-up request fails.
        derived_from: number of the version it was made from, when the server made it.
        derivation: how it was made from that one, e.g. "dynamic_int8".
        revision: revision of the server's records at which it last changed.
    """

    scope: str
    model: str
    version: int
    state: VersionState
    source: str
    tags: tuple[str, ...]
    pinned: bool
    evictable: bool
    idle_timeout: float | None
    annotations: Mapping[str, str]
    requested_engine: Engine | None
    tolerance: float
    require_warmup: bool
    requested_batching: Batching
    error: ModelhostError | None
    engine: EngineInfo | None
    warmup: Warmup | None
    signatures: Mapping[str, SignatureInfo]
    batching: Mapping[str, SignatureBatching]
    variables: tuple[VariableInfo, ...]
    memory: VersionMemory
    statistics: VersionStatistics
    progress: LoadProgress | None
    create_time: datetime | None
    available_time: datetime | None
    derived_from: int | None
    derivation: str
    revision: int


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model of a scope, its versions, newest first, and what its labels stand for."""

    scope: str
    model: str
    versions: tuple[VersionInfo, ...]
    labels: Mapping[str, int]

    @property
    def served(self) -> VersionInfo | None:
        """The version that answers predictions which name none: the highest that is AVAILABLE, or EVICTED and loaded
        again for them.
        """
        served = [version for version in self.versions if version.state in ("AVAILABLE", "EVICTED")]
        return max(served, key=lambda version: version.version, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSpec:
    """One version to load: the arguments of `load`."""

    model: str
    source: str | os.PathLike[str]
    version: int | None = None
    tags: Sequence[str] = ()
    labels: Sequence[str] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    engine: EngineName | None = None
    tolerance: float | None = None
    require_warmup: bool = False
    batching: Batching | None = None
    warmup: Sequence[Sample | Mapping[str, ArrayLike]] = ()
    keep_older: bool = False
    pinned: bool = False
    evictable: bool = False
    idle_timeout: float | None = None


@dataclass(frozen=True, slots=True)
class LoadUpdate:
    """News of one of several loads: one of `progress`, `version` (it succeeded) and `error` (it failed) is set.

    Attributes:
        index: position of the load in what was given to `load_many`, from 0.
        finished: loads finished so far, well or not, of `total`.
    """

    index: int
    progress: LoadProgress | None
    version: VersionInfo | None
    error: ModelhostError | None
    finished: int
    total: int


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """A message of a watch.

    Attributes:
        type: EXISTING (a version as it was when the watch began), SYNCED (all of those have been told), CHANGED, or
            PROGRESS (of a load).
        revision: of the server's records after the change; a later watch may go on from it.
        version: the version after the change; None in SYNCED.
        labels: the model's labels after the change.
    """

    type: WatchEventType
    revision: int
    version: VersionInfo | None
    labels: Mapping[str, int]


def format_shape(shape: Sequence[int | None] | None) -> str:
    """A shape for people: "[?, 3]"."""
    return "any shape" if shape is None else "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"
