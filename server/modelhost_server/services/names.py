"""Names of models in protocols that know no scopes."""

from __future__ import annotations

from ..store.names import DEFAULT_SCOPE


def scope_and_model(name: str) -> tuple[str, str]:
    """What "scope/model" names; "model" alone is one of the scope "default"."""
    scope, slash, model = name.partition("/")
    return (scope, model) if slash else (DEFAULT_SCOPE, name)


def model_name(scope: str, model: str) -> str:
    """How such a protocol names a model."""
    return model if scope == DEFAULT_SCOPE else f"{scope}/{model}"
