"""The least a caller writes: connect, load, predict, unload.

    modelhost serve &
    python examples/quickstart.py /models/half_plus_two 1 2 5

Takes any SavedModel with one input that accepts a list of numbers, by a path on the server's machine.
"""

from __future__ import annotations

import sys

import modelhost


def main(path: str, numbers: list[float]) -> None:
    """Loads the model, asks it once, and unloads it."""
    with modelhost.Client("localhost:8500") as client:
        client.load("quickstart", path)
        answer = client.predict("quickstart", numbers)
        for name, array in answer.items():
            print(f"{name} = {array}   (version {answer.version})")
        client.unload("quickstart")


if __name__ == "__main__":
    main(sys.argv[1], [float(number) for number in sys.argv[2:]])
