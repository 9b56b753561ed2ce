"""`python -m modelhost_server`: the same as `modelhost serve`."""

from __future__ import annotations

from .cli import app

if __name__ == "__main__":
    app()
