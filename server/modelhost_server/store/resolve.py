"""From names to models and versions, and why one does not answer."""

from __future__ import annotations

from ..errors import ModelhostError, Reason, brief
from .names import check_label, check_name, model_resource
from .phases import SERVED, WANTED, Phase
from .records import Model, Scope, Version

# A message names at most this many of what there is.
_NAMED = 20


def find_model(scope: Scope, name: str) -> Model:
    """A model of a scope.

    Raises:
        ModelhostError: INVALID_NAME, MODEL_NOT_FOUND.
    """
    model = scope.models.get(name)
    if model is None:
        check_name("model", name)
        raise ModelhostError(
            Reason.MODEL_NOT_FOUND,
            f"there is no model {brief(name)} in scope {brief(scope.name)}",
            resource=model_resource(scope.name, name),
        )
    return model


def find_version(model: Model, number: int, label: str) -> Version:
    """A version by number or label.

    Raises:
        ModelhostError: VERSION_NOT_FOUND, LABEL_NOT_FOUND, INVALID_NAME, INVALID_REQUEST.
    """
    resource = model_resource(model.scope, model.name)
    if label:
        check_label(label)
        if label not in model.labels:
            there = ", ".join(sorted(model.labels)[:_NAMED]) or "none"
            raise ModelhostError(
                Reason.LABEL_NOT_FOUND, f"{resource} has no label {brief(label)}; it has: {there}", resource=resource
            )
        return model.versions[model.labels[label]]
    if number <= 0:
        raise ModelhostError(
            Reason.INVALID_REQUEST, f"version: expected a number greater than 0; got {number}", field="version"
        )
    version = model.versions.get(number)
    if version is None:
        there = ", ".join(str(n) for n in sorted(model.versions)[:_NAMED])
        raise ModelhostError(
            Reason.VERSION_NOT_FOUND, f"{resource} has no version {number}; it has: {there}", resource=resource
        )
    return version


def served_version(model: Model) -> Version | None:
    """The version that predictions get which name none: the highest one that is served."""
    served = [version for version in model.versions.values() if version.phase in SERVED]
    return max(served, key=lambda version: version.number, default=None)


def next_to_serve(model: Model) -> Version:
    """The version of a model without a served one that says best why: the newest one on its way to be served."""
    newest = model.newest_first()
    return next((version for version in newest if version.phase in WANTED), newest[0])


def not_available(version: Version) -> ModelhostError:
    """Why a version does not answer predictions."""
    resource = version.resource

    def error(reason: Reason, message: str, retry_after: float | None = None) -> ModelhostError:
        found = ModelhostError(reason, f"{resource} {message}", retry_after=retry_after, resource=resource)
        if version.phase in WANTED and version.available_since:
            # It has served before.
            found.details["recovering"] = "true"
        return found

    match version.phase:
        case Phase.FAILED:
            return error(Reason.VERSION_FAILED, f"is FAILED: {version.error.message if version.error else 'unknown'}")
        case Phase.RECOVERING:
            why = version.error.message if version.error else "its worker died; it is being loaded again"
            return error(Reason.VERSION_LOADING, f"is not available: {why}", 1.0)
        case Phase.WAITING | Phase.LOADING:
            return error(Reason.VERSION_LOADING, "is still loading", 1.0)
        case _:
            return error(Reason.VERSION_UNLOADING, "is being unloaded")
