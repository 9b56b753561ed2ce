"""One interpreter of a `.tflite` file: runs one call at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from .optimised_arrays import Array
from .optimised_pages import drop_pages

# From this size on a copy is saved by writing straight into the interpreter's memory; below, asking for it costs more.
_LARGE_BYTES = 4096

# What an interpreter is prepared for: the shapes of its inputs, each by the tensor's index.
Shapes = tuple[tuple[int, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class Places:
    """Where a signature's tensors are in a file: indices in its first subgraph; None for an input it does not have.

    A signature of another subgraph is reached by the names that the file gives to it (`runner`) and to its tensors.
    """

    inputs: tuple[int | None, ...]
    outputs: tuple[int, ...]
    runner: str = ""
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()

    def shapes(self, arrays: Mapping[int, Array]) -> Shapes:
        """The shapes of a call's inputs."""
        if self.runner:
            return ()
        return tuple((self.inputs[position] or 0, array.shape) for position, array in arrays.items())


class ShapesRefused(RuntimeError):
    """The model cannot take inputs of these shapes; the message says why."""


class Instance:
    """An interpreter, and the shapes it is prepared for."""

    def __init__(self, path: Path, threads: int) -> None:
        self.shapes: Shapes | None = None
        self._path = path
        self._interpreter = Interpreter(model_path=str(path), num_threads=threads)

    def input_details(self) -> list[dict[str, Any]]:
        """The inputs of the first subgraph, in order, with index, dtype and shape_signature."""
        details: list[dict[str, Any]] = self._interpreter.get_input_details()
        return details

    def output_details(self) -> list[dict[str, Any]]:
        """The outputs of the first subgraph."""
        details: list[dict[str, Any]] = self._interpreter.get_output_details()
        return details

    def pack(self) -> None:
        """Packs the weights, which takes long; to prepare for other shapes after that does not. See prepare."""
        self.prepare(())
        # Packed weights are copies: what was read for them is not needed in memory again.
        drop_pages(self._path)

    def prepare(self, shapes: Shapes) -> None:
        """Makes room for inputs of these shapes.

        Raises:
            ShapesRefused: there is no room, or the model's operations do not take them.
        """
        self.shapes = None
        try:
            for index, shape in shapes:
                self._interpreter.resize_tensor_input(index, shape)
            self._interpreter.allocate_tensors()
        except MemoryError:
            raise
        except Exception as error:
            raise ShapesRefused(str(error)) from None
        self.shapes = shapes

    def compute(self, places: Places, arrays: Mapping[int, Array], wanted: Sequence[int]) -> list[Array]:
        """The outputs wanted, for inputs by position.

        They may be the interpreter's own memory: they must be gone before the next call.
        """
        interpreter = self._interpreter
        if places.runner:
            runner = interpreter.get_signature_runner(places.runner)
            results = runner(**{places.input_names[position]: array for position, array in arrays.items()})
            return [results[places.output_names[position]] for position in wanted]
        shapes = places.shapes(arrays)
        if self.shapes != shapes:
            self.prepare(shapes)
        for position, array in arrays.items():
            index = places.inputs[position]
            if array.nbytes < _LARGE_BYTES:
                interpreter.set_tensor(index, array)
            else:
                interpreter.tensor(index)()[...] = array
        interpreter.invoke()
        return [self._output(places.outputs[position]) for position in wanted]

    def _output(self, index: int) -> Array:
        try:
            return np.asarray(self._interpreter.tensor(index)())
        except ValueError:
            # It answers so when an output whose shape depends on the inputs' values turns out to be empty.
            details = next(d for d in self.output_details() if d["index"] == index)
            return np.zeros(details["shape"], details["dtype"])
