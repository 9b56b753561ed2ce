"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import base64
import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .._errors import ModelhostError
from .._scope_types import ScopeInfo
from .._types import Prediction, WatchEvent, format_shape

_COLOURS = {
    "AVAILABLE": "green",
    "READY": "green",
    "LOADING": "yellow",
    "STARTING": "yellow",
    "UNLOADING": "yellow",
    "EVICTED": "cyan",
    "FAILED": "red",
    "BACKOFF": "red",
    "CHOSEN": "green",
    "DIFFERENT": "yellow",
}
_NUMBERS = frozenset(
    {
        "VERSION", "MEMORY", "LIMIT", "PREDICTIONS", "MODELS", "RUNNING", "QUEUED", "RESTARTS",
        "SPEED-UP", "DIFFERENCE", "LARGEST", "MEAN", "SAME CLASS", "ORIGINAL", "OPTIMIZED", "CHANGE",
    }
)  # fmt: skip


def jsonable(value: Any) -> Any:
    """`value` in terms of JSON: bytes as text, or {"b64": ...} when not UTF-8, complex numbers as [real, imaginary]."""
    match value:
        case ModelhostError():
            return {
                "code": value.code,
                "reason": value.reason,
                "message": str(value),
                "details": value.details,
                "retry_after": value.retry_after,
                "violations": [violation._asdict() for violation in value.violations],
            }
        case Mapping():
            return {str(key): jsonable(item) for key, item in value.items()}
        case list() | tuple():
            return [jsonable(item) for item in value]
        case np.ndarray():
            # bfloat16 and its like are floats to nobody but numpy.
            return jsonable((value.astype(np.float32) if value.dtype.kind == "V" else value).tolist())
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                return {"b64": base64.b64encode(value).decode()}
        case complex():
            return [value.real, value.imag]
        case datetime():
            return value.isoformat()
        case _ if dataclasses.is_dataclass(value):
            return {field.name: jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
        case _:
            return value


def print_json(value: Any, indent: int | None = 2) -> None:
    """Prints one JSON document."""
    print(json.dumps(jsonable(value), indent=indent, ensure_ascii=False), flush=True)


def console() -> Console:
    """Where tables go. Names and messages are printed as they are, and nothing is wrapped or cut off in a pipe."""
    width = None if sys.stdout.isatty() else 100_000
    return Console(file=sys.stdout, width=width, markup=False, highlight=False, emoji=False)


def print_prediction(prediction: Prediction) -> None:
    """The outputs of a prediction; long ones are summarised."""
    out = console()
    for name, array in prediction.items():
        dtype = "string" if array.dtype == object else array.dtype.name
        out.print(f"{name}: {dtype} {format_shape(array.shape)}")
        out.print(np.array2string(array, separator=", "))


def print_scopes(scopes: Iterable[ScopeInfo]) -> None:
    """A line for each scope."""
    table = new_table("SCOPE", "WORKER", "MODELS", "MEMORY", "LIMIT", "RUNNING", "QUEUED", "RESTARTS")
    for scope in scopes:
        table.add_row(
            scope.scope,
            coloured(scope.worker_state),
            str(scope.model_count),
            size(scope.memory.pss_bytes),
            size(scope.memory.limit_bytes),
            str(scope.statistics.in_flight),
            str(scope.statistics.queued),
            str(scope.statistics.worker_restarts),
        )
    console().print(table)


def print_scope(scope: ScopeInfo) -> None:
    """All there is to tell of a scope."""
    print_scopes([scope])
    settings = {
        name.replace("_", " "): "never" if value is None else str(value)
        for name, value in jsonable(scope.config).items()
        if name != "memory_limit_bytes"
    }
    memory = {"memory limit": size(scope.config.memory_limit_bytes) or "none", "evictions": _evictions(scope)}
    console().print(facts_table(settings | memory))


def _evictions(scope: ScopeInfo) -> str:
    """Nothing where all that was wanted has always been in memory."""
    statistics = scope.statistics
    if not (statistics.eviction_count or statistics.miss_count):
        return ""
    return (
        f"{statistics.eviction_count}; predictions: {statistics.hit_count} hits, {statistics.miss_count} misses, "
        f"{statistics.thrashing_count} refused for thrashing"
    )


def print_event(event: WatchEvent) -> None:
    """A line for an event of a watch."""
    version = event.version
    if version is None:
        console().print(f"{event.revision:>8}  {event.type}")
        return
    line = Text.assemble(
        f"{event.revision:>8}  {event.type:<8}  {version.scope}/{version.model}@{version.version}  ",
        coloured(version.state),
    )
    if version.progress is not None:
        line.append(f"  {version.progress.stage} {version.progress.fraction:.0%}")
    if version.error is not None:
        line.append(f"  {version.error}")
    console().print(line)


def size(count: int) -> str:
    """A size for people; nothing for 0, which means that it is unknown or unlimited."""
    if not count:
        return ""
    if count < 1 << 10:
        return f"{count} B"
    if count < 1 << 20:
        return f"{count / (1 << 10):,.1f} KiB"
    return f"{count / (1 << 20):,.1f} MiB"


def new_table(*columns: str) -> Table:
    """A table with these headings; numbers stand to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        # On a narrow terminal it is the last column that is folded.
        wraps = column == columns[-1]
        justify: Literal["left", "right"] = "right" if column in _NUMBERS else "left"
        table.add_column(column, justify=justify, no_wrap=not wraps, overflow="fold")
    return table


def facts_table(facts: Mapping[str, str]) -> Table:
    """Names and values below each other; those without a value are left out."""
    table = new_table("", "")
    table.show_header = False
    for name, value in facts.items():
        if value:
            table.add_row(f"  {name}", value)
    return table


def coloured(word: str) -> Text:
    """A state, in the colour of how good it is."""
    return Text(word, style=_COLOURS.get(word, ""))
