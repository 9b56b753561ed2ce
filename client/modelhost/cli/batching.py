"""The options of loads that say how predictions run together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from .._batching_types import Batching, SignatureBatching

_PANEL = "Batching"

Mode = Annotated[
    bool | None,
    typer.Option(
        "--batching/--no-batching",
        help="Run predictions together in every signature that looks as if it could, or in none. Default: where the "
        "server found that it makes no difference to the answers.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
MaxBatchSize = Annotated[
    int | None,
    typer.Option(
        help="Examples in a batch at most. Default: as many as make it faster.", min=1, rich_help_panel=_PANEL
    ),
]
MaxBatchDelay = Annotated[
    float | None,
    typer.Option(
        help="Seconds that a prediction waits for others. Default: it does not.", min=0, rich_help_panel=_PANEL
    ),
]
BatchSizes = Annotated[
    list[int] | None,
    typer.Option(
        "--batch-size",
        help="A size that batches may have, filled up with repeated examples; may be repeated. Default: any.",
        min=1,
        rich_help_panel=_PANEL,
    ),
]
PadVariableLength = Annotated[
    bool,
    typer.Option(
        "--pad-variable-length",
        help="Fill inputs of different lengths up with zeros, so that they may share a batch.",
        rich_help_panel=_PANEL,
    ),
]
MaxQueue = Annotated[
    int | None,
    typer.Option(
        help="Predictions of the version that may wait. Default: the scope's limit.", min=1, rich_help_panel=_PANEL
    ),
]
QueueTimeout = Annotated[
    float | None,
    typer.Option(
        help="Seconds after which a prediction that still waits is refused. Default: at its deadline.",
        min=0,
        rich_help_panel=_PANEL,
    ),
]


def batching_of(
    mode: bool | None,
    max_batch_size: int | None,
    max_batch_delay: float | None,
    batch_sizes: Sequence[int] | None,
    pad_variable_length: bool,
    max_queue: int | None,
    queue_timeout: float | None,
) -> Batching:
    """What the options ask for."""
    return Batching(
        mode=None if mode is None else "on" if mode else "off",
        max_batch_size=max_batch_size,
        max_delay=max_batch_delay,
        allowed_batch_sizes=sorted(set(batch_sizes or ())),
        pad_variable_length=pad_variable_length,
        max_queue=max_queue,
        queue_timeout=queue_timeout,
    )


def described(batching: SignatureBatching) -> str:
    """How predictions of a signature run together, in a line."""
    if batching.state != "ON":
        return f"{batching.state.lower()}: {batching.explanation}"
    mean = f", {batching.prediction_count / batching.batch_count:.1f} on average" if batching.batch_count else ""
    return f"on, up to {batching.max_batch_size} at a time{mean}: {batching.explanation}"


def options_described(batching: Batching) -> str:
    """What was asked for, in a line; empty when nothing was."""
    parts: list[str] = [batching.mode or ""]
    if batching.max_batch_size:
        parts.append(f"up to {batching.max_batch_size} at a time")
    if batching.max_delay:
        parts.append(f"delayed by up to {batching.max_delay * 1e3:g} ms")
    if batching.allowed_batch_sizes:
        parts.append(f"sizes {' '.join(map(str, batching.allowed_batch_sizes))}")
    if batching.pad_variable_length:
        parts.append("padded")
    if batching.max_queue:
        parts.append(f"queue of {batching.max_queue}")
    if batching.queue_timeout:
        parts.append(f"queue timeout {batching.queue_timeout:g} s")
    return ", ".join(filter(None, parts))
