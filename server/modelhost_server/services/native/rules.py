"""What the methods of modelhost.v1 ask of their callers."""

from __future__ import annotations

from typing import Any

from ...access.identity import Role
from ...store.names import DEFAULT_SCOPE
from ..rules import KNOWN, Rule, Rules


def _scope(request: Any) -> str:
    return request.scope or DEFAULT_SCOPE


def _listed(request: Any) -> str | None:
    return request.scope or None


def _watched(request: Any) -> str | None:
    return request.scope or (DEFAULT_SCOPE if request.model else None)


_READ = Rule(Role.PREDICT, _scope)
_CHANGE = Rule(Role.MANAGE, _scope)
_OWN = Rule(Role.ADMIN, _scope)

MODEL_RULES: Rules = {
    "LoadModel": _CHANGE,
    # Each load by itself.
    "LoadModels": KNOWN,
    "UnloadModel": _CHANGE,
    "SetLabels": _CHANGE,
    "PrepareUpload": _CHANGE,
    "UploadModel": _CHANGE,
    "GetModel": _READ,
    "ListModels": Rule(Role.PREDICT, _listed),
    "WatchModels": Rule(Role.PREDICT, _watched),
}
PREDICTION_RULES: Rules = {
    "Predict": Rule(Role.PREDICT, lambda request: _scope(request.message)),
    # Each prediction by itself.
    "PredictStream": KNOWN,
    "PredictMany": _READ,
}
SCOPE_RULES: Rules = {
    # The name may be one that is not there, or one that the caller is not to know of.
    "CreateScope": Rule(Role.ADMIN, lambda request: str(request.scope), conceals=False),
    "GetScope": _READ,
    "ListScopes": KNOWN,
    "UpdateScope": _OWN,
    "DeleteScope": _OWN,
}
# Regions are their callers'.
SHARED_MEMORY_RULES: Rules = dict.fromkeys(("RegisterRegion", "UnregisterRegion", "ListRegions"), KNOWN)
OPTIMIZATION_RULES: Rules = {"OptimizeModel": _CHANGE}
