"""`python -m modelhost_server`: the same as `modelhost serve`."""

from __future__ import annotations

import typer

from .cli import serve

if __name__ == "__main__":
    typer.run(serve)
