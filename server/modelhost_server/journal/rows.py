"""Records of the store as rows of the journal, and back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from ..errors import ModelhostError
from ..store.operations import AskedLoad, UnloadRequest
from ..store.phases import WANTED, Phase
from ..store.records import Description, LoadOptions, Scope, ScopeConfig, Version
from ..store.requests import Outcome
from .database import Key, Row, key_of

LOAD, UNLOAD = "load", "unload"
# In these, a version is on its way out.
_LEAVING = frozenset({Phase.DRAINING, Phase.FREEING, Phase.UNLOADED})


@dataclass(frozen=True, slots=True)
class KeptLoad:
    """What is kept of the load that brought a version."""

    __pydantic_config__ = {"ser_json_bytes": "base64", "val_json_bytes": "base64"}

    source: str
    options: LoadOptions
    labels_wanted: tuple[str, ...] = ()
    keep_older: bool = False
    samples_file: str = ""
    description: Description = field(default_factory=Description)
    derived_from: int = 0
    derivation: str = ""


@dataclass(frozen=True, slots=True)
class KeptRequest:
    """A request that was carried out, and the versions that it was about: their numbers, and when they were made."""

    request: AskedLoad | UnloadRequest
    outcome: Outcome


_CONFIG = TypeAdapter(ScopeConfig)
_LOAD = TypeAdapter(KeptLoad)
_LABELS = TypeAdapter(dict[str, int])
_OUTCOME = TypeAdapter(Outcome)
_ASKED_LOAD = TypeAdapter(AskedLoad)
_ASKED_UNLOAD = TypeAdapter(UnloadRequest)


def scope_rows(scope: Scope) -> dict[Key, Row]:
    """The row of a scope; none when it is not kept."""
    if not scope.is_kept or scope.deleting:
        return {}
    return _by_key("scopes", (scope.name, _text(_CONFIG, scope.config), scope.created))


def model_rows(scope: Scope, name: str) -> dict[Key, Row]:
    """The rows of a model and its versions."""
    if scope.deleting:
        return {}
    model = scope.models.get(name)
    rows: dict[Key, Row] = {}
    labels = dict(scope.coming_labels.get(name, {}))
    if model is not None:
        kept = [v for v in model.versions.values() if v.is_kept and not v.is_leaving and v.phase not in _LEAVING]
        for version in kept:
            rows |= _by_key("versions", _version_row(version))
        staying = {number for number, v in model.versions.items() if not v.is_leaving and v.phase not in _LEAVING}
        labels |= {k: n for k, n in model.labels.items() if k not in model.directory_labels and n in staying}
    highest = scope.highest.get(name, 0)
    if highest or labels:
        rows |= _by_key("models", (scope.name, name, highest, json.dumps(labels, sort_keys=True)))
    return rows


def _version_row(version: Version) -> Row:
    # A source that is not there at a start may be at the next one.
    is_wanted = version.phase in WANTED or (version.phase is Phase.FAILED and version.is_restored)
    load = KeptLoad(
        version.source, version.options, version.labels_wanted,
        # What it was to take the place of has gone; what was loaded later, whatever its number, is to stay.
        version.keep_older or version.available_since > 0,
        version.samples_file, version.description, version.derived_from, version.derivation,
    )  # fmt: skip
    error = "" if is_wanted or version.error is None else json.dumps(version.error.to_json())
    phase = version.phase
    if phase in (Phase.EVICTED, Phase.RELOADING):
        phase = Phase.EVICTED
    elif is_wanted:
        phase = Phase.WAITING
    return (
        version.scope, version.model, version.number, version.created, phase.name, error, _text(_LOAD, load),
    )  # fmt: skip


def request_rows(position: int, request: AskedLoad | UnloadRequest, outcome: Outcome) -> dict[Key, Row]:
    """The row of a request that was carried out, by its id."""
    if isinstance(request, AskedLoad):
        kind, content = LOAD, _text(_ASKED_LOAD, request)
    else:
        kind, content = UNLOAD, _text(_ASKED_UNLOAD, request)
    return _by_key("requests", (kind, request.memory_id, position, content, json.dumps(outcome)))


def setting_rows(name: str, value: str) -> dict[Key, Row]:
    """The row of a setting; none when it is empty."""
    return _by_key("settings", (name, value)) if value else {}


def read_scope(row: Row) -> Scope:
    """A scope, without its models.

    Raises:
        ValueError: the row is not one of ours; so do the others.
    """
    name, config, created = row
    return Scope(name, _CONFIG.validate_json(config), created=created)


def read_version(row: Row, last_used: float) -> Version:
    """A version: where it is wanted WAITING, or EVICTED as it was."""
    scope, model, number, created, phase, error, text = row
    load = _LOAD.validate_json(text)
    version = Version(
        scope, model, number, 0, load.source, "", load.options, load.labels_wanted, load.keep_older,
        load.samples_file, None, load.description, load.derived_from, load.derivation,
        is_restored=phase in (Phase.WAITING.name, Phase.EVICTED.name), created=created,
    )  # fmt: skip
    try:
        version.phase = Phase[phase]
        version.error = ModelhostError.from_json(json.loads(error)) if error else None
    except KeyError as unknown:
        raise ValueError(f"unknown: {unknown}") from None
    version.statistics.last_used = last_used
    return version


def read_labels(text: str) -> dict[str, int]:
    """The labels of a model."""
    return _LABELS.validate_json(text)


def read_request(row: Row) -> KeptRequest:
    """A request that was carried out."""
    kind, _, _, content, outcome = row
    adapter = _ASKED_LOAD if kind == LOAD else _ASKED_UNLOAD
    return KeptRequest(adapter.validate_json(content), _OUTCOME.validate_json(outcome))


def _by_key(table: str, row: Row) -> dict[Key, Row]:
    return {key_of(table, row): row}


def _text(adapter: TypeAdapter[Any], value: Any) -> str:
    return adapter.dump_json(value).decode()
