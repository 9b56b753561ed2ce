"""Makes the environments and runs each one's tests in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .environments import NAMES, python_of

_ROOT = Path(__file__).parents[2]


def main(arguments: list[str]) -> int:
    """Runs the suites named (all when none is), with pytest's options from the first one on that begins with a dash."""
    split = next((i for i, argument in enumerate(arguments) if argument.startswith("-")), len(arguments))
    names, options = arguments[:split] or NAMES, arguments[split:]
    failed = []
    for name in names:
        print(f"== the tests of {name}'s own clients", flush=True)
        suite = Path(__file__).parent / name
        done = subprocess.run(
            [python_of(name), "-m", "pytest", "--rootdir", str(suite.parent), "-c", os.devnull, "-q",
             "-p", "no:cacheprovider", *options, str(suite)],
            cwd=_ROOT,
            # Borrowed packages may have plug-ins of their own.
            env={**os.environ, "MODELHOST_PYTHON": sys.executable, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        )  # fmt: skip
        if done.returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
