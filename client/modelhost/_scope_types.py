"""What the client answers with and takes about scopes: plain frozen data, as in `_types`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias, TypedDict

LoadOrder: TypeAlias = Literal["NEW_FIRST", "MEMORY_FIRST"]
WorkerState: TypeAlias = Literal["IDLE", "STARTING", "READY", "BACKOFF"]


@dataclass(frozen=True, slots=True)
class ScopeConfig:
    """What a scope may use, and how it behaves; as answered by the server, the values in force.

    Attributes:
        intra_op_threads: threads that one operation of a model may use.
        inter_op_threads: threads that run operations of one prediction side by side.
        max_in_flight: predictions that run at the same time in each worker.
        max_queue: predictions that may wait for their turn.
        memory_limit_bytes: of all its workers; unlimited when 0.
        load_order: NEW_FIRST leaves no gap; MEMORY_FIRST never has both versions in memory.
        drain_timeout: seconds that predictions get to finish when their version is unloaded.
        overrun_grace: seconds after its deadline at which a prediction that still runs has the worker replaced; None
            for never.
        replicas: identical workers.
        caller_rate_limit: predictions a second that one caller may ask for; unlimited when 0.
    """

    intra_op_threads: int
    inter_op_threads: int
    max_in_flight: int
    max_queue: int
    memory_limit_bytes: int
    load_order: LoadOrder
    drain_timeout: float | None
    overrun_grace: float | None
    replicas: int
    caller_rate_limit: float


class ScopeOptions(TypedDict, total=False):
    """Settings of a scope that a caller may choose; 0 or None is the server's default. Meanings as in ScopeConfig."""

    intra_op_threads: int
    inter_op_threads: int
    max_in_flight: int
    max_queue: int
    memory_limit_bytes: int
    load_order: LoadOrder | None
    drain_timeout: float | None
    overrun_grace: float | None
    replicas: int
    caller_rate_limit: float


@dataclass(frozen=True, slots=True)
class ScopeMemory:
    """Measured memory of a scope's workers, in bytes; `limit_bytes` is 0 when there is no limit.

    `pss_bytes` counts memory shared with other processes by a fair share, `private_bytes` leaves it out.
    """

    pss_bytes: int
    private_bytes: int
    limit_bytes: int


@dataclass(frozen=True, slots=True)
class ScopeStatistics:
    """Predictions running and waiting now, and how often the queue was full or a worker died so far.

    Attributes:
        hit_count: predictions that found their version in memory.
        miss_count: predictions that had to wait until their version was loaded again.
        eviction_count: times that versions were evicted.
        thrashing_count: predictions refused because others would have been evicted that had just been loaded.
    """

    in_flight: int
    queued: int
    rejected_count: int
    worker_restarts: int
    hit_count: int
    miss_count: int
    eviction_count: int
    thrashing_count: int


@dataclass(frozen=True, slots=True)
class ScopeInfo:
    """A scope: an isolation domain that owns models; `serving_workers` are those that serve now."""

    scope: str
    config: ScopeConfig
    worker_state: WorkerState
    model_count: int
    memory: ScopeMemory
    statistics: ScopeStatistics
    create_time: datetime | None
    serving_workers: int
