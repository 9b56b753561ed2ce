"""Where a signature is in a session: what is fed, what is fetched, and which inputs and outputs are one tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ModelhostError, Reason, brief
from . import tensorflow_capi as capi
from .tensorflow_signatures import Entry


class BoundSignature:
    """A signature's places in a session, as the arrays that a run takes.

    A session refuses a tensor that is fed twice, or fed and fetched; signatures of TensorFlow 1 may ask for both.
    """

    def __init__(self, session: capi.Session, entry: Entry) -> None:
        self._names = [endpoint.spec.name for endpoint in entry.inputs]
        self._inputs = [session.output(endpoint.tensor) for endpoint in entry.inputs]
        self._outputs = [session.output(endpoint.tensor) for endpoint in entry.outputs]
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
            array = (capi.Output * len(positions))(*[self._inputs[i] for i in positions])
            self._feeds[positions] = array
        return array

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
