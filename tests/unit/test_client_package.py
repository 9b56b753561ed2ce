"""The package as its users see it."""

from __future__ import annotations

import inspect
import subprocess
import sys

import modelhost
import pytest

PUBLIC = [
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
METHODS = [
    "close",
    "create_scope",
    "delete_scope",
    "load",
    "load_many",
    "map",
    "model",
    "models",
    "optimize",
    "predict",
    "predict_many",
    "predict_stream",
    "ready",
    "scope",
    "scopes",
    "set_labels",
    "unload",
    "update_scope",
    "upload",
    "wait_tuned",
    "watch",
]


def test_public_names() -> None:
    assert sorted(modelhost.__all__) == sorted(PUBLIC)
    assert all(hasattr(modelhost, name) for name in PUBLIC)


@pytest.mark.parametrize("client", [modelhost.Client, modelhost.AsyncClient])
def test_public_methods(client: type) -> None:
    assert [name for name, _ in inspect.getmembers(client, inspect.isfunction) if name[0] != "_"] == METHODS


def test_the_clients_take_the_same_arguments() -> None:
    for name in ("__init__", *METHODS):
        parameters = [
            [(p.name, p.kind, p.default) for p in inspect.signature(getattr(client, name)).parameters.values()]
            for client in (modelhost.Client, modelhost.AsyncClient)
        ]
        assert parameters[0] == parameters[1], name


def test_the_import_is_light() -> None:
    code = "import sys, modelhost; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "modelhost._sync" in loaded
    heavy = {"typer", "rich", "tensorflow", "keras", "ml_dtypes", "modelhost.cli", "modelhost_server"}
    assert not heavy & set(loaded)
