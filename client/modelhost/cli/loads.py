"""Commands that load models: load, load-many."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import Client, LoadSpec, LoadUpdate, VersionInfo
from . import exits, progress, render
from .batching import (
    BatchSizes,
    MaxBatchDelay,
    MaxBatchSize,
    MaxQueue,
    Mode,
    PadVariableLength,
    QueueTimeout,
    batching_of,
)
from .inputs import read_arrays
from .session import session_of

_ENGINE_PANEL = "Engine and warm-up"
_MEMORY_PANEL = "Memory"


class EngineChoice(StrEnum):
    """The engines that may be asked for."""

    TENSORFLOW = "tensorflow"
    LITERT = "litert"
    OPENVINO = "openvino"


Labels = Annotated[
    list[str] | None, typer.Option("--label", help="Label to move to the version; may be repeated.", metavar="NAME")
]
Tags = Annotated[
    list[str] | None,
    typer.Option("--tag", help='Tag of the MetaGraph to load; may be repeated. Default: "serve".', metavar="TAG"),
]
KeepOlder = Annotated[
    bool, typer.Option("--keep-older", help="Keep older versions; else those without a label are unloaded.")
]
EngineOption = Annotated[
    EngineChoice | None,
    typer.Option(
        help="Run it with this engine. Default: the server chooses the fastest that gives TensorFlow's outputs.",
        case_sensitive=False,
        rich_help_panel=_ENGINE_PANEL,
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        help="Largest difference from TensorFlow's outputs that another engine may show, relative to the output's "
        "scale. Default: 0.0001.",
        rich_help_panel=_ENGINE_PANEL,
    ),
]
RequireWarmup = Annotated[
    bool,
    typer.Option(
        "--require-warmup",
        help="Fail when a warm-up request fails; else that is only told, by show.",
        rich_help_panel=_ENGINE_PANEL,
    ),
]
WarmupFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--warmup-file",
        help="Inputs to warm up with and to check engines on: an .npz file here, one array an input, named by the "
        "input; may be repeated.",
        metavar="FILE",
        rich_help_panel=_ENGINE_PANEL,
    ),
]


Pinned = Annotated[bool, typer.Option("--pinned", help="Never evict it.", rich_help_panel=_MEMORY_PANEL)]
Evictable = Annotated[
    bool,
    typer.Option(
        "--evictable",
        help="While idle, it may make room in memory for others; its next prediction loads it again.",
        rich_help_panel=_MEMORY_PANEL,
    ),
]
IdleTimeout = Annotated[
    float | None,
    typer.Option(
        help="Evict it when it has been idle for so long. Default: never. Implies --evictable.",
        metavar="SECONDS",
        rich_help_panel=_MEMORY_PANEL,
    ),
]


def load(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(help="MODEL or SCOPE/MODEL, with @3 for the version's number.", metavar="MODEL")
    ],
    source: Annotated[
        str,
        typer.Argument(
            help="What to load: a URI, or a path on the server's machine, of a SavedModel, .tflite or .keras.",
            metavar="SOURCE",
        ),
    ],
    version: Annotated[
        int | None, typer.Option(help="Number of the version. Default: one more than the highest so far.", min=1)
    ] = None,
    upload: Annotated[
        bool, typer.Option("--upload", help="SOURCE is a path on this machine; send it to the server first.")
    ] = False,
    label: Labels = None,
    tag: Tags = None,
    keep_older: KeepOlder = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until the version is available.")] = False,
    engine: EngineOption = None,
    tolerance: Tolerance = None,
    require_warmup: RequireWarmup = False,
    warmup_file: WarmupFiles = None,
    wait_tuned: Annotated[
        bool,
        typer.Option(
            "--wait-tuned",
            help="Also wait until the server has found the fastest engine, which can take minutes.",
            rich_help_panel=_ENGINE_PANEL,
        ),
    ] = False,
    batching: Mode = None,
    max_batch_size: MaxBatchSize = None,
    max_batch_delay: MaxBatchDelay = None,
    batch_size: BatchSizes = None,
    pad_variable_length: PadVariableLength = False,
    max_queue: MaxQueue = None,
    queue_timeout: QueueTimeout = None,
    pinned: Pinned = False,
    evictable: Evictable = False,
    idle_timeout: IdleTimeout = None,
) -> None:
    """Load a version of a model, and wait until it answers predictions."""
    session = session_of(context)
    if no_wait and wait_tuned:
        exits.misused("--no-wait and --wait-tuned contradict each other")
    warmup = _samples(warmup_file)
    options = batching_of(
        batching, max_batch_size, max_batch_delay, batch_size, pad_variable_length, max_queue, queue_timeout
    )
    shown = not (session.json or no_wait) and sys.stderr.isatty()
    with session.client() as client:
        with progress.bar(model, shown) as on_progress:
            loaded = client.load(
                model,
                source,
                version=version,
                labels=label or (),
                tags=tag or (),
                engine=None if engine is None else engine.value,
                tolerance=tolerance,
                require_warmup=require_warmup,
                batching=options,
                warmup=warmup,
                keep_older=keep_older,
                pinned=pinned,
                evictable=evictable,
                idle_timeout=idle_timeout,
                upload=upload,
                wait=not no_wait,
                timeout=session.timeout,
                on_progress=on_progress,
            )
        if wait_tuned:
            loaded = _tuned(client, loaded, session.timeout, shown)
    if session.json:
        render.print_json(loaded)
    else:
        typer.echo(f"{_name(loaded)} is {loaded.state}{_on_engine(loaded) if wait_tuned else ''}")


def load_many(
    context: typer.Context,
    models: Annotated[
        list[str],
        typer.Argument(
            help="What to load, and under which name: MODEL or SCOPE/MODEL, =, and a source as for load.",
            metavar="MODEL=SOURCE",
        ),
    ],
    label: Labels = None,
    tag: Tags = None,
    keep_older: KeepOlder = False,
    engine: EngineOption = None,
    tolerance: Tolerance = None,
    require_warmup: RequireWarmup = False,
    warmup_file: WarmupFiles = None,
    batching: Mode = None,
    max_batch_size: MaxBatchSize = None,
    max_batch_delay: MaxBatchDelay = None,
    batch_size: BatchSizes = None,
    pad_variable_length: PadVariableLength = False,
    max_queue: MaxQueue = None,
    queue_timeout: QueueTimeout = None,
    pinned: Pinned = False,
    evictable: Evictable = False,
    idle_timeout: IdleTimeout = None,
) -> None:
    """Load several models at once, all with the same options; one that fails stops no other.

    The exit code is that of the first that failed.
    """
    session = session_of(context)
    warmup = _samples(warmup_file)
    options = batching_of(
        batching, max_batch_size, max_batch_delay, batch_size, pad_variable_length, max_queue, queue_timeout
    )
    pairs = [_pair(item) for item in models]
    specs = [
        LoadSpec(
            model=name,
            source=source,
            labels=label or (),
            tags=tag or (),
            engine=None if engine is None else engine.value,
            tolerance=tolerance,
            require_warmup=require_warmup,
            batching=options,
            warmup=warmup,
            keep_older=keep_older,
            pinned=pinned,
            evictable=evictable,
            idle_timeout=idle_timeout,
        )
        for name, source in pairs
    ]
    outcomes: dict[int, LoadUpdate] = {}
    shown = not session.json and sys.stderr.isatty()
    try:
        with session.client() as client, progress.bars([name for name, _ in pairs], shown) as tell:
            for update in client.load_many(specs, timeout=session.timeout):
                tell(update)
                if update.progress is None:
                    outcomes[update.index] = update
    finally:
        # When the time runs out, some have an outcome all the same.
        _print_outcomes(pairs, [outcomes[index] for index in sorted(outcomes)], session.json)
    errors = [outcomes[index].error for index in sorted(outcomes)]
    exits.with_first(error for error in errors if error is not None)


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    app.command(epilog="Example: modelhost load team-a/ranker /models/ranker --label stable")(load)
    app.command("load-many", epilog="Example: modelhost load-many one=/models/one team-a/two=/models/two")(load_many)


def _samples(files: Sequence[Path] | None) -> list[dict[str, Any]]:
    try:
        return [read_arrays(str(file)) for file in files or ()]
    except ValueError as error:
        exits.misused(f"--warmup-file: {error}")


def _pair(item: str) -> tuple[str, str]:
    name, equals, source = item.partition("=")
    if not (name and equals and source):
        exits.misused(f"expected MODEL=SOURCE, e.g. ranker=/models/ranker; got {item!r}")
    return name, source


def _tuned(client: Client, loaded: VersionInfo, timeout: float | None, shown: bool) -> VersionInfo:
    with progress.spinner(f"looking for the fastest engine for {_name(loaded)}", shown):
        return client.wait_tuned(f"{loaded.scope}/{loaded.model}", version=loaded.version, timeout=timeout)


def _name(version: VersionInfo) -> str:
    return f"{version.scope}/{version.model}@{version.version}"


def _on_engine(version: VersionInfo) -> str:
    if version.engine is None:
        return ""
    chosen = next((candidate for candidate in version.engine.candidates if candidate.outcome == "CHOSEN"), None)
    gain = f", {chosen.speedup:.1f} times as fast as tensorflow" if chosen and chosen.speedup else ""
    return f" on {version.engine.engine.lower()}{gain}"


def _print_outcomes(pairs: Sequence[tuple[str, str]], outcomes: Sequence[LoadUpdate], as_json: bool) -> None:
    if as_json:
        render.print_json(
            [
                {"model": pairs[o.index][0], "source": pairs[o.index][1], "version": o.version, "error": o.error}
                for o in outcomes
            ]
        )
        return
    for outcome in outcomes:
        if outcome.version is not None:
            typer.echo(f"{_name(outcome.version)} is {outcome.version.state}")
        elif outcome.error is not None:
            exits.tell(outcome.error, pairs[outcome.index][0])
