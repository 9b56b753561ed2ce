"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import base64
import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .._errors import ModelhostError
from .._types import ModelInfo, Prediction, ScopeInfo, SignatureInfo, VersionInfo, WatchEvent, format_shape

_COLOURS = {
    "AVAILABLE": "green",
    "READY": "green",
    "LOADING": "yellow",
    "STARTING": "yellow",
    "UNLOADING": "yellow",
    "FAILED": "red",
    "BACKOFF": "red",
}
_MIB = 1 << 20


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


def print_models(models: Iterable[ModelInfo]) -> None:
    """A line for each version."""
    table = _table("MODEL", "VERSION", "STATE", "LABELS", "ENGINE", "MEMORY", "PREDICTIONS", "SOURCE")
    for model in models:
        for version in model.versions:
            table.add_row(
                f"{model.scope}/{model.model}",
                str(version.version),
                _state(version.state),
                ", ".join(sorted(label for label, number in model.labels.items() if number == version.version)),
                version.engine.engine.lower() if version.engine else "",
                size(version.memory.private_bytes),
                str(version.statistics.success_count),
                version.source,
            )
    console().print(table)


def print_model(model: ModelInfo) -> None:
    """All there is to tell of a model."""
    out = console()
    for index, version in enumerate(model.versions):
        if index:
            out.print()
        out.print(
            Text.assemble((f"{model.scope}/{model.model}@{version.version}", "bold"), "  ", _state(version.state))
        )
        labels = [label for label, number in model.labels.items() if number == version.version]
        facts = _table("", "")
        facts.show_header = False
        for name, value in _facts(version, labels).items():
            if value:
                facts.add_row(f"  {name}", value)
        out.print(facts)
        for signature in version.signatures.values():
            out.print(f"\n  signature {signature.name}")
            out.print(_signature(signature))
        if version.variables:
            out.print("\n  variables")
            table = _table("", "NAME", "DTYPE", "SHAPE", "MEMORY")
            for variable in version.variables:
                shape = format_shape(variable.shape)
                table.add_row("", variable.name, variable.dtype, shape, size(variable.byte_size))
            out.print(table)


def print_prediction(prediction: Prediction) -> None:
    """The outputs of a prediction; long ones are summarised."""
    out = console()
    for name, array in prediction.items():
        dtype = "string" if array.dtype == object else array.dtype.name
        out.print(f"{name}: {dtype} {format_shape(array.shape)}")
        out.print(np.array2string(array, separator=", "))


def print_scopes(scopes: Iterable[ScopeInfo]) -> None:
    """A line for each scope."""
    table = _table("SCOPE", "WORKER", "MODELS", "MEMORY", "LIMIT", "RUNNING", "QUEUED", "RESTARTS")
    for scope in scopes:
        table.add_row(
            scope.scope,
            _state(scope.worker_state),
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
    table = _table("", "")
    table.show_header = False
    for name, value in jsonable(scope.config).items():
        table.add_row(f"  {name.replace('_', ' ')}", "never" if value is None else str(value))
    console().print(table)


def print_event(event: WatchEvent) -> None:
    """A line for an event of a watch."""
    version = event.version
    if version is None:
        console().print(f"{event.revision:>8}  {event.type}")
        return
    line = Text.assemble(
        f"{event.revision:>8}  {event.type:<8}  {version.scope}/{version.model}@{version.version}  ",
        _state(version.state),
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
    if count < _MIB:
        return f"{count:,} B"
    return f"{count / _MIB:,.1f} MiB"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column in ("VERSION", "MEMORY", "LIMIT", "PREDICTIONS", "MODELS", "RUNNING", "QUEUED", "RESTARTS")
        # On a narrow terminal it is the last column that is folded.
        wraps = column == columns[-1]
        table.add_column(column, justify="right" if right else "left", no_wrap=not wraps, overflow="fold")
    return table


def _state(state: str) -> Text:
    return Text(state, style=_COLOURS.get(state, ""))


def _facts(version: VersionInfo, labels: list[str]) -> dict[str, str]:
    engine, statistics, memory = version.engine, version.statistics, version.memory
    answered = statistics.success_count
    mean = (statistics.queue_seconds + statistics.run_seconds) / answered if answered else 0
    return {
        "source": version.source,
        "labels": ", ".join(sorted(labels)),
        "error": str(version.error or ""),
        "progress": f"{version.progress.stage} {version.progress.fraction:.0%}" if version.progress else "",
        "engine": ", ".join(filter(None, (engine.engine.lower(), engine.loader))) if engine else "",
        "why": engine.explanation if engine else "",
        "memory": size(memory.private_bytes),
        "shared memory": size(memory.shared_bytes),
        "variables": size(memory.variable_bytes),
        "loaded in": f"{statistics.load_seconds:.2f} s" if statistics.load_seconds else "",
        "predictions": f"{answered} answered, {statistics.failure_count} failed, {statistics.in_flight} under way",
        "mean time": f"{mean * 1e3:.2f} ms" if answered else "",
        "crashes": str(statistics.crash_count or ""),
        "annotations": ", ".join(f"{key}={value}" for key, value in sorted(version.annotations.items())),
        "pinned": "yes" if version.pinned else "",
        "evictable": "yes" if version.evictable else "",
    }


def _signature(signature: SignatureInfo) -> Table:
    table = _table("", "", "NAME", "DTYPE", "SHAPE", "")
    for kind, infos in (("input", signature.inputs), ("output", signature.outputs)):
        for info in infos.values():
            optional = "optional" if info.optional else ""
            table.add_row("  ", kind, info.name, info.dtype, format_shape(info.shape), optional)
    return table
