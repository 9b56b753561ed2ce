"""The command that makes a smaller or faster version of a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .._optimization_types import OptimizationMethod
from . import exits, progress, render, render_report
from .inputs import read_arrays
from .session import session_of

# As in the server's files of samples.
_TRUE_CLASSES = "labels"


def optimize(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            help="MODEL or SCOPE/MODEL, with @3 or @stable for the version to start from; the highest AVAILABLE one "
            "without.",
            metavar="MODEL",
        ),
    ],
    method: Annotated[
        OptimizationMethod,
        typer.Option("--method", "-m", help="What to do; see above.", case_sensitive=False, show_default=False),
    ],
    sparsity: Annotated[
        float | None,
        typer.Option(help="For prune: share of each layer's weights that become zero, above 0 and below 1."),
    ] = None,
    samples: Annotated[
        Path | None,
        typer.Option(
            help='Representative inputs: an .npz file here, one array an input, named by the input, and if "labels" '
            "is among them, the right class of each example. full_int8 needs some.",
            metavar="FILE",
        ),
    ] = None,
    samples_file: Annotated[
        str | None, typer.Option(help="The same, for a file on the server's machine.", metavar="PATH")
    ] = None,
    new_version: Annotated[
        int | None, typer.Option(help="Number of the new version. Default: the next one.", min=1)
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Label to move to the new version; may be repeated.", metavar="NAME")
    ] = None,
) -> None:
    """Make a smaller or faster version of a model, beside the original, and compare the two.

    dynamic_int8: weights become int8, activations are quantized while running.

    float16: weights become float16, which halves the file.

    full_int8: weights and activations become int8, calibrated with samples.

    weight_only_int8: weights become int8, the computation stays in float32.

    prune: the smallest weights become zero, which makes nothing faster, but files that compress better.
    """
    session = session_of(context)
    try:
        arrays = {} if samples is None else read_arrays(str(samples))
    except ValueError as error:
        exits.misused(f"--samples: {error}")
    true_classes: Any = arrays.pop(_TRUE_CLASSES, ())
    shown = not session.json and sys.stderr.isatty()
    with session.client() as client, progress.bar(model, shown) as on_progress:
        report = client.optimize(
            model,
            method,
            sparsity=sparsity,
            samples=[arrays] if arrays else (),
            samples_file=samples_file,
            true_classes=true_classes,
            new_version=new_version,
            labels=label or (),
            timeout=session.timeout,
            on_progress=on_progress,
        )
    if session.json:
        render.print_json(report)
    else:
        render_report.print_report(report)


def add_to(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command(epilog="Example: modelhost optimize digits --method dynamic_int8 --samples digits.npz --label small")(
        optimize
    )
