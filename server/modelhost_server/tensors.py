"""Tensors and signatures as they travel through the server: bytes beside a dtype and a shape; no numpy, no protobuf."""

from __future__ import annotations

import errno
import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

STRING = 7

# Dimensions, and elements, that a tensor of TensorFlow can have.
MAX_RANK = 254
# In one message; more would be looked at for long, and no signature has so many.
MAX_TENSORS = 10_000
_MAX_ELEMENTS = 2**63 - 1

# Bytes per element, by DataType number (TensorFlow's numbers); 0 for strings, which have no fixed size.
ITEMSIZE: Mapping[int, int] = {
    1: 4, 2: 8, 3: 4, 4: 1, 5: 2, 6: 1, STRING: 0, 8: 8, 9: 8, 10: 1, 14: 2, 17: 2, 18: 16, 19: 2, 22: 4, 23: 8,
}  # fmt: skip

DTYPE_NAME: Mapping[int, str] = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", STRING: "string", 8: "complex64",
    9: "int64", 10: "bool", 14: "bfloat16", 17: "uint16", 18: "complex128", 19: "float16", 22: "uint32", 23: "uint64",
}  # fmt: skip


class LentMemory:
    """Memory that engines may use without a copy, and whose owner wants to know when none does any longer."""

    __slots__ = ("_lock", "_on_return", "_users", "view")

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self._users = 0
        self._lock = threading.Lock()
        self._on_return: Callable[[], None] | None = None

    @property
    def in_use(self) -> bool:
        """Whether an engine uses the memory now."""
        return self._users > 0

    def borrow(self) -> None:
        """One more engine uses the memory from now on."""
        with self._lock:
            self._users += 1

    def give_back(self) -> None:
        """One engine less uses the memory."""
        with self._lock:
            self._users -= 1
            on_return = self._on_return if not self._users else None
        if on_return is not None:
            on_return()

    def when_returned(self, action: Callable[[], None]) -> None:
        """Calls `action` once nobody uses the memory, at once if nobody does."""
        with self._lock:
            if self._users:
                self._on_return = action
                return
        action()


class FileRange:
    """A range of a file that a tensor's bytes are in, or go to. They are read and written, never mapped: whoever else
    has the file may cut it short at any time, and a process that has it mapped would die of that.
    """

    __slots__ = ("_fd", "_offset", "_size")

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd = fd
        self._offset = offset
        self._size = size

    def __len__(self) -> int:
        return self._size

    def read_into(self, target: memoryview) -> None:
        """Copies the range, which is as long as `target`.

        Raises:
            OSError: it is no longer there.
        """
        done = 0
        while done < self._size:
            count = os.preadv(self._fd, [target[done:]], self._offset + done)
            if not count:
                raise OSError(errno.ENODATA, "the file has been cut short")
            done += count

    def write_from(self, source: memoryview) -> None:
        """Copies `source`, which is no longer than the range, to its beginning.

        Raises:
            OSError: there is no room for it.
        """
        done = 0
        while done < len(source):
            done += os.pwritev(self._fd, [source[done:]], self._offset + done)


class RegionRange(NamedTuple):
    """Where a caller says that a tensor's bytes are: a range of a region that it registered."""

    region: str
    offset: int
    byte_size: int


class Joined:
    """Bytes that lie in several places, one part after the other."""

    __slots__ = ("_size", "parts")

    def __init__(self, parts: Sequence[bytes | bytearray | memoryview | FileRange]) -> None:
        self.parts = parts
        self._size = sum(map(len, parts))

    def __len__(self) -> int:
        return self._size


class Lease:
    """Calls `end` when nobody refers to it any longer."""

    __slots__ = ("_end",)

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end

    def __del__(self) -> None:
        self._end()


