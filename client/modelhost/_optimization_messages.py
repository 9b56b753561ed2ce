"""Between the public types about optimizations and the protocol's messages, in both directions."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence

from modelhost.v1 import model_pb2
from modelhost.v1 import optimization_service_pb2 as pb

from ._messages import engine_word, version_info
from ._names import ModelRef, check_name, version_choice
from ._optimization_types import (
    OptimizationMeasure,
    OptimizationProgress,
    OptimizationReport,
    OutputDrift,
)
from ._wire import enum_number, enum_word, server_path


def optimize_request(
    ref: ModelRef,
    method: str,
    *,
    sparsity: float | None,
    samples: Sequence[model_pb2.Sample],
    samples_file: str | os.PathLike[str] | None,
    true_classes: Sequence[int],
    new_version: int | None,
    labels: Sequence[str],
) -> pb.OptimizeModelRequest:
    """What to do to the version that `ref` means, recognisable when it is sent again.

    Raises:
        InvalidRequestError: there is no such method, or a label breaks the rules for names.
    """
    return pb.OptimizeModelRequest(
        scope=ref.scope,
        model=ref.model,
        method=enum_number(pb.OptimizationMethod, "method", method, "OPTIMIZATION_METHOD_"),
        sparsity=sparsity or 0,
        samples=samples,
        samples_file="" if samples_file is None else server_path(samples_file),
        true_classes=true_classes,
        new_version=new_version or 0,
        new_labels=[check_name("label", label) for label in labels],
        request_id=str(uuid.uuid4()),
        **version_choice(ref),
    )


def optimization_progress(message: pb.OptimizationProgress) -> OptimizationProgress:
    """Where an optimization stands."""
    return OptimizationProgress(enum_word(pb.OptimizationStage, message.stage, "OPTIMIZATION_STAGE_"), message.fraction)


def optimization_report(ref: ModelRef, message: pb.OptimizationReport) -> OptimizationReport:
    """What the optimization of a version of the model gave."""
    return OptimizationReport(
        version=version_info(ref.scope, ref.model, message.version),
        original_version=message.original_version,
        method=message.method,
        original=_measure(message.original),
        optimized=_measure(message.optimized),
        drift=tuple(_drift(drift) for drift in message.drift),
        example_count=message.example_count,
        examples_made_up=message.examples_made_up,
        remarks=tuple(message.remarks),
    )


def _measure(message: pb.OptimizationMeasure) -> OptimizationMeasure:
    return OptimizationMeasure(
        engine=engine_word(message.engine),
        disk_bytes=message.disk_bytes,
        compressed_bytes=message.compressed_bytes,
        private_bytes=message.private_bytes,
        latency_seconds=message.latency_ns / 1e9,
        batch_size=message.batch_size or None,
        accuracy=message.accuracy if message.HasField("accuracy") else None,
        zero_share=message.zero_share,
    )


def _drift(message: pb.OutputDrift) -> OutputDrift:
    return OutputDrift(
        signature=message.signature,
        output=message.output,
        max_relative_difference=message.max_relative_difference,
        mean_relative_difference=message.mean_relative_difference,
        argmax_agreement=message.argmax_agreement if message.HasField("argmax_agreement") else None,
    )
