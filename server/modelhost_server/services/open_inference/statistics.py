"""What has been asked of versions, as Triton counts it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ...hosting.host import Host
from ...store.records import Version
from ...store.store import Sees
from ..names import model_name
from .errors import invalid, quoted
from .models import ready_version, ready_versions, version_choice


@dataclass(frozen=True, slots=True)
class Duration:
    """How often something was done, and how long it took in all."""

    count: int
    ns: int


class ModelStatistics(NamedTuple):
    """Of one version.

    Attributes:
        name: the model's.
        version: the version's number.
        last_inference: in milliseconds since 1970; 0 for never.
        inference_count: examples, of those that succeeded.
        execution_count: runs, each of one request or of a batch of them.
        durations: of requests by what became of them, and of the steps of those that succeeded.
        byte_size: what the version has of memory.
    """

    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    durations: Mapping[str, Duration]
    byte_size: int


def model_statistics(host: Host, model: str, version: str, sees: Sees) -> list[ModelStatistics]:
    """Of one version, of all versions of a model, or, if `model` is empty, of all models in scopes that `sees` says yes
    to; of those that serve.

    Raises:
        ForeignError: INVALID_ARGUMENT, NOT_FOUND.
    """
    number, label = version_choice(model, version)
    versions = [found for found in ready_versions(host, model) if model or sees(found.scope)]
    if model and not versions:
        raise invalid(f"requested model {quoted(model)} is not available")
    if model and label:
        versions = [ready_version(host, model, label)]
    elif model and number:
        versions = [found for found in versions if found.number == number]
        if not versions:
            raise invalid(f"requested model version is not available for model {quoted(model)}")
    return [_statistics(found) for found in versions]


def _statistics(version: Version) -> ModelStatistics:
    statistics = version.statistics
    count, ns = statistics.success_count, statistics.queue_ns + statistics.run_ns
    # Copying in and out is a part of the run.
    durations = {
        "success": Duration(count, ns),
        "fail": Duration(statistics.failure_count, statistics.failure_ns),
        "queue": Duration(count, statistics.queue_ns),
        "compute_input": Duration(count, 0),
        "compute_infer": Duration(count, statistics.run_ns),
        "compute_output": Duration(count, 0),
        "cache_hit": Duration(0, 0),
        "cache_miss": Duration(0, 0),
    }
    return ModelStatistics(
        model_name(version.scope, version.model),
        str(version.number),
        int(statistics.last_used * 1e3),
        statistics.example_count,
        statistics.run_count,
        durations,
        version.loaded.private_bytes if version.loaded is not None else 0,
    )
