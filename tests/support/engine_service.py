"""The small service of `service`, with engines, warm-ups, PredictMany and OptimizeModel."""

from __future__ import annotations

import threading
from concurrent import futures
from typing import Any

import grpc
from google.rpc import code_pb2
from modelhost.v1 import model_pb2, prediction_service_pb2
from modelhost.v1 import optimization_service_pb2 as optimization_pb2
from modelhost.v1.model_service_pb2_grpc import add_ModelServiceServicer_to_server
from modelhost.v1.optimization_service_pb2_grpc import (
    OptimizationServiceServicer,
    add_OptimizationServiceServicer_to_server,
)
from modelhost.v1.prediction_service_pb2_grpc import add_PredictionServiceServicer_to_server
from modelhost.v1.scope_service_pb2_grpc import add_ScopeServiceServicer_to_server

from .service import Refused, Served, Service


class EngineService(Service, OptimizationServiceServicer):
    """Versions are served by LiteRT, and version 2 was made from version 1."""

    def __init__(self) -> None:
        super().__init__()
        self.tuning: model_pb2.TuningState.ValueType = model_pb2.TUNING_STATE_DONE
        self.reports = True
        # A watch goes on after its last event.
        self.hangs = False

    def version(self, number: int = 1) -> model_pb2.Version:
        version = super().version(number)
        engine = version.engine
        engine.engine, engine.loader, engine.tuning = model_pb2.ENGINE_LITERT, "mapped", self.tuning
        engine.explanation = "litert chosen; openvino different"
        chosen = engine.candidates.add(
            engine=model_pb2.ENGINE_LITERT, outcome=model_pb2.ENGINE_OUTCOME_CHOSEN, reason="6.1 times as fast",
            speedup=6.125, max_relative_difference=2.5e-7,
        )  # fmt: skip
        chosen.timings.add(batch_size=1, tensorflow_ns=12_000_000, engine_ns=2_000_000)
        chosen.timings.add(batch_size=0, tensorflow_ns=1_000, engine_ns=500)
        engine.candidates.add(
            engine=model_pb2.ENGINE_OPENVINO, outcome=model_pb2.ENGINE_OUTCOME_DIFFERENT, reason="y differs",
            max_relative_difference=0.25,
        )  # fmt: skip
        version.options.tolerance, version.options.require_warmup = 1e-3, True
        version.memory.private_bytes, version.memory.shared_bytes = 13 << 20, 97 << 20
        version.warmup.success_count, version.warmup.failure_count = 2, 1
        version.warmup.first_error = "input 'x': too long"
        if number == 2:
            version.derived_from, version.derivation = 1, "dynamic_int8"
            version.options.engine = model_pb2.ENGINE_LITERT
        return version

    def PredictMany(self, request: Any, context: Any) -> Any:  # noqa: N802
        def result(target: prediction_service_pb2.PredictManyTarget) -> prediction_service_pb2.PredictManyResult:
            single = prediction_service_pb2.PredictRequest(
                scope=request.scope, model=target.model, version=target.version, inputs=request.inputs
            )
            try:
                return prediction_service_pb2.PredictManyResult(response=self.run(single))
            except Refused as refused:
                return prediction_service_pb2.PredictManyResult(error=refused.error)

        return self.answer(
            "PredictMany", request, context,
            lambda: prediction_service_pb2.PredictManyResponse(results=[result(target) for target in request.targets]),
        )  # fmt: skip

    def WatchModels(self, request: Any, context: Any) -> Any:  # noqa: N802
        yield from super().WatchModels(request, context)
        if self.hangs:
            left = threading.Event()
            context.add_callback(left.set)
            left.wait()

    def OptimizeModel(self, request: Any, context: Any) -> Any:  # noqa: N802
        def check() -> None:
            if request.model != "half":
                raise Refused(code_pb2.NOT_FOUND, "MODEL_NOT_FOUND")

        self.answer("OptimizeModel", request, context, check)
        for stage in (optimization_pb2.OPTIMIZATION_STAGE_CONVERTING, optimization_pb2.OPTIMIZATION_STAGE_LOADING):
            progress = optimization_pb2.OptimizationProgress(stage=stage, fraction=stage / 4)
            yield optimization_pb2.OptimizeModelResponse(progress=progress)
        if self.reports:
            yield optimization_pb2.OptimizeModelResponse(report=self.report(request))

    def report(self, request: optimization_pb2.OptimizeModelRequest) -> optimization_pb2.OptimizationReport:
        report = optimization_pb2.OptimizationReport(
            version=self.version(request.new_version or 2), original_version=1, method="dynamic_int8",
            original=optimization_pb2.OptimizationMeasure(
                engine=model_pb2.ENGINE_TENSORFLOW, disk_bytes=4 << 20, compressed_bytes=3 << 20, private_bytes=8 << 20,
                latency_ns=2_000_000, batch_size=1, zero_share=0.0,
            ),
            optimized=optimization_pb2.OptimizationMeasure(
                engine=model_pb2.ENGINE_LITERT, disk_bytes=1 << 20, compressed_bytes=1 << 20, private_bytes=2 << 20,
                latency_ns=500_000, batch_size=1, zero_share=0.125,
            ),
            example_count=max(1, len(request.samples)), examples_made_up=not request.samples,
            remarks=["The answers are nearly the same."],
        )  # fmt: skip
        if request.true_classes:
            report.original.accuracy, report.optimized.accuracy = 0.984, 0.98
        report.drift.add(
            signature="serving_default", output="y", max_relative_difference=0.012, mean_relative_difference=3e-4
        )
        report.drift[0].argmax_agreement = 0.99
        return report


class EngineServed(Served):
    """That service on a free port."""

    service: EngineService

    def __init__(self) -> None:
        self.service = EngineService()
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        add_ModelServiceServicer_to_server(self.service, self._server)
        add_OptimizationServiceServicer_to_server(self.service, self._server)
        add_PredictionServiceServicer_to_server(self.service, self._server)
        add_ScopeServiceServicer_to_server(self.service, self._server)
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
