"""`python -m modelhost_server.converter SOURCE TARGET`: exports a `.keras` file as a SavedModel directory.

Exits 0, or 1 after printing {"error": …} on standard output.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_NICENESS = 10


def _export(source: str, target: str) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras

    # Safe mode refuses files that carry code of their own.
    model = keras.saving.load_model(source, compile=False, safe_mode=True)
    model.export(target, verbose=False)


def main() -> int:
    """Converts, and says how it went."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.nice(_NICENESS)
    # What libraries print must not get between the server and the answer.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        _export(sys.argv[1], sys.argv[2])
    except Exception as error:
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        print(json.dumps({"error": first_line[:500]}), file=answer, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
