"""Labels of versions: where they are, and which versions on their way are to have them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from ..errors import ModelhostError, Reason, brief
from .names import check_label
from .phases import WANTED
from .records import Model, Scope, Version
from .resolve import find_version, not_available


@dataclass(frozen=True, slots=True)
class LabelsBefore:
    """Where labels of a model were, which of them a directory asked for, which versions that were not there they were
    waiting for, and the keys of those on their way that were to have them.
    """

    labels: Mapping[str, int]
    of_directory: Collection[str]
    coming: Mapping[str, int]
    wanted: Mapping[int, tuple[str, ...]]


class Labels:
    """Changes them.

    Args:
        scope: finds a scope by its name.
        changed: called with a version that has got a label, or lost one.
    """

    def __init__(self, scope: Callable[[str], Scope], changed: Callable[[Version], None]) -> None:
        self._scope = scope
        self._changed = changed

    def add(self, version: Version, labels: tuple[str, ...], of_directory: bool = False) -> None:
        """Moves labels to a version: at once, or together with those that its first load will put on. What the model's
        directory asks for (`of_directory`) it asks for again after a start.
        """
        scope = self._scope(version.scope)
        model = scope.models[version.model]
        if not version.has_been_served:
            version.labels_wanted = tuple(dict.fromkeys((*version.labels_wanted, *labels)))
            if not version.is_kept and labels:
                scope.coming_labels.setdefault(model.name, {}).update(dict.fromkeys(labels, version.number))
        elif any(model.labels.get(label) != version.number for label in labels):
            for label in labels:
                _place(scope, model, label, version.number, of_directory)
            self._changed(version)

    def add_wanted(self, version: Version) -> None:
        """Moves to a version that is served now what it was to have."""
        scope = self._scope(version.scope)
        model = scope.models[version.model]
        labels, version.labels_wanted = version.labels_wanted, ()
        for label in labels:
            _place(scope, model, label, version.number)
            # Whoever asked for the label before must not take it back when that load ends later.
            _forget_wanted(model, label, before=version)

    def remove(self, version: Version, label: str) -> None:
        """Takes a label off a version, if it is there."""
        model = self._scope(version.scope).models[version.model]
        if model.labels.get(label) == version.number:
            del model.labels[label]
            self._changed(version)

    def set(self, model: Model, labels: Mapping[str, int], removed: Collection[str]) -> None:
        """Puts labels on versions of a model and takes others off, all or none.

        Raises:
            ModelhostError: INVALID_NAME, INVALID_REQUEST, VERSION_NOT_FOUND, VERSION_FAILED, VERSION_UNLOADING.
        """
        placed = [(check_label(label), find_version(model, number, "")) for label, number in labels.items()]
        for label in removed:
            check_label(label)
            if label in labels:
                raise ModelhostError(
                    Reason.INVALID_REQUEST, f"remove: expected labels that `labels` has not; got {brief(label)}",
                    field="remove",
                )  # fmt: skip
        for _, version in placed:
            if version.phase not in WANTED:
                raise not_available(version)
        # A version on its way must not take back later what is decided now.
        for version in (*model.versions.values(), *model.others):
            version.labels_wanted = tuple(
                label for label in version.labels_wanted if label not in labels and label not in removed
            )
        for label in removed:
            self._scope(model.scope).coming_labels.get(model.name, {}).pop(label, None)
            if label in model.labels:
                self.remove(model.versions[model.labels[label]], label)
        for label, version in placed:
            self.add(version, (label,))

    # What cannot be written down is undone

    def before(self, model: Model) -> LabelsBefore:
        """Where the labels of a model are, before they are changed."""
        wanted = {version.key: version.labels_wanted for version in (*model.versions.values(), *model.others)}
        coming = self._scope(model.scope).coming_labels.get(model.name, {})
        return LabelsBefore(dict(model.labels), frozenset(model.directory_labels), dict(coming), wanted)

    def put_back(self, model: Model, labels: Collection[str], before: LabelsBefore) -> None:
        """Puts some labels where they were before."""
        scope = self._scope(model.scope)
        for version in (*model.versions.values(), *model.others):
            were = before.wanted.get(version.key, ())
            others = [label for label in version.labels_wanted if label not in labels]
            version.labels_wanted = tuple(dict.fromkeys((*were, *others)))
        for label in labels:
            number = before.labels.get(label, 0)
            if number in model.versions and model.labels.get(label) != number:
                _place(scope, model, label, number, label in before.of_directory)
                self._changed(model.versions[number])
            elif not number and label in model.labels:
                self.remove(model.versions[model.labels[label]], label)
            if label in before.coming:
                scope.coming_labels.setdefault(model.name, {})[label] = before.coming[label]

    # After a start

    def restore(self, scope: Scope, name: str, labels: Mapping[str, int]) -> None:
        """Puts labels of a model where they were; those of versions that are not there wait for them."""
        model = scope.models.get(name)
        for label, number in labels.items():
            if model is not None and number in model.versions:
                model.labels[label] = number
            else:
                scope.coming_labels.setdefault(name, {})[label] = number


def coming_labels(scope: Scope, model: str, number: int) -> list[str]:
    """Labels that wait for a version that has not come yet."""
    return [label for label, on in scope.coming_labels.get(model, {}).items() if on == number]


def _place(scope: Scope, model: Model, label: str, number: int, of_directory: bool = False) -> None:
    model.labels[label] = number
    (model.directory_labels.add if of_directory else model.directory_labels.discard)(label)
    scope.coming_labels.get(model.name, {}).pop(label, None)


def _forget_wanted(model: Model, label: str, before: Version) -> None:
    for other in (*model.versions.values(), *model.others):
        if (other.created, other.key) < (before.created, before.key):
            other.labels_wanted = tuple(wanted for wanted in other.labels_wanted if wanted != label)
