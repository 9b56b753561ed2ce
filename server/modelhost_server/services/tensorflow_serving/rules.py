"""What the methods of tensorflow.serving ask of their callers."""

from __future__ import annotations

from typing import Any

from ...access.identity import Role
from ..names import scope_and_model
from ..rules import SERVER, Rule, Rules


def _predicted(request: Any) -> str | None:
    return None if request.target is None else scope_and_model(request.target.name)[0]


def _named(request: Any) -> str:
    return scope_and_model(request.model_spec.name)[0]


def _first_task(request: Any) -> str | None:
    # The others must be of the same model.
    return scope_and_model(request.tasks[0].model_spec.name)[0] if request.tasks else None


_READ = Rule(Role.PREDICT, _named)

PREDICTION_RULES: Rules = {
    "Predict": Rule(Role.PREDICT, _predicted),
    "Classify": _READ,
    "Regress": _READ,
    "MultiInference": Rule(Role.PREDICT, _first_task),
    "GetModelMetadata": _READ,
}
MODEL_RULES: Rules = {
    "GetModelStatus": _READ,
    # What it does not name is unloaded, whatever scope it is of.
    "HandleReloadConfigRequest": SERVER,
}
