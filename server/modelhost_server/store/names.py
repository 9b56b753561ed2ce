"""Names: what they may be, and how resources are called in messages, logs and health checks."""

from __future__ import annotations

import re

from ..errors import ModelhostError, Reason, brief

DEFAULT_SCOPE = "default"
MAX_LENGTH = 128
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
# A label begins with a letter, so that `model@stable` and `model@3` cannot be mistaken for one another.
_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9._-]*", re.ASCII)
_RULE = "letters, digits, '.', '_' and '-', beginning with a letter or digit, at most 128 characters"
_LABEL_RULE = "letters, digits, '.', '_' and '-', beginning with a letter, at most 128 characters"


def check_name(kind: str, name: str) -> str:
    """`name`, when it may be the name of a scope or model.

    Raises:
        ModelhostError: INVALID_NAME.
    """
    return _check(kind, name, _NAME, _RULE)


def check_label(label: str) -> str:
    """`label`, when it may be a label.

    Raises:
        ModelhostError: INVALID_NAME.
    """
    return _check("label", label, _LABEL, _LABEL_RULE)


def _check(kind: str, name: str, pattern: re.Pattern[str], rule: str) -> str:
    if len(name) <= MAX_LENGTH and pattern.fullmatch(name):
        return name
    got = "nothing" if not name else brief(name)
    raise ModelhostError(Reason.INVALID_NAME, f"{kind}: expected {rule}; got {got}", field=kind)


def scope_resource(scope: str) -> str:
    """The resource name of a scope."""
    return f"scopes/{scope}"


def model_resource(scope: str, model: str) -> str:
    """The resource name of a model."""
    return f"scopes/{scope}/models/{model}"


def version_resource(scope: str, model: str, version: int) -> str:
    """The resource name of a version."""
    return f"scopes/{scope}/models/{model}/versions/{version}"
