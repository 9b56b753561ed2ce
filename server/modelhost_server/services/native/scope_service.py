"""ScopeService of modelhost.v1."""

from __future__ import annotations

from dataclasses import replace

from google.protobuf.duration_pb2 import Duration
from modelhost.v1 import scope_pb2
from modelhost.v1 import scope_service_pb2 as pb

from ...errors import ModelhostError, Reason, brief
from ...hosting.host import Host
from ...store.records import ScopeConfig
from ..call import Call
from .messages import scope_message

_MAX_COUNT = {
    "intra_op_threads": 1024, "inter_op_threads": 1024, "max_in_flight": 1024, "max_queue": 1_000_000, "replicas": 64,
}  # fmt: skip
_MIN_RATE, _MAX_RATE = 0.001, 1e6
_DURATIONS = {"drain_timeout": 3600.0, "overrun_grace": 3600.0}
_FIELDS = [field.name for field in scope_pb2.ScopeConfig.DESCRIPTOR.fields]


class ScopeService:
    """Creates, changes and deletes scopes."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def create_scope(self, request: pb.CreateScopeRequest, call: Call) -> pb.CreateScopeResponse:
        """Creates a scope and starts its workers."""
        self._host.draining.check_accepting()
        config = _merged(self._host.scope_defaults, self._host.scope_defaults, request.config, _FIELDS)
        scope = await self._host.scopes.create(request.scope, config, request.allow_existing)
        return pb.CreateScopeResponse(scope=await scope_message(self._host.keepers.of(scope.name)))

    async def get_scope(self, request: pb.GetScopeRequest, call: Call) -> pb.GetScopeResponse:
        """Describes a scope."""
        name = self._host.store.scope(request.scope).name
        return pb.GetScopeResponse(scope=await scope_message(self._host.keepers.of(name)))

    async def list_scopes(self, request: pb.ListScopesRequest, call: Call) -> pb.ListScopesResponse:
        """Lists scopes by name."""
        scopes, token = self._host.store.scopes(request.page_size, request.page_token, call.sees)
        return pb.ListScopesResponse(
            scopes=[await scope_message(self._host.keepers.of(scope.name)) for scope in scopes], next_page_token=token
        )

    async def update_scope(self, request: pb.UpdateScopeRequest, call: Call) -> pb.UpdateScopeResponse:
        """Changes a scope's configuration."""
        self._host.draining.check_accepting()
        paths = list(request.update_mask.paths) or _FIELDS
        for path in paths:
            if path not in _FIELDS:
                raise ModelhostError(
                    Reason.INVALID_REQUEST,
                    f"update_mask: expected fields of ScopeConfig ({', '.join(_FIELDS)}); got {brief(path)}",
                    field="update_mask",
                )
        current = self._host.store.scope(request.scope)
        config = _merged(current.config, self._host.scope_defaults, request.config, paths)
        scope = await self._host.scopes.update(current.name, config)
        return pb.UpdateScopeResponse(scope=await scope_message(self._host.keepers.of(scope.name)))

    async def delete_scope(self, request: pb.DeleteScopeRequest, call: Call) -> pb.DeleteScopeResponse:
        """Deletes a scope and ends its workers."""
        try:
            await self._host.scopes.delete(request.scope, request.force)
        except ModelhostError as error:
            if not (request.allow_missing and error.reason is Reason.SCOPE_NOT_FOUND):
                raise
        return pb.DeleteScopeResponse()


def _merged(
    current: ScopeConfig, defaults: ScopeConfig, message: scope_pb2.ScopeConfig, fields: list[str]
) -> ScopeConfig:
    """`current` with these fields taken from the message; where that has zero, from the defaults.

    Raises:
        ModelhostError: INVALID_REQUEST.
    """
    changes: dict[str, object] = {}
    for name in fields:
        if name in _MAX_COUNT:
            value = getattr(message, name)
            if not 0 <= value <= _MAX_COUNT[name]:
                raise _out_of_range(name, f"0 (the default) to {_MAX_COUNT[name]}", value)
            changes[name] = value or getattr(defaults, name)
        elif name in _DURATIONS:
            changes[name] = _seconds(name, message, _DURATIONS[name], getattr(defaults, name))
    if "intra_op_threads" in fields:
        changes["has_chosen_threads"] = bool(message.intra_op_threads) or defaults.has_chosen_threads
    if "caller_rate_limit" in fields:
        rate = message.caller_rate_limit
        if not (rate == 0 or _MIN_RATE <= rate <= _MAX_RATE):
            raise _out_of_range("caller_rate_limit", f"0 (the default) or {_MIN_RATE} to {_MAX_RATE:.0f}", rate)
        changes["caller_rate_limit"] = rate or defaults.caller_rate_limit
    if "load_order" in fields:
        changes["memory_first"] = message.load_order == scope_pb2.LOAD_ORDER_MEMORY_FIRST
    if "memory_limit_bytes" in fields:
        if message.memory_limit_bytes < 0:
            raise _out_of_range("memory_limit_bytes", "0 (no limit) or more", message.memory_limit_bytes)
        changes["memory_limit_bytes"] = message.memory_limit_bytes
    return replace(current, **changes)  # type: ignore[arg-type]


def _seconds(name: str, message: scope_pb2.ScopeConfig, limit: float, default: float | None) -> float | None:
    if not message.HasField(name):  # type: ignore[arg-type]
        return default
    duration: Duration = getattr(message, name)
    value = duration.seconds + duration.nanos / 1e9
    if not 0 <= value <= limit:
        raise _out_of_range(name, f"0 (the default) to {limit:.0f} s", f"{value} s")
    return value or default


def _out_of_range(name: str, expected: str, got: object) -> ModelhostError:
    return ModelhostError(
        Reason.INVALID_REQUEST, f"config.{name}: expected {expected}; got {got}", field=f"config.{name}"
    )
