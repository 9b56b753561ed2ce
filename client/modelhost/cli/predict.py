"""The commands that ask models: predict, predict-many."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from .._errors import ModelhostError
from .._types import Prediction
from . import exits, render
from .inputs import read_inputs
from .session import session_of


def predict(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(help="MODEL or SCOPE/MODEL, with @3 or @stable for one version.", metavar="MODEL")
    ],
    inputs: Annotated[
        str | None,
        typer.Argument(
            help="A .npy, .npz or .json file, or - for JSON on stdin: inputs by name, or one nested list for a model "
            'that needs a single input. TensorFlow Serving\'s {"inputs": ...} and {"instances": ...} will do.',
            metavar="[INPUTS]",
            show_default=False,
        ),
    ] = None,
    named: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", help="One input: name=file.npy; may be repeated.", metavar="NAME=FILE"),
    ] = None,
    signature: Annotated[str, typer.Option(help='Signature to run. Default: "serving_default", or the only one.')] = "",
    priority: Annotated[
        int, typer.Option(help="Among predictions that wait, those with the highest priority run first.")
    ] = 0,
    output: Annotated[Path | None, typer.Option(help="Write the outputs to this .npz file.", metavar="FILE")] = None,
) -> None:
    """Run a model on inputs from files."""
    session = session_of(context)
    if output is not None and output.suffix != ".npz":
        exits.misused(f"--output: expected a .npz file; got {str(output)!r}")
    try:
        arrays = read_inputs(inputs, named or ())
    except ValueError as error:
        exits.misused(str(error))
    with session.client() as client:
        prediction = client.predict(model, arrays, signature=signature, priority=priority)
    if output is not None:
        _save(prediction, output)
    elif session.json:
        render.print_json({"version": prediction.version, "outputs": prediction})
    else:
        render.print_prediction(prediction)


def predict_many(
    context: typer.Context,
    models: Annotated[
        list[str],
        typer.Argument(
            help="MODEL or SCOPE/MODEL, with @3 or @stable for one version; all of one scope.", metavar="MODEL"
        ),
    ],
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input",
            "-i",
            help="FILE, or - for JSON on stdin, as predict takes it; or one input, NAME=FILE, which may be repeated.",
            metavar="FILE|NAME=FILE",
        ),
    ],
) -> None:
    """Run the same inputs through several models at once; one that fails stops no other.

    The exit code is that of the first that failed.
    """
    session = session_of(context)
    named = [item for item in inputs if "=" in item]
    sources = [item for item in inputs if "=" not in item]
    if len(sources) > 1:
        exits.misused(f"--input: expected one file, and NAME=FILE for more inputs; got {', '.join(sources)}")
    try:
        arrays = read_inputs(sources[0] if sources else None, named)
    except ValueError as error:
        exits.misused(str(error))
    with session.client() as client:
        results = list(zip(models, client.predict_many(models, arrays), strict=True))
    if session.json:
        render.print_json([_document(name, result) for name, result in results])
    else:
        for name, result in results:
            if isinstance(result, ModelhostError):
                exits.tell(result, name)
            else:
                typer.echo(f"{name}, version {result.version}")
                render.print_prediction(result)
    exits.with_first(result for _, result in results if isinstance(result, ModelhostError))


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    app.command(epilog="Example: echo '[1.0, 2.0]' | modelhost predict half_plus_two -")(predict)
    app.command("predict-many", epilog="Example: modelhost predict-many one two@stable --input inputs.json")(
        predict_many
    )


def _document(name: str, result: Prediction | ModelhostError) -> dict[str, object]:
    if isinstance(result, ModelhostError):
        return {"model": name, "error": result}
    return {"model": name, "version": result.version, "outputs": result}


def _save(prediction: Prediction, path: Path) -> None:
    # numpy stores objects as pickles, which nobody should have to trust; byte strings it stores as they are.
    arrays = {name: array.astype(np.bytes_) if array.dtype == object else array for name, array in prediction.items()}
    try:
        np.savez(path, allow_pickle=False, **arrays)
    except OSError as error:
        exits.misused(f"{path}: {error.strerror or error}")
