"""Between the public types about scopes and the protocol's messages, in both directions."""

from __future__ import annotations

from typing import Any

from modelhost.v1 import scope_pb2

from ._errors import InvalidRequestError
from ._scope_types import ScopeConfig, ScopeInfo, ScopeMemory, ScopeOptions, ScopeStatistics
from ._wire import duration, enum_number, enum_word, optional_seconds, optional_time


def scope_config_message(options: ScopeOptions) -> scope_pb2.ScopeConfig:
    """The settings of a scope.

    Raises:
        InvalidRequestError: there is no such setting, or it cannot have this value.
    """
    try:
        values: dict[str, Any] = dict(options)
        if "load_order" in values:
            values["load_order"] = enum_number(scope_pb2.LoadOrder, "load_order", values["load_order"])
        for name in ("drain_timeout", "overrun_grace"):
            if values.get(name) is not None:
                values[name] = duration(values[name])
        return scope_pb2.ScopeConfig(**values)
    except (ValueError, TypeError) as error:
        if isinstance(error, InvalidRequestError):
            raise
        raise InvalidRequestError(f"scope settings: {error}", reason="INVALID_REQUEST") from None


def scope_info(message: scope_pb2.Scope) -> ScopeInfo:
    """A scope."""
    config, memory, statistics = message.config, message.memory, message.statistics
    load_order = config.load_order or scope_pb2.LOAD_ORDER_NEW_FIRST
    return ScopeInfo(
        scope=message.scope,
        config=ScopeConfig(
            intra_op_threads=config.intra_op_threads,
            inter_op_threads=config.inter_op_threads,
            max_in_flight=config.max_in_flight,
            max_queue=config.max_queue,
            memory_limit_bytes=config.memory_limit_bytes,
            load_order=enum_word(scope_pb2.LoadOrder, load_order, "LOAD_ORDER_"),
            drain_timeout=optional_seconds(config, "drain_timeout"),
            overrun_grace=optional_seconds(config, "overrun_grace"),
            replicas=config.replicas,
            caller_rate_limit=config.caller_rate_limit,
        ),
        worker_state=enum_word(scope_pb2.WorkerState, message.worker_state, "WORKER_STATE_"),
        model_count=message.model_count,
        memory=ScopeMemory(memory.pss_bytes, memory.private_bytes, memory.limit_bytes),
        statistics=ScopeStatistics(
            in_flight=statistics.in_flight,
            queued=statistics.queued,
            rejected_count=statistics.rejected_count,
            worker_restarts=statistics.worker_restarts,
            hit_count=statistics.hit_count,
            miss_count=statistics.miss_count,
            eviction_count=statistics.eviction_count,
            thrashing_count=statistics.thrashing_count,
        ),
        create_time=optional_time(message, "create_time"),
        serving_workers=message.serving_workers,
    )
