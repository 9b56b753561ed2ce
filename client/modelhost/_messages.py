"""Between the public types and the protocol's messages, in both directions; the one place that knows both."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from modelhost.v1 import model_pb2, model_service_pb2, prediction_service_pb2, scope_pb2, tensor_pb2

from . import _errors, _tensors
from ._errors import InvalidRequestError
from ._names import ModelRef, check_name, parse_model
from ._types import (
    EngineInfo,
    LoadProgress,
    LoadSpec,
    LoadUpdate,
    ModelInfo,
    Prediction,
    ScopeConfig,
    ScopeInfo,
    ScopeMemory,
    ScopeOptions,
    ScopeStatistics,
    SignatureInfo,
    StreamResult,
    TensorInfo,
    VariableInfo,
    VersionInfo,
    VersionMemory,
    VersionStatistics,
    WatchEvent,
)

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


# To messages


def predict_request(
    ref: ModelRef, tensors: Mapping[str, tensor_pb2.Tensor], signature: str, outputs: Any
) -> prediction_service_pb2.PredictRequest:
    """What to run: `tensors` through `signature` of the version that `ref` means."""
    return prediction_service_pb2.PredictRequest(
        scope=ref.scope,
        model=ref.model,
        signature=signature,
        inputs=tensors,
        output_filter=outputs,
        **_choice(ref),
    )


def stream_request(
    index: int, request: prediction_service_pb2.PredictRequest, timeout: float | None
) -> prediction_service_pb2.PredictStreamRequest:
    """A prediction of a stream; `index` comes back with the answer."""
    return prediction_service_pb2.PredictStreamRequest(
        id=index, request=request, timeout=None if timeout is None else duration(timeout)
    )


def load_request(spec: LoadSpec, wait: bool) -> model_service_pb2.LoadModelRequest:
    """What to load, recognisable when it is sent again.

    Raises:
        InvalidRequestError: a name breaks the rules, or an option is unknown.
    """
    ref = parse_model(spec.model, spec.version)
    if ref.label:
        raise InvalidRequestError(
            f"model: a label does not say which number to load; pass labels=[{ref.label!r}] instead of '@{ref.label}'",
            reason="INVALID_REQUEST",
        )
    return model_service_pb2.LoadModelRequest(
        scope=ref.scope,
        model=ref.model,
        version=ref.version,
        source=_source(spec.source),
        options=model_pb2.LoadOptions(
            tags=spec.tags,
            engine=_number(model_pb2.Engine, "engine", spec.engine),
            annotations=spec.annotations,
            pinned=spec.pinned,
            evictable=spec.evictable,
        ),
        labels=[check_name("label", label) for label in spec.labels],
        keep_older=spec.keep_older,
        no_wait=not wait,
        request_id=str(uuid.uuid4()),
    )


def unload_request(ref: ModelRef, missing_ok: bool, wait: bool) -> model_service_pb2.UnloadModelRequest:
    """What to unload: the version that `ref` means, or every version."""
    return model_service_pb2.UnloadModelRequest(
        scope=ref.scope,
        model=ref.model,
        allow_missing=missing_ok,
        no_wait=not wait,
        request_id=str(uuid.uuid4()),
        **(_choice(ref) or {"all_versions": True}),
    )


def scope_config_message(options: ScopeOptions) -> scope_pb2.ScopeConfig:
    """The settings of a scope.

    Raises:
        InvalidRequestError: there is no such setting, or it cannot have this value.
    """
    try:
        values: dict[str, Any] = dict(options)
        if "load_order" in values:
            values["load_order"] = _number(scope_pb2.LoadOrder, "load_order", values["load_order"], "LOAD_ORDER_")
        for name in ("drain_timeout", "overrun_grace"):
            if values.get(name) is not None:
                values[name] = duration(values[name])
        return scope_pb2.ScopeConfig(**values)
    except (ValueError, TypeError) as error:
        if isinstance(error, InvalidRequestError):
            raise
        raise InvalidRequestError(f"scope settings: {error}", reason="INVALID_REQUEST") from None


def duration(seconds: float) -> Duration:
    """Seconds as a message."""
    message = Duration()
    message.FromNanoseconds(int(seconds * 1e9))
    return message


def _choice(ref: ModelRef) -> dict[str, Any]:
    if ref.version:
        return {"version": ref.version}
    return {"label": ref.label} if ref.label else {}


def _source(source: str | os.PathLike[str]) -> str:
    path = os.fspath(source)
    # A path is one of the server's machine. A relative one that exists here can only mean that they share the disk.
    return os.path.abspath(path) if not _SCHEME.match(path) and os.path.exists(path) else path


def _number(enum: Any, field: str, word: str | None, prefix: str | None = None) -> Any:
    prefix = prefix or f"{field.upper()}_"
    if word is None:
        return 0
    known = {name.removeprefix(prefix): number for name, number in enum.items() if number}
    if word not in known:
        raise InvalidRequestError(
            f"{field}: expected one of {', '.join(known)}; got {word!r}", reason="INVALID_REQUEST"
        )
    return known[word]


# From messages


def prediction(message: prediction_service_pb2.PredictResponse) -> Prediction:
    """The outputs of a prediction, and the version that answered."""
    outputs = {name: _tensors.from_message(message.outputs[name]) for name in sorted(message.outputs)}
    return Prediction(outputs, message.version)


def stream_result(message: prediction_service_pb2.PredictStreamResponse) -> StreamResult:
    """The answer to a prediction of a stream."""
    if message.HasField("error"):
        return StreamResult(message.id, error=_errors.from_message(message.error))
    return StreamResult(message.id, prediction=prediction(message.response))


def model_info(message: model_pb2.Model) -> ModelInfo:
    """A model."""
    versions = tuple(version_info(message.scope, message.model, version) for version in message.versions)
    return ModelInfo(message.scope, message.model, versions, dict(message.labels))


def version_info(scope: str, model: str, message: model_pb2.Version) -> VersionInfo:
    """A version of a model."""
    statistics = message.statistics
    return VersionInfo(
        scope=scope,
        model=model,
        version=message.version,
        state=_word(model_pb2.VersionState, message.state, "VERSION_STATE_"),
        source=message.source,
        tags=tuple(message.options.tags),
        pinned=message.options.pinned,
        evictable=message.options.evictable,
        annotations=dict(message.options.annotations),
        error=_errors.from_message(message.error) if message.HasField("error") else None,
        engine=_engine_info(message.engine) if message.HasField("engine") else None,
        signatures={signature.name: _signature_info(signature) for signature in message.signatures},
        variables=tuple(
            VariableInfo(v.name, _tensors.dtype_name(v.dtype), _shape(v.shape), v.byte_size) for v in message.variables
        ),
        memory=VersionMemory(message.memory.private_bytes, message.memory.shared_bytes, message.memory.variable_bytes),
        statistics=VersionStatistics(
            success_count=statistics.success_count,
            failure_count=statistics.failure_count,
            in_flight=statistics.in_flight,
            queue_seconds=statistics.queue_ns / 1e9,
            run_seconds=statistics.run_ns / 1e9,
            load_seconds=statistics.load_ns / 1e9,
            crash_count=statistics.crash_count,
            last_used_time=_time(statistics, "last_used_time"),
        ),
        progress=load_progress(message.progress) if message.HasField("progress") else None,
        create_time=_time(message, "create_time"),
        available_time=_time(message, "available_time"),
        derived_from=message.derived_from or None,
        revision=message.revision,
    )


def load_progress(message: model_pb2.LoadProgress) -> LoadProgress:
    """Where a load stands."""
    stage = _word(model_pb2.LoadStage, message.stage, "LOAD_STAGE_")
    return LoadProgress(stage, message.fraction, message.bytes_done, message.bytes_total)


def load_update(message: model_service_pb2.LoadModelsResponse) -> LoadUpdate:
    """News of one of several loads."""
    loaded = message.loaded
    return LoadUpdate(
        index=message.index,
        progress=load_progress(message.progress) if message.HasField("progress") else None,
        version=version_info(loaded.scope, loaded.model, loaded.version) if message.HasField("loaded") else None,
        error=_errors.from_message(message.error) if message.HasField("error") else None,
        finished=message.finished_count,
        total=message.total_count,
    )


def watch_event(message: model_service_pb2.WatchModelsResponse) -> WatchEvent:
    """A message of a watch."""
    has_version = message.HasField("version")
    return WatchEvent(
        type=_word(model_service_pb2.WatchEventType, message.type, "WATCH_EVENT_TYPE_"),
        revision=message.revision,
        version=version_info(message.scope, message.model, message.version) if has_version else None,
        labels=dict(message.labels),
    )


def scope_info(message: scope_pb2.Scope) -> ScopeInfo:
    """A scope."""
    config, memory, statistics = message.config, message.memory, message.statistics
    return ScopeInfo(
        scope=message.scope,
        config=ScopeConfig(
            intra_op_threads=config.intra_op_threads,
            inter_op_threads=config.inter_op_threads,
            max_in_flight=config.max_in_flight,
            max_queue=config.max_queue,
            memory_limit_bytes=config.memory_limit_bytes,
            load_order=_word(scope_pb2.LoadOrder, config.load_order or scope_pb2.LOAD_ORDER_NEW_FIRST, "LOAD_ORDER_"),
            drain_timeout=_seconds(config, "drain_timeout"),
            overrun_grace=_seconds(config, "overrun_grace"),
            replicas=config.replicas,
        ),
        worker_state=_word(scope_pb2.WorkerState, message.worker_state, "WORKER_STATE_"),
        model_count=message.model_count,
        memory=ScopeMemory(memory.pss_bytes, memory.private_bytes, memory.limit_bytes),
        statistics=ScopeStatistics(
            statistics.in_flight, statistics.queued, statistics.rejected_count, statistics.worker_restarts
        ),
        create_time=_time(message, "create_time"),
    )


def _engine_info(message: model_pb2.EngineInfo) -> EngineInfo:
    return EngineInfo(_word(model_pb2.Engine, message.engine, "ENGINE_"), message.loader, message.explanation)


def _signature_info(message: model_pb2.Signature) -> SignatureInfo:
    return SignatureInfo(
        name=message.name,
        inputs={spec.name: _tensor_info(spec) for spec in message.inputs},
        outputs={spec.name: _tensor_info(spec) for spec in message.outputs},
        method_name=message.method_name,
    )


def _tensor_info(message: tensor_pb2.TensorSpec) -> TensorInfo:
    shape = None if message.unknown_rank else _shape(message.shape)
    return TensorInfo(message.name, _tensors.dtype_name(message.dtype), shape, message.optional)


def _shape(extents: Any) -> tuple[int | None, ...]:
    return tuple(None if extent < 0 else extent for extent in extents)


def _word(enum: Any, number: int, prefix: str) -> Any:
    """The word for an enum's number; the number itself when a newer server sends one unknown here."""
    return enum.Name(number).removeprefix(prefix) if number in enum.values() else str(number)


def _time(message: Message, field: str) -> datetime | None:
    return getattr(message, field).ToDatetime(tzinfo=UTC) if message.HasField(field) else None


def _seconds(message: Message, field: str) -> float | None:
    return getattr(message, field).ToNanoseconds() / 1e9 if message.HasField(field) else None
