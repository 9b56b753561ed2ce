"""Which versions of a model take the place of which: newer ones of older ones, and a load of one that it replaces."""

from __future__ import annotations

from .phases import WANTED, Phase
from .records import Model, Version


def superseded(model: Model, version: Version) -> list[Version]:
    """The versions that a version takes the place of: the one of its number, and older ones."""
    current = model.versions.get(version.number)
    same_number = [*([current] if current is not None else []), *model.others_of(version.number)]
    replaced = [other for other in same_number if other is not version]
    if version.keep_older:
        return replaced
    labelled = set(model.labels.values())
    return replaced + [
        other
        for other in model.newest_first()
        if other.number < version.number and other.number not in labelled
        and ((other.phase in WANTED and not other.labels_wanted) or other.phase is Phase.FAILED)
    ]  # fmt: skip


def take_place(model: Model, version: Version) -> None:
    """A version that replaces another does so now that it is served."""
    if version in model.others:
        model.others.remove(version)
        model.others.append(model.versions[version.number])
        model.versions[version.number] = version


def forget(model: Model, version: Version) -> None:
    """Takes out of a model a version that is gone; another of its number may have waited for its place."""
    if version in model.others:
        model.others.remove(version)
    # A FAILED version may have been replaced by a new load of the same number.
    elif model.versions.get(version.number) is version:
        del model.versions[version.number]
        for other in model.others_of(version.number)[:1]:
            model.others.remove(other)
            model.versions[version.number] = other
            return
        model.labels = {label: number for label, number in model.labels.items() if number != version.number}
