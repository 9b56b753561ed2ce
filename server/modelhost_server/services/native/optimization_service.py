"""OptimizationService of modelhost.v1."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from modelhost.v1 import optimization_service_pb2 as pb

from ...errors import ModelhostError, Reason
from ...hosting.optimization import PRUNE, Optimizer, OptimizeRequest, Report, Stage
from ..call import Call
from .messages import ENGINES, FULL, version_message
from .tensors import samples

_PREFIX = "OPTIMIZATION_METHOD_"


class OptimizationService:
    """Makes new versions of models by quantizing or pruning them."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer

    async def optimize_model(
        self, request: pb.OptimizeModelRequest, call: Call
    ) -> AsyncIterator[pb.OptimizeModelResponse]:
        """Makes a new version, loads it and compares it with the original."""
        async for news in self._optimizer.optimize(_request(request)):
            if isinstance(news, Stage):
                stage = pb.OptimizationStage.Value(f"OPTIMIZATION_STAGE_{news.name}")
                yield pb.OptimizeModelResponse(progress=pb.OptimizationProgress(stage=stage, fraction=news.fraction))
            else:
                yield pb.OptimizeModelResponse(report=_report(news))


def _request(message: pb.OptimizeModelRequest) -> OptimizeRequest:
    """What is asked for.

    Raises:
        ModelhostError: INVALID_REQUEST, INPUT_MALFORMED, UNSUPPORTED.
    """
    names = {number: name for name, number in pb.OptimizationMethod.items() if number}
    if message.method not in names:
        raise ModelhostError(
            Reason.INVALID_REQUEST,
            f"method: expected one of modelhost.v1.OptimizationMethod; got the number {message.method}",
            field="method",
        )
    method = names[message.method].removeprefix(_PREFIX).lower()
    if method == PRUNE and not 0 < message.sparsity < 1:
        raise ModelhostError(
            Reason.INVALID_REQUEST, f"sparsity: expected above 0 and below 1; got {message.sparsity}", field="sparsity"
        )
    return OptimizeRequest(
        scope=message.scope,
        model=message.model,
        version=message.version,
        label=message.label,
        method=method,
        sparsity=message.sparsity,
        samples=samples("samples", message.samples),
        samples_file=message.samples_file,
        true_classes=tuple(message.true_classes),
        new_version=message.new_version,
        new_labels=tuple(message.new_labels),
        request_id=message.request_id,
    )


def _report(report: Report) -> pb.OptimizationReport:
    comparison = report.comparison
    return pb.OptimizationReport(
        version=version_message(report.version, FULL),
        original_version=report.original.number,
        method=report.version.derivation,
        original=_measure(comparison["original"]),
        optimized=_measure(comparison["optimized"]),
        drift=[pb.OutputDrift(**drift) for drift in comparison["drift"]],
        example_count=comparison["example_count"],
        examples_made_up=comparison["examples_made_up"],
        remarks=report.remarks,
    )


def _measure(measured: dict[str, Any]) -> pb.OptimizationMeasure:
    return pb.OptimizationMeasure(**{**measured, "engine": ENGINES[measured["engine"]]})
