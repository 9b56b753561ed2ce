"""Names of models as callers write them: "model", "scope/model", "scope/model@3", "scope/model@stable"."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from ._errors import InvalidRequestError

DEFAULT_SCOPE = "default"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


class ModelRef(NamedTuple):
    """A model, and which version of it: by number, by label, or the one the server chooses (0 and "")."""

    scope: str
    model: str
    version: int = 0
    label: str = ""

    def __str__(self) -> str:
        choice = self.label or self.version
        return f"{self.scope}/{self.model}@{choice}" if choice else f"{self.scope}/{self.model}"


@lru_cache(4096)
def parse_model(name: str, version: int | None = None, label: str | None = None) -> ModelRef:
    """What `name` means.

    Args:
        name: "model" or "scope/model", with "@3" or "@stable" after it when a version or label is meant. Without a
            scope it is the scope "default".
        version: number, if it is not part of `name`.
        label: label, if it is not part of `name`.

    Raises:
        InvalidRequestError: a part breaks the rules for names, or the version is told twice.
    """
    path, at, choice = name.partition("@")
    scope, slash, model = path.rpartition("/")
    check_name("model", model)
    if slash:
        check_name("scope", scope)
    if (bool(at), version is not None, label is not None).count(True) > 1:
        raise InvalidRequestError(
            f"model: say the version once, as '@{choice or '3'}', version= or label=; got {name!r} and more",
            reason="INVALID_REQUEST",
        )
    if at and choice.isdecimal():
        version = int(choice)
    elif at:
        label = choice
    if version is not None and version <= 0:
        raise InvalidRequestError(f"version: expected a number greater than 0; got {version}", reason="INVALID_REQUEST")
    if label is not None:
        check_name("label", label)
    return ModelRef(scope or DEFAULT_SCOPE, model, version or 0, label or "")


def parse_models(
    choices: Iterable[tuple[str, int | None, str | None]], scope: str | None
) -> tuple[str, list[ModelRef]]:
    """The scope of several models, and what their names mean.

    Args:
        choices: name, version and label of each, as for `parse_model`.
        scope: of names that have none in them; "default" when None.

    Raises:
        InvalidRequestError: a part breaks the rules for names, or the scopes differ.
    """
    default = check_name("scope", DEFAULT_SCOPE if scope is None else scope)
    refs = [
        parse_model(name if "/" in name else f"{default}/{name}", version, label) for name, version, label in choices
    ]
    scopes = sorted({ref.scope for ref in refs} | ({default} if scope is not None or not refs else set()))
    if len(scopes) > 1:
        raise InvalidRequestError(
            f"models: expected models of one scope; got some of {' and of '.join(map(repr, scopes))}",
            reason="INVALID_REQUEST",
        )
    return scopes[0], refs


def version_choice(ref: ModelRef) -> dict[str, Any]:
    """The fields of a request that say which version is meant."""
    if ref.version:
        return {"version": ref.version}
    return {"label": ref.label} if ref.label else {}


def routing(ref: ModelRef) -> tuple[tuple[str, str], ...]:
    """Metadata of a prediction, so that a front can route it without reading the message."""
    return (("modelhost-scope", ref.scope), ("modelhost-model", ref.model))


def check_name(kind: str, name: str) -> str:
    """`name`, when it may be the name of a scope, model or label.

    Raises:
        InvalidRequestError: reason INVALID_NAME.
    """
    if _NAME.fullmatch(name):
        return name
    # Checked here, too, because names travel as gRPC metadata, which takes ASCII only and complains obscurely.
    raise InvalidRequestError(
        f"{kind}: expected letters, digits, '.', '_' and '-', beginning with a letter or digit, at most 128 "
        f"characters; got {name[:64]!r}",
        reason="INVALID_NAME",
        details={kind: name[:128]},
    )
