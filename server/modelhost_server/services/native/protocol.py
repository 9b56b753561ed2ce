"""The services of modelhost.v1."""

from __future__ import annotations

from typing import Any

from modelhost.v1 import (
    model_service_pb2,
    optimization_service_pb2,
    prediction_service_pb2,
    scope_service_pb2,
    shared_memory_service_pb2,
)

from ...hosting.host import Host
from ...hosting.optimization import Optimizer
from ..call import Service
from ..rules import Rules
from .model_service import ModelService
from .optimization_service import OptimizationService
from .prediction_service import PredictionService
from .rules import MODEL_RULES, OPTIMIZATION_RULES, PREDICTION_RULES, SCOPE_RULES, SHARED_MEMORY_RULES
from .scope_service import ScopeService
from .shared_memory_service import SharedMemoryService
from .uploads import ModelUploads


def native_services(host: Host) -> list[Service]:
    """All of them."""
    services: list[tuple[Any, list[object], Rules]] = [
        (model_service_pb2, [ModelService(host), ModelUploads(host)], MODEL_RULES),
        (prediction_service_pb2, [PredictionService(host)], PREDICTION_RULES),
        (scope_service_pb2, [ScopeService(host)], SCOPE_RULES),
        (shared_memory_service_pb2, [SharedMemoryService(host)], SHARED_MEMORY_RULES),
        (optimization_service_pb2, [OptimizationService(Optimizer(host))], OPTIMIZATION_RULES),
    ]
    return [
        Service(module.DESCRIPTOR.services_by_name[type(handlers[0]).__name__], handlers, rules)
        for module, handlers, rules in services
    ]
