"""The store's records as messages."""

from __future__ import annotations

from collections.abc import Iterator

from modelhost.v1 import model_pb2, scope_pb2

from ...hosting.batching import Batching
from ...hosting.findings import explanation
from ...hosting.keeper import ScopeKeeper
from ...hosting.running import SignatureRunner
from ...store.phases import Phase
from ...store.records import Candidate, Loaded, Model, Progress, ScopeConfig, Version
from .batching import batching_message
from .failures import error_message
from .tensors import spec_message

BASIC = model_pb2.MODEL_VIEW_BASIC
FULL = model_pb2.MODEL_VIEW_FULL
VARIABLES = model_pb2.MODEL_VIEW_VARIABLES

ENGINES = {
    "": model_pb2.ENGINE_UNSPECIFIED,
    "tensorflow": model_pb2.ENGINE_TENSORFLOW,
    "litert": model_pb2.ENGINE_LITERT,
    "openvino": model_pb2.ENGINE_OPENVINO,
}


def model_message(model: Model, view: model_pb2.ModelView.ValueType, only: int = 0) -> model_pb2.Model:
    """A model with its versions, or with only one of them."""
    return model_pb2.Model(
        scope=model.scope,
        model=model.name,
        versions=[version_message(v, view) for v in model.newest_first() if only in (0, v.number)],
        labels=model.labels,
    )


def version_message(version: Version, view: model_pb2.ModelView.ValueType) -> model_pb2.Version:
    """A version."""
    options = version.options
    message = model_pb2.Version(
        version=version.number,
        state=model_pb2.VersionState.Value(f"VERSION_STATE_{version.state.name}"),
        source=version.source,
        error=error_message(version.error) if version.error else None,
        options=model_pb2.LoadOptions(
            tags=options.tags,
            annotations=dict(options.annotations),
            engine=ENGINES[options.engine],
            pinned=options.pinned,
            evictable=options.evictable,
            tolerance=options.tolerance,
            require_warmup=options.require_warmup,
            batching=batching_message(options.batching),
        ),
        statistics=_statistics_message(version),
        progress=progress_message(version.progress) if version.state.name == "LOADING" else None,
        revision=version.revision,
        derived_from=version.derived_from,
        derivation=version.derivation,
    )
    if options.idle_timeout:
        message.options.idle_timeout.FromNanoseconds(int(options.idle_timeout * 1e9))
    message.create_time.FromNanoseconds(int(version.created * 1e9))
    if version.available_since:
        message.available_time.FromNanoseconds(int(version.available_since * 1e9))
    if version.loaded is not None:
        _fill_loaded(message, version, version.loaded, view)
        message.engine.explanation = explanation(version.candidates)
        message.engine.tuning = model_pb2.TuningState.Value(f"TUNING_STATE_{version.tuning.name}")
        message.engine.candidates.extend(_candidate_message(candidate) for candidate in version.candidates)
    return message


def _candidate_message(candidate: Candidate) -> model_pb2.EngineCandidate:
    return model_pb2.EngineCandidate(
        engine=ENGINES[candidate.engine],
        outcome=model_pb2.EngineOutcome.Value(f"ENGINE_OUTCOME_{candidate.outcome.name}"),
        reason=candidate.reason,
        speedup=candidate.speedup,
        side_by_side_speedup=candidate.side_by_side_speedup,
        max_relative_difference=candidate.max_relative_difference,
        timings=[
            model_pb2.EngineTiming(batch_size=batch, tensorflow_ns=tensorflow, engine_ns=engine)
            for batch, tensorflow, engine in candidate.timings
        ],
    )


def _fill_loaded(
    message: model_pb2.Version, version: Version, loaded: Loaded, view: model_pb2.ModelView.ValueType
) -> None:
    message.engine.engine = ENGINES[loaded.engine]
    message.engine.loader = loaded.loader
    if version.phase is not Phase.EVICTED:
        message.memory.private_bytes = loaded.private_bytes
        message.memory.shared_bytes = version.shared_bytes
    message.memory.variable_bytes = loaded.variable_bytes
    succeeded, failed, first_error = loaded.warmup
    message.warmup.success_count, message.warmup.failure_count = succeeded, failed
    message.warmup.first_error = first_error
    if view in (FULL, VARIABLES):
        message.batching.extend(_batching_messages(version, loaded))
        for spec in loaded.signatures:
            message.signatures.add(
                name=spec.name,
                inputs=[spec_message(tensor) for tensor in spec.inputs],
                outputs=[spec_message(tensor) for tensor in spec.outputs],
                method_name=spec.method_name,
            )
    if view == VARIABLES:
        for variable in loaded.variables:
            message.variables.add(
                name=variable.name, dtype=variable.dtype,
                shape=variable.shape, byte_size=variable.nbytes
            )  # fmt: skip


