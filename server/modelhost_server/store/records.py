"""What the store keeps of scopes, models and versions."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from ..errors import ModelhostError
from ..tensors import SignatureSpec, VariableSpec
from .names import version_resource
from .phases import SERVED, Phase, State

_CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class ScopeConfig:
    """What a scope may use, and how it behaves; the defaults are those of `modelhost.v1.ScopeConfig`."""

    intra_op_threads: int = max(1, _CORES // 2)
    # Somebody chose this number: it is kept to, however few calls there are.
    has_chosen_threads: bool = False
    inter_op_threads: int = 1
    max_in_flight: int = _CORES
    max_queue: int = 1000
    memory_limit_bytes: int = 0
    memory_first: bool = False
    drain_timeout: float = 30.0
    overrun_grace: float | None = None
    replicas: int = 1
    # Predictions a second that one caller may ask for; 0 for no limit.
    caller_rate_limit: float = 0.0

    @property
    def alone_threads(self) -> int:
        """Threads that one operation may use while no other call runs: all that the scope's calls have together."""
        if self.has_chosen_threads:
            return self.intra_op_threads
        return min(_CORES, self.intra_op_threads * self.max_in_flight)


@dataclass(frozen=True, slots=True)
class BatchingOptions:
    """How predictions of a version run together, as in `modelhost.v1.BatchingOptions`; `mode` is "", "ON" or "OFF",
    durations are seconds.
    """

    mode: str = ""
    max_batch_size: int = 0
    max_delay: float = 0.0
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length: bool = False
    max_queue: int = 0
    queue_timeout: float = 0.0


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a version is to be loaded."""

    tags: tuple[str, ...] = ()
    engine: str = ""
    annotations: tuple[tuple[str, str], ...] = ()
    pinned: bool = False
    evictable: bool = False
    tolerance: float = 1e-4
    require_warmup: bool = False
    batching: BatchingOptions = BatchingOptions()
    # Seconds without predictions after which it is evicted; never when 0.
    idle_timeout: float = 0.0

    @property
    def may_be_evicted(self) -> bool:
        """Whether it may make room for others while it is idle."""
        return (self.evictable or self.idle_timeout > 0) and not self.pinned


class Tuning(Enum):
    """Whether a faster engine is looked for; named as in `modelhost.v1.TuningState`."""

    OFF = "OFF"
    WAITING = "WAITING"
    RUNNING = "RUNNING"
    DONE = "DONE"


class Outcome(Enum):
    """What became of an engine that was tried; named as in `modelhost.v1.EngineOutcome`."""

    CHOSEN = "CHOSEN"
    SLOWER = "SLOWER"
    DIFFERENT = "DIFFERENT"
    REFUSED = "REFUSED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An engine that was tried in TensorFlow's place. Timings are batch size, TensorFlow's and its nanoseconds; the
    speed-up side by side is 0 where it was not measured, and `alone_threads` where calls that come alone gain nothing
    from more threads.
    """

    engine: str
    outcome: Outcome
    reason: str
    speedup: float = 0.0
    side_by_side_speedup: float = 0.0
    max_relative_difference: float = 0.0
    timings: tuple[tuple[int, int, int], ...] = ()
    alone_threads: int = 0


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """What a version is to be loaded on: the engine, what was made of the version for it, if that is needed, and the
    threads for calls that come alone, if more than for others.
    """

    engine: str
    artifact: str = ""
    alone_threads: int = 0


@dataclass(slots=True)
class Statistics:
    """What has been asked of a version."""

    success_count: int = 0
    failure_count: int = 0
    failure_ns: int = 0
    queue_ns: int = 0
    run_ns: int = 0
    # In those that succeeded; and runs, each of one prediction or of a batch.
    example_count: int = 0
    run_count: int = 0
    last_used: float = 0.0
    load_ns: int = 0
    crash_count: int = 0
    # Predictions that found it in memory, and those that did not.
    hit_count: int = 0
    miss_count: int = 0
    eviction_count: int = 0
    load_count: int = 0
    total_load_ns: int = 0

    def note(self, failed: bool, queue_ns: int, run_ns: int, examples: int) -> None:
        """Notes a prediction that a caller asked for."""
        if failed:
            self.failure_count += 1
            self.failure_ns += queue_ns + run_ns
            return
        self.success_count += 1
        self.example_count += examples
        self.queue_ns += queue_ns
        self.run_ns += run_ns

    def note_load(self) -> None:
        """Notes the load that `load_ns` is of."""
        self.load_count += 1
        self.total_load_ns += self.load_ns


