"""Stage `export`: a `.keras` file becomes a SavedModel directory."""

from __future__ import annotations

import os
from typing import Any


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Exports the file `source` to the directory `target`."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras

    # Safe mode refuses files that carry code of their own.
    model = keras.saving.load_model(job["source"], compile=False, safe_mode=True)
    model.export(job["target"], verbose=False)
    return {}