class LeasedBytes:
    """Bytes in somebody else's memory, who takes it back when neither they nor parts of them are referred to."""

    __slots__ = ("_lease", "view")

    def __init__(self, view: memoryview, lease: Lease) -> None:
        self.view = view
        self._lease = lease

    def __len__(self) -> int:
        return len(self.view)

    def part(self, start: int, end: int) -> LeasedBytes:
        """Some of the bytes."""
        return LeasedBytes(self.view[start:end], self._lease)


class RawTensor(NamedTuple):
    """A tensor's value.

    `data` holds the elements as little-endian, row-major bytes, or, when `dtype` is STRING, a sequence of `bytes`.
    """

    dtype: int
    shape: Sequence[int]
    data: bytes | bytearray | memoryview | Sequence[bytes] | LentMemory | FileRange | RegionRange | Joined | LeasedBytes


def output_bytes(output: RawTensor) -> memoryview:
    """The bytes of an output that holds no strings; they are there as long as the output is referred to."""
    data: Any = output.data
    return data.view if isinstance(data, LeasedBytes) else memoryview(data)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output of a signature. `shape` is None when the rank is unknown; open extents are -1. `tensor` is its
    name in TensorFlow's graph, "" where there is none.
    """

    name: str
    dtype: int
    shape: tuple[int, ...] | None
    optional: bool = False
    tensor: str = field(default="", compare=False)

    def accepts_shape(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape fits."""
        expected = self.shape
        if expected is None:
            return True
        if len(expected) != len(shape):
            return False
        return all(want in (got, -1) for want, got in zip(expected, shape, strict=True))

    def __str__(self) -> str:
        dtype = DTYPE_NAME.get(self.dtype, str(self.dtype))
        if self.shape is None:
            return f"{dtype} of any shape"
        return f"{dtype} [{', '.join('?' if extent < 0 else str(extent) for extent in self.shape)}]"


@dataclass(frozen=True, slots=True)
class SignatureSpec:
    """A named callable; inputs and outputs in alphabetical order. Their positions are how workers address them."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    method_name: str = ""

    @property
    def is_batched(self) -> bool:
        """Whether it takes and gives examples by the batch: the first extent of every input and output is open."""
        tensors = (*self.inputs, *self.outputs)
        return bool(self.inputs) and all(tensor.shape is not None and tensor.shape[:1] == (-1,) for tensor in tensors)

    def output_dtypes(self, wanted: Sequence[int] = ()) -> list[int]:
        """The dtypes of the outputs at these positions, of all when there are none."""
        return [self.outputs[i].dtype for i in wanted] if wanted else [output.dtype for output in self.outputs]

    def accepts_shapes(self, inputs: Sequence[tuple[int, RawTensor]]) -> bool:
        """Whether inputs, by position, are of the shapes that the signature promises to take."""
        return all(self.inputs[position].accepts_shape(tensor.shape) for position, tensor in inputs)

    def to_json(self) -> dict[str, Any]:
        """The spec as a worker sends it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SignatureSpec:
        """The spec a worker sent."""

        def specs(items: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
            return tuple(
                TensorSpec(**{**item, "shape": None if item["shape"] is None else tuple(item["shape"])})
                for item in items
            )

        return cls(data["name"], specs(data["inputs"]), specs(data["outputs"]), data["method_name"])


@dataclass(frozen=True, slots=True)
class VariableSpec:
    """A variable of a model; open extents are -1."""

    name: str
    dtype: int
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the value; 0 when the shape is open or the dtype has no fixed size."""
        return 0 if any(d < 0 for d in self.shape) else element_count(self.shape) * ITEMSIZE.get(self.dtype, 0)


def is_too_large(shape: Sequence[int]) -> bool:
    """Whether a shape, of no negative extents, is more than TensorFlow takes."""
    # It aborts the process over an overflow, even on the way to an extent of 0.
    return len(shape) > MAX_RANK or math.prod(extent or 1 for extent in shape) > _MAX_ELEMENTS


def element_count(shape: Sequence[int]) -> int:
    """Number of elements of a tensor of this shape; 1 for a scalar."""
    count = 1
    for extent in shape:
        count *= extent
    return count