@dataclass(slots=True)
class Residence:
    """How often versions were in memory when predictions wanted them."""

    hit_count: int = 0
    miss_count: int = 0
    eviction_count: int = 0

    def add(self, statistics: Statistics) -> None:
        """Adds what is known of one version."""
        self.hit_count += statistics.hit_count
        self.miss_count += statistics.miss_count
        self.eviction_count += statistics.eviction_count


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a worker said of a version it loaded. `warmup` counts requests that succeeded and failed, and has the first
    error.
    """

    engine: str
    loader: str
    signatures: tuple[SignatureSpec, ...]
    variables: tuple[VariableSpec, ...]
    private_bytes: int
    # Of the private ones, those that are no file's.
    anonymous_bytes: int
    variable_bytes: int
    load_ns: int
    warmup: tuple[int, int, str]
    # Whether runs leave no trace in the model.
    is_pure: bool = False
    # What runs each signature, by its position: made when it is first asked for, gone when the version is loaded anew.
    runners: dict[int, Any] = field(default_factory=dict, compare=False)

    def signature(self, name: str) -> tuple[int, SignatureSpec] | None:
        """Position and spec of a signature; None when there is none of this name."""
        for index, spec in enumerate(self.signatures):
            if spec.name == name:
                return index, spec
        return None


@dataclass(slots=True)
class Progress:
    """Where a load stands; `stage` is named as in `modelhost.v1.LoadStage`."""

    stage: str = "WAITING"
    done: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class Description:
    """What the description of a model says of its tensors, by their names; nothing here depends on it.

    Attributes:
        formats: of inputs that are pictures, as Triton calls them.
        label_files: where the labels of an output's elements were, in the model's directory.
        labels: the labels.
    """

    formats: Mapping[str, str] = field(default_factory=dict)
    label_files: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, Sequence[bytes]] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Version:
    """One version of a model. `handles` counts the predictions that use it now; only the store changes `phase`."""

    scope: str
    model: str
    number: int
    key: int
    source: str
    path: str
    options: LoadOptions
    labels_wanted: tuple[str, ...] = ()
    keep_older: bool = False
    # Where the warm-up requests given with the load are.
    samples_file: str = ""
    # Raises ModelhostError when what a worker has loaded is not what was asked for.
    check_loaded: Callable[[Loaded], None] | None = None
    description: Description = field(default_factory=Description)
    derived_from: int = 0
    derivation: str = ""
    # Of the content of `path`; "" until it is known.
    digest: str = ""
    # Set when it is loaded for the first time.
    choice: EngineChoice | None = None
    tuning: Tuning = Tuning.OFF
    candidates: tuple[Candidate, ...] = ()
    phase: Phase = Phase.WAITING
    error: ModelhostError | None = None
    loaded: Loaded | None = None
    # Of its memory, what other versions use now, too.
    shared_bytes: int = 0
    progress: Progress = field(default_factory=Progress)
    statistics: Statistics = field(default_factory=Statistics)
    created: float = field(default_factory=time.time)
    available_since: float = 0.0
    revision: int = 0
    handles: int = 0
    # Whether it comes back when the server is started again; whether it is about to be unloaded, and must not; and
    # whether it has come back, and has not been AVAILABLE since.
    is_kept: bool = True
    is_leaving: bool = False
    is_restored: bool = False
    on_idle: Callable[[], None] | None = None
    # On the monotonic clock: before this it is not evicted for others, having just been loaded, ...
    protected_until: float = 0.0
    # ... and before this no memory is looked for again, having just been refused.
    refused_until: float = 0.0

    @property
    def state(self) -> State:
        """What callers see."""
        return self.phase.state

    @property
    def resource(self) -> str:
        """Its name in messages and errors."""
        return version_resource(self.scope, self.model, self.number)

    @property
    def has_been_served(self) -> bool:
        """Whether somebody was told that it is there: since the server was started, or before."""
        return self.available_since > 0 or self.is_restored or self.phase in SERVED

    def is_in(self, *phases: Phase) -> bool:
        """Whether the version is in one of these phases now."""
        return self.phase in phases

    def release(self) -> None:
        """Gives a handle back."""
        assert self.handles > 0, "a handle is given back once"
        self.handles -= 1
        if self.handles == 0 and self.on_idle is not None:
            self.on_idle()


@dataclass(slots=True, eq=False)
class Model:
    """A model of a scope."""

    scope: str
    name: str
    versions: dict[int, Version] = field(default_factory=dict)
    # Beside them, under numbers that are taken: what is loaded to replace one, and what was replaced and still drains.
    others: list[Version] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    # Of these, the ones that the directory of the model asks for.
    directory_labels: set[str] = field(default_factory=set)
    # What predictions that name no version use: the highest one that is served.
    serving: Version | None = None

    def others_of(self, number: int) -> list[Version]:
        """The others of this number."""
        return [other for other in self.others if other.number == number]

    def newest_first(self) -> Sequence[Version]:
        """The versions, highest number first."""
        return [self.versions[number] for number in sorted(self.versions, reverse=True)]


@dataclass(slots=True, eq=False)
class Scope:
    """A scope. `deleting` scopes take no new models."""

    name: str
    config: ScopeConfig
    models: dict[str, Model] = field(default_factory=dict)
    # Highest number that each model's versions have had while AVAILABLE; outlives the versions.
    highest: dict[str, int] = field(default_factory=dict)
    # Labels of models' versions that have not come yet: of those that a directory brings after a start.
    coming_labels: dict[str, dict[str, int]] = field(default_factory=dict)
    created: float = field(default_factory=time.time)
    deleting: bool = False
    # Whether it comes back, as it is, when the server is started again.
    is_kept: bool = True
    # Of the versions that are gone.
    past: Residence = field(default_factory=Residence)
    # Predictions that were refused for THRASHING.
    thrashing_count: int = 0

    def residence(self) -> Residence:
        """Of all versions, those that are gone included."""
        total = replace(self.past)
        for version in self.versions():
            total.add(version.statistics)
        return total

    def versions(self) -> list[Version]:
        """All versions of all models, whoever may see them: all that workers may hold."""
        return [version for model in self.models.values() for version in (*model.versions.values(), *model.others)]
