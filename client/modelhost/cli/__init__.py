"""The command line. It needs the extra `cli`, and says so where that is missing."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line and ends the process."""
    try:
        from .app import app
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in ("typer", "rich"):
            raise
        print("modelhost: the command line needs two more libraries: pip install 'modelhost[cli]'", file=sys.stderr)
        sys.exit(2)
    app(prog_name="modelhost")
