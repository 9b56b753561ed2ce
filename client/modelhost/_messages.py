"""Between the public types and the protocol's messages, in both directions. Only `_*messages.py` know both."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from modelhost.v1 import model_pb2, model_service_pb2, prediction_service_pb2, tensor_pb2

from . import _errors, _tensors
from ._batching_messages import batching, batching_message, signature_batching
from ._engine_types import EngineCandidate, EngineInfo, EngineTiming
from ._errors import InvalidInputError, InvalidRequestError, ModelhostError
from ._names import ModelRef, check_name, parse_model, version_choice
from ._shared_memory import Exchange
from ._signatures import needs_signature, to_arrays
from ._types import (
    LoadProgress,
    LoadSpec,
    LoadUpdate,
    ModelInfo,
    Prediction,
    Sample,
    SignatureInfo,
    TensorInfo,
    VariableInfo,
    VersionInfo,
    VersionMemory,
    VersionStatistics,
    Warmup,
    WatchEvent,
)
from ._wire import duration, enum_number, enum_word, optional_seconds, optional_time, server_path

# To messages


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
        source=server_path(spec.source),
        options=model_pb2.LoadOptions(
            tags=spec.tags,
            engine=enum_number(model_pb2.Engine, "engine", spec.engine),
            tolerance=_tolerance(spec.tolerance),
            require_warmup=spec.require_warmup,
            annotations=spec.annotations,
            pinned=spec.pinned,
            evictable=spec.evictable,
            batching=batching_message(spec.batching),
            idle_timeout=None if spec.idle_timeout is None else duration(spec.idle_timeout),
        ),
        labels=[check_name("label", label) for label in spec.labels],
        keep_older=spec.keep_older,
        no_wait=not wait,
        request_id=str(uuid.uuid4()),
        warmup=[_warmup_message(place, sample) for place, sample in enumerate(spec.warmup)],
    )


def unload_request(ref: ModelRef, missing_ok: bool, wait: bool) -> model_service_pb2.UnloadModelRequest:
    """What to unload: the version that `ref` means, or every version."""
    return model_service_pb2.UnloadModelRequest(
        scope=ref.scope,
        model=ref.model,
        allow_missing=missing_ok,
        no_wait=not wait,
        request_id=str(uuid.uuid4()),
        **(version_choice(ref) or {"all_versions": True}),
    )


def labels_request(
    ref: ModelRef, labels: Mapping[str, int], remove: Sequence[str]
) -> model_service_pb2.SetLabelsRequest:
    """Which labels to put on which versions, and which to take off.

    Raises:
        InvalidRequestError: a name breaks the rules, or a number cannot be a version's.
    """
    if ref.version or ref.label:
        raise InvalidRequestError(
            f"model: expected a model without a version, as the labels say which ones; got '{ref}'",
            reason="INVALID_REQUEST",
        )
    for label, version in labels.items():
        check_name("label", label)
        if not 0 < version < 1 << 63:
            raise InvalidRequestError(
                f"labels: expected the number of a version, greater than 0, for {label!r}; got {version}",
                reason="INVALID_REQUEST",
            )
    return model_service_pb2.SetLabelsRequest(
        scope=ref.scope, model=ref.model, labels=labels, remove=[check_name("label", label) for label in remove]
    )


def _tolerance(tolerance: float | None) -> float:
    if tolerance is None:
        return 0.0
    # 0 is the default on the wire, which is not what somebody who writes 0 wants.
    if not 0 < tolerance <= 1:
        raise InvalidRequestError(
            f"tolerance: expected a number above 0, at most 1; got {tolerance}", reason="INVALID_REQUEST"
        )
    return tolerance


def _warmup_message(place: int, given: Any) -> model_pb2.Sample:
    sample = given if isinstance(given, Sample) else Sample(given)
    if needs_signature(sample.inputs):
        raise InvalidInputError(
            f"warmup[{place}]: expected arrays by input name, because a model's signature is not known before it is "
            "loaded: {'x': np.zeros((1, 3), np.float32)}",
            reason="INPUT_MALFORMED",
        )
    return sample_message(sample.signature, to_arrays(sample.inputs, None))


def sample_message(signature: str, arrays: Mapping[str, NDArray[Any]]) -> model_pb2.Sample:
    """Inputs given as an example, for `signature`."""
    return model_pb2.Sample(
        signature=signature, inputs={name: _tensors.to_message(array, name) for name, array in arrays.items()}
    )


# From messages


def prediction(message: prediction_service_pb2.PredictResponse, exchange: Exchange | None = None) -> Prediction:
    """The outputs of a prediction, and the version that answered."""
    outputs = {name: _output(name, message.outputs[name], exchange) for name in sorted(message.outputs)}
    return Prediction(outputs, message.version)


def _output(name: str, tensor: tensor_pb2.Tensor, exchange: Exchange | None) -> NDArray[Any]:
    if exchange is not None and tensor.HasField("shared_memory"):
        return exchange.take(name, tensor)
    return _tensors.from_message(tensor)


def outcome(
    message: prediction_service_pb2.PredictManyResult | prediction_service_pb2.StreamedResponse,
    exchange: Exchange | None = None,
) -> Prediction | ModelhostError:
    """What became of one prediction of several."""
    return _errors.from_message(message.error) if message.HasField("error") else prediction(message.response, exchange)


def model_info(message: model_pb2.Model) -> ModelInfo:
    """A model."""
    versions = tuple(version_info(message.scope, message.model, version) for version in message.versions)
    return ModelInfo(message.scope, message.model, versions, dict(message.labels))


def version_info(scope: str, model: str, message: model_pb2.Version) -> VersionInfo:
    """A version of a model."""
    statistics, options = message.statistics, message.options
    return VersionInfo(
        scope=scope,
        model=model,
        version=message.version,
        state=enum_word(model_pb2.VersionState, message.state, "VERSION_STATE_"),
        source=message.source,
        tags=tuple(options.tags),
        pinned=options.pinned,
        evictable=options.evictable,
        idle_timeout=optional_seconds(options, "idle_timeout"),
        annotations=dict(options.annotations),
        requested_engine=engine_word(options.engine) if options.engine else None,
        tolerance=options.tolerance,
        require_warmup=options.require_warmup,
        requested_batching=batching(options.batching),
        error=_errors.from_message(message.error) if message.HasField("error") else None,
        engine=_engine_info(message.engine) if message.HasField("engine") else None,
        warmup=_warmup(message.warmup) if message.HasField("warmup") else None,
        signatures={signature.name: _signature_info(signature) for signature in message.signatures},
        batching={item.signature: signature_batching(item) for item in message.batching},
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
            last_used_time=optional_time(statistics, "last_used_time"),
            hit_count=statistics.hit_count,
            miss_count=statistics.miss_count,
            eviction_count=statistics.eviction_count,
            load_count=statistics.load_count,
            total_load_seconds=statistics.total_load_ns / 1e9,
        ),
        progress=load_progress(message.progress) if message.HasField("progress") else None,
        create_time=optional_time(message, "create_time"),
        available_time=optional_time(message, "available_time"),
        derived_from=message.derived_from or None,
        derivation=message.derivation,
        revision=message.revision,
    )


def load_progress(message: model_pb2.LoadProgress) -> LoadProgress:
    """Where a load stands."""
    stage = enum_word(model_pb2.LoadStage, message.stage, "LOAD_STAGE_")
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
        type=enum_word(model_service_pb2.WatchEventType, message.type, "WATCH_EVENT_TYPE_"),
        revision=message.revision,
        version=version_info(message.scope, message.model, message.version) if has_version else None,
        labels=dict(message.labels),
    )


def _engine_info(message: model_pb2.EngineInfo) -> EngineInfo:
    return EngineInfo(
        engine=engine_word(message.engine),
        loader=message.loader,
        explanation=message.explanation,
        tuning=enum_word(model_pb2.TuningState, message.tuning, "TUNING_STATE_"),
        candidates=tuple(_candidate(candidate) for candidate in message.candidates),
    )


def _candidate(message: model_pb2.EngineCandidate) -> EngineCandidate:
    return EngineCandidate(
        engine=engine_word(message.engine),
        outcome=enum_word(model_pb2.EngineOutcome, message.outcome, "ENGINE_OUTCOME_"),
        reason=message.reason,
        speedup=message.speedup or None,
        max_relative_difference=message.max_relative_difference,
        timings=tuple(
            EngineTiming(timing.batch_size or None, timing.tensorflow_ns / 1e9, timing.engine_ns / 1e9)
            for timing in message.timings
        ),
        side_by_side_speedup=message.side_by_side_speedup or None,
    )


def engine_word(number: int) -> Any:
    """An engine's name."""
    return enum_word(model_pb2.Engine, number, "ENGINE_")


def _warmup(message: model_pb2.Warmup) -> Warmup:
    return Warmup(message.success_count, message.failure_count, message.first_error)


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
