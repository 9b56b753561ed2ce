"""What the methods of the Open Inference Protocol ask of their callers."""

from __future__ import annotations

from typing import Any

from ...access.identity import Role
from ..names import scope_and_model
from ..rules import ANYBODY, KNOWN, SERVER, Rule, Rules


def _inferred(request: Any) -> str:
    return scope_and_model(request.message.model_name)[0]


def _named(request: Any) -> str:
    return scope_and_model(request.name)[0]


def _counted(request: Any) -> str | None:
    return _named(request) if request.name else None


def _controlled(request: Any) -> str:
    # KServe's clients have the model's name where Triton's have the repository's.
    return scope_and_model(request.model_name or request.repository_name)[0]


_READ = Rule(Role.PREDICT, _named)
_CHANGE = Rule(Role.MANAGE, _controlled)
_REGION = ("Status", "Register", "Unregister")

RULES: Rules = {
    "ServerLive": ANYBODY,
    "ServerReady": ANYBODY,
    "ServerMetadata": KNOWN,
    "ModelReady": _READ,
    "ModelMetadata": _READ,
    "ModelConfig": _READ,
    "ModelStatistics": Rule(Role.PREDICT, _counted),
    "ModelInfer": Rule(Role.PREDICT, _inferred),
    # Each inference by itself.
    "ModelStreamInfer": KNOWN,
    "RepositoryIndex": KNOWN,
    "RepositoryModelLoad": _CHANGE,
    "RepositoryModelUnload": _CHANGE,
    # Regions are their callers'.
    **{f"{kind}SharedMemory{what}": KNOWN for kind in ("System", "Cuda") for what in _REGION},
    "TraceSetting": SERVER,
    "LogSettings": SERVER,
}