def _batching_messages(version: Version, loaded: Loaded) -> Iterator[model_pb2.SignatureBatching]:
    for position, spec in enumerate(loaded.signatures):
        runner: SignatureRunner | None = loaded.runners.get(position)
        # One that was not asked yet says what it is going to do.
        batching = runner.batching if runner else Batching(version.options, spec, loaded.is_pure)
        yield model_pb2.SignatureBatching(
            signature=spec.name,
            state=model_pb2.BatchingState.Value(f"BATCHING_STATE_{batching.state.name}"),
            explanation=batching.explanation,
            max_batch_size=batching.max_batch_size,
            batch_count=batching.batch_count,
            prediction_count=batching.prediction_count,
        )


def _statistics_message(version: Version) -> model_pb2.VersionStatistics:
    statistics = version.statistics
    message = model_pb2.VersionStatistics(
        success_count=statistics.success_count,
        failure_count=statistics.failure_count,
        in_flight=version.handles,
        queue_ns=statistics.queue_ns,
        run_ns=statistics.run_ns,
        load_ns=statistics.load_ns,
        crash_count=statistics.crash_count,
        hit_count=statistics.hit_count,
        miss_count=statistics.miss_count,
        eviction_count=statistics.eviction_count,
        load_count=statistics.load_count,
        total_load_ns=statistics.total_load_ns,
    )
    if statistics.last_used:
        message.last_used_time.FromNanoseconds(int(statistics.last_used * 1e9))
    return message


def progress_message(progress: Progress) -> model_pb2.LoadProgress:
    """Where a load stands."""
    return model_pb2.LoadProgress(
        stage=model_pb2.LoadStage.Value(f"LOAD_STAGE_{progress.stage}"),
        fraction=progress.done / progress.total if progress.total else 0.0,
        bytes_done=progress.done,
        bytes_total=progress.total,
    )


def config_message(config: ScopeConfig) -> scope_pb2.ScopeConfig:
    """A scope's configuration, with the values in force."""
    message = scope_pb2.ScopeConfig(
        intra_op_threads=config.intra_op_threads,
        inter_op_threads=config.inter_op_threads,
        max_in_flight=config.max_in_flight,
        max_queue=config.max_queue,
        memory_limit_bytes=config.memory_limit_bytes,
        load_order=scope_pb2.LOAD_ORDER_MEMORY_FIRST if config.memory_first else scope_pb2.LOAD_ORDER_NEW_FIRST,
        replicas=config.replicas,
        caller_rate_limit=config.caller_rate_limit,
    )
    message.drain_timeout.FromNanoseconds(int(config.drain_timeout * 1e9))
    if config.overrun_grace is not None:
        message.overrun_grace.FromNanoseconds(int(config.overrun_grace * 1e9))
    return message


async def scope_message(keeper: ScopeKeeper) -> scope_pb2.Scope:
    """A scope, with its memory measured now."""
    scope = keeper.scope
    memory = await keeper.workers.memory()
    residence = scope.residence()
    message = scope_pb2.Scope(
        scope=scope.name,
        config=config_message(scope.config),
        worker_state=scope_pb2.WorkerState.Value(f"WORKER_STATE_{keeper.workers.state.name}"),
        serving_workers=len(keeper.workers.serving),
        model_count=len(scope.models),
        memory=scope_pb2.ScopeMemory(
            pss_bytes=memory["pss"], private_bytes=memory["private"], limit_bytes=scope.config.memory_limit_bytes
        ),
        statistics=scope_pb2.ScopeStatistics(
            in_flight=keeper.scheduler.in_flight,
            queued=keeper.scheduler.queued,
            rejected_count=keeper.scheduler.rejected_count,
            worker_restarts=keeper.workers.restarts,
            hit_count=residence.hit_count,
            miss_count=residence.miss_count,
            eviction_count=residence.eviction_count,
            thrashing_count=scope.thrashing_count,
        ),
    )
    message.create_time.FromNanoseconds(int(scope.created * 1e9))
    return message
