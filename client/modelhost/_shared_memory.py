"""Tensors of a prediction in shared memory."""

from __future__ import annotations

import math
import re
import weakref
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from modelhost.v1.tensor_pb2 import SharedMemoryReference, Tensor

from . import _tensors
from ._errors import InternalError, ModelhostError
from ._regions import Range, Region

# From here on a tensor is worth a range of shared memory.
LARGE_BYTES = 64 << 10

# After these the server may still be at work on the prediction.
_OPEN_ENDED = frozenset({"DEADLINE_EXCEEDED", "CANCELLED"})

_LOOPBACK = re.compile(
    r"unix:.*|(?:dns:(?:///)?)?localhost(?::\d+)?|(?:ipv4:)?127(?:\.\d{1,3}){3}(?::\d+)?|(?:ipv6:)?\[::1\](?::\d+)?"
)


def is_on_this_machine(target: str) -> bool:
    """Whether a server at `target` is on this machine, whatever the names that others give to theirs."""
    return _LOOPBACK.fullmatch(target) is not None


class Exchange:
    """What one prediction has in a region: its inputs until it has been answered, its outputs as long as they are
    used.
    """

    @classmethod
    def within(cls, region: Region | None) -> Self | None:
        """An exchange, to be ended; None when there is no region, or it has just been given up."""
        return cls(region) if region is not None and region.enter() else None

    def __init__(self, region: Region) -> None:
        self._region = region
        self._inputs: list[Range] = []
        self._outputs: dict[str, Range] = {}

    def end(self, error: BaseException | None = None) -> None:
        """Gives the ranges back, if the server has done with them: it has answered, be it with `error`."""
        answered = error is None or (
            isinstance(error, ModelhostError) and bool(error.reason) and error.code not in _OPEN_ENDED
        )
        for lent in (*self._inputs, *self._outputs.values()):
            if answered:
                lent.free()
            else:
                lent.retire()
        self._inputs.clear()
        self._outputs.clear()
        self._region.leave()

    def put(self, array: NDArray[Any]) -> SharedMemoryReference | None:
        """Where the elements of an input are now; None when there is no room."""
        lent = self._region.allocate(array.nbytes)
        if lent is None:
            return None
        self._inputs.append(lent)
        dtype = array.dtype.newbyteorder("<")
        np.copyto(np.frombuffer(lent.view, dtype, array.size).reshape(array.shape), array)
        return self._reference(lent, array.nbytes)

    def ask(self, sizes: Mapping[str, int]) -> dict[str, SharedMemoryReference]:
        """Where outputs of these sizes are to be put, as far as there is room."""
        for name, size in sizes.items():
            lent = self._region.allocate(size)
            if lent is not None:
                self._outputs[name] = lent
        return {name: self._reference(lent, lent.size) for name, lent in self._outputs.items()}

    def take(self, name: str, tensor: Tensor) -> NDArray[Any]:
        """An output that the server has put where it was asked to: a read-only view, and as long as that is used, so
        is its range.

        Raises:
            InternalError: it was not asked to.
        """
        reference = tensor.shared_memory
        dtype = _tensors.numpy_dtype(_tensors.dtype_name(tensor.dtype))
        size = math.prod(tensor.shape) * dtype.itemsize
        lent = self._outputs.get(name)
        if lent is None or (reference.offset, reference.byte_size) != (lent.offset, size) or size > lent.size:
            raise InternalError(f"the server sent a malformed tensor: output {name!r} is not where it was asked for")
        del self._outputs[name]
        # Arrays made of this one refer to it, so it lives as long as they do.
        whole = np.frombuffer(lent.view.toreadonly()[:size], dtype)
        weakref.finalize(whole, lent.free).atexit = False
        return whole.reshape(tensor.shape)

    def _reference(self, lent: Range, size: int) -> SharedMemoryReference:
        return SharedMemoryReference(region=self._region.name, offset=lent.offset, byte_size=size)


class OutputSizes:
    """How large the large outputs of signatures have been."""

    def __init__(self) -> None:
        self._sizes: dict[object, dict[str, int]] = {}

    def note(self, signature: object, outputs: Mapping[str, NDArray[Any]]) -> None:
        """Outputs that a signature has given."""
        for name, array in outputs.items():
            if array.nbytes >= LARGE_BYTES and not array.dtype.hasobject:
                sizes = self._sizes.setdefault(signature, {})
                sizes[name] = max(array.nbytes, sizes.get(name, 0))

    def of(self, signature: object, outputs: tuple[str, ...]) -> Mapping[str, int]:
        """The largest sizes of these outputs of a signature, of all when none is named."""
        sizes = self._sizes.get(signature, {})
        return {name: sizes[name] for name in outputs if name in sizes} if outputs else sizes
