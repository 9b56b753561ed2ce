"""Where a signature is in a session: what is fed, what is fetched, and which inputs and outputs are one tensor."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import ModelhostError, Reason, brief
from . import tensorflow_capi as capi
from .tensorflow_programs import Outputs
from .tensorflow_signatures import Entry


class BoundSignature:
    """A signature's places in a session, as the arrays that a run takes.

    A session refuses a tensor that is fed twice, or fed and fetched; signatures of TensorFlow 1 may ask for both.

    Args:
        find: finds the outputs of the session's graph.
        entry: the signature.
        weights: places and TF_Tensors of what is fed with every run.
    """

    def __init__(self, find: Outputs, entry: Entry, weights: Sequence[tuple[capi.Output, int]] = ()) -> None:
        self._names = [endpoint.spec.name for endpoint in entry.inputs]
        self._inputs = [find(endpoint.tensor) for endpoint in entry.inputs]
        self._outputs = [find(endpoint.tensor) for endpoint in entry.outputs]
        self._weight_places = [place for place, _ in weights]
        self._weights = [value for _, value in weights]
        self.defaults: dict[int, int] = {}
        self.all_outputs = tuple(range(len(self._outputs)))
        self._feeds: dict[tuple[int, ...], Any] = {}
        self._fetches: dict[tuple[int, ...], Any] = {}
        places = [(output.operation, output.index) for output in self._inputs]
        self._first = [places.index(place) for place in places]
        self._passed = {
            i: places.index(place)
            for i, output in enumerate(self._outputs)
            if (place := (output.operation, output.index)) in places
        }
        self.is_plain = not self._passed and len(set(places)) == len(places)

    def feeds(self, positions: tuple[int, ...]) -> Any:
        """The array of outputs to feed for these inputs."""
        array = self._feeds.get(positions)
        if array is None:
            places = [*[self._inputs[i] for i in positions], *self._weight_places]
            array = self._feeds[positions] = (capi.Output * len(places))(*places)
        return array

    def values(self, inputs: Iterable[int]) -> Any:
        """The array of tensors to feed, when these are the inputs'."""
        tensors = [*inputs, *self._weights]
        return (ctypes.c_void_p * len(tensors))(*tensors)

    def fetches(self, positions: tuple[int, ...]) -> Any:
        """The array of outputs to fetch for these outputs."""
        array = self._fetches.get(positions)
        if array is None:
            array = (capi.Output * len(positions))(*[self._outputs[i] for i in positions])
            self._fetches[positions] = array
        return array

    def merged(self, fed: Mapping[int, int]) -> dict[int, int]:
        """The tensors fed, one for each place.

        Raises:
            ModelhostError: MODEL_REJECTED_INPUT when two inputs are one tensor and differ.
        """
        merged: dict[int, int] = {}
        for position, value in fed.items():
            first = self._first[position]
            if first in merged and capi.read_tensor(merged[first]) != capi.read_tensor(value):
                raise ModelhostError(
                    Reason.MODEL_REJECTED_INPUT,
                    f"inputs {brief(self._names[first])} and {brief(self._names[position])} are one tensor of the "
                    "model; expected equal values, got different ones",
                )
            merged.setdefault(first, value)
        return merged

    def fetched(self, wanted: Sequence[int], fed: Mapping[int, int]) -> tuple[int, ...]:
        """The outputs wanted that are not just inputs fed."""
        return tuple(i for i in wanted if self._passed.get(i) not in fed)

    def answers(self, wanted: Sequence[int], fed: Mapping[int, int], results: Sequence[int]) -> list[int]:
        """The tensors of the outputs wanted, from what was fed and what was fetched."""
        computed = iter(results)
        return [fed[self._passed[i]] if self._passed.get(i) in fed else next(computed) for i in wanted]
