"""The client of modelhost, which hosts TensorFlow models for other services.

    import modelhost

    with modelhost.Client("localhost:8500") as client:
        client.load("half_plus_two", "/models/half_plus_two")
        answer = client.predict("half_plus_two", [1.0, 2.0, 5.0])
        print(answer["y"], answer.version)

`AsyncClient` has the same methods for asyncio; make it where the event loop runs. Every failure
is a `ModelhostError` or a class below it.
"""

from ._async import AsyncClient
from ._batching_types import Batching, SignatureBatching
from ._channel import tls
from ._engine_types import EngineCandidate, EngineInfo, EngineTiming
from ._errors import (
    AlreadyExistsError,
    ConflictError,
    DeadlineExceededError,
    FailedPreconditionError,
    InternalError,
    InvalidInputError,
    InvalidRequestError,
    ModelFailedError,
    ModelhostError,
    NotFoundError,
    OperationCancelledError,
    PermissionDeniedError,
    ResourceExhaustedError,
    RevisionCompactedError,
    UnauthenticatedError,
    UnavailableError,
    UnreachableError,
    UnsupportedError,
    Violation,
)
from ._optimization_types import (
    OptimizationMeasure,
    OptimizationMethod,
    OptimizationProgress,
    OptimizationReport,
    OutputDrift,
)
from ._scope_types import ScopeConfig, ScopeInfo, ScopeMemory, ScopeStatistics
from ._sync import Client
from ._types import (
    CLIENT_TIMEOUT,
    LoadProgress,
    LoadSpec,
    LoadUpdate,
    ModelInfo,
    Prediction,
    PredictItem,
    PredictTarget,
    Sample,
    SignatureInfo,
    StreamResult,
    TensorInfo,
    VariableInfo,
    VersionInfo,
    VersionMemory,
    VersionStatistics,
    Warmup,
    WatchEvent,
)

__all__ = [
    "CLIENT_TIMEOUT",
    "AlreadyExistsError",
    "AsyncClient",
    "Batching",
    "Client",
    "ConflictError",
    "DeadlineExceededError",
    "EngineCandidate",
    "EngineInfo",
    "EngineTiming",
    "FailedPreconditionError",
    "InternalError",
    "InvalidInputError",
    "InvalidRequestError",
    "LoadProgress",
    "LoadSpec",
    "LoadUpdate",
    "ModelFailedError",
    "ModelInfo",
    "ModelhostError",
    "NotFoundError",
    "OperationCancelledError",
    "OptimizationMeasure",
    "OptimizationMethod",
    "OptimizationProgress",
    "OptimizationReport",
    "OutputDrift",
    "PermissionDeniedError",
    "PredictItem",
    "PredictTarget",
    "Prediction",
    "ResourceExhaustedError",
    "RevisionCompactedError",
    "Sample",
    "ScopeConfig",
    "ScopeInfo",
    "ScopeMemory",
    "ScopeStatistics",
    "SignatureBatching",
    "SignatureInfo",
    "StreamResult",
    "TensorInfo",
    "UnauthenticatedError",
    "UnavailableError",
    "UnreachableError",
    "UnsupportedError",
    "VariableInfo",
    "VersionInfo",
    "VersionMemory",
    "VersionStatistics",
    "Violation",
    "Warmup",
    "WatchEvent",
    "tls",
]
