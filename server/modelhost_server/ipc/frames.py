"""The frames between server and worker.

A frame is a header (body length, kind, call id) and a body. Bodies of predictions are packed structs, because they
are on every call's way; all others are JSON, because they are not.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from functools import cache
from typing import Any

from ..tensors import ITEMSIZE, STRING, FileRange, Joined, LeasedBytes, LentMemory, RawTensor, element_count
from .arena import LARGE_BYTES, Arena


class Kind(IntEnum):
    """What a frame is."""

    # Server to worker.
    PREDICT = 1
    LOAD = 2
    UNLOAD = 3
    PREDICT_MANY = 4
    SHARED = 5
    # Worker to server; each answers the call whose id it carries, but PROGRESS, which precedes the answer.
    RESULT = 16
    ERROR = 17
    DONE = 18
    PROGRESS = 19
    # Worker to server, of itself; call id 0: an engine failed a version, which TensorFlow serves now.
    DEMOTED = 20
    RESULT_MANY = 21
    # Both ways: ranges of the other side's arena that are no longer needed; call id 0.
    RELEASE = 32


HEADER = struct.Struct("<IBQ")
_PREDICT = struct.Struct("<IHHH")
_RESULT = struct.Struct("<HH")
_MANY = struct.Struct("<I")
_TENSOR = struct.Struct("<HBB4xQQ")
_INLINE = 0xFFFF_FFFF_FFFF_FFFF


def frame(kind: Kind, call: int, *parts: bytes | memoryview) -> list[bytes | memoryview]:
    """A frame as buffers to send one after the other."""
    return [HEADER.pack(sum(map(len, parts)), kind, call), *parts]


def json_frame(kind: Kind, call: int, body: Mapping[str, Any]) -> list[bytes | memoryview]:
    """A frame with a JSON body."""
    return frame(kind, call, json.dumps(body).encode())


def release_frame(offsets: Sequence[int]) -> list[bytes | memoryview]:
    """A frame that gives ranges back to their arena."""
    return frame(Kind.RELEASE, 0, struct.pack(f"<{len(offsets)}Q", *offsets))


def released_offsets(body: memoryview) -> Sequence[int]:
    """The ranges that a RELEASE frame gives back."""
    return struct.unpack(f"<{len(body) // 8}Q", body)


@cache
def _dims(rank: int) -> struct.Struct:
    return struct.Struct(f"<{rank}q")


class TensorWriter:
    """Packs tensors for a frame: small ones into it, large ones into the arena."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._heads: list[bytes] = []
        self._inline: list[Any] = []
        self.count = 0
        self.offsets: list[int] = []

    def put(self, index: int, dtype: int, shape: Sequence[int], data: Any) -> None:
        """Adds a tensor, `data` as in RawTensor; what goes into the arena is copied at once.

        Raises:
            OSError: a FileRange that is no longer there.
        """
        if dtype == STRING:
            data = _pack_strings(data)
        parts = data.parts if isinstance(data, Joined) else (data,)
        size, place = len(data), _INLINE
        if size >= LARGE_BYTES:
            offset = self._arena.allocate(size)
            if offset is not None:
                self.offsets.append(offset)
                _fill(self._arena.view(offset, size), parts)
                place = offset
        if place == _INLINE:
            self._inline.extend(_in_memory(part) if isinstance(part, FileRange) else part for part in parts)
        rank = len(shape)
        self._heads.append(_TENSOR.pack(index, dtype, rank, size, place) + _dims(rank).pack(*shape))
        self.count += 1

    def parts(self) -> list[bytes | memoryview]:
        """What has been put, as it goes into a frame."""
        return [*self._heads, *self._inline]

    def free(self) -> None:
        """Frees what has been put into the arena."""
        for offset in self.offsets:
            self._arena.free(offset)
        self.offsets.clear()


def _fill(room: memoryview, parts: Sequence[Any]) -> None:
    start = 0
    for part in parts:
        end = start + len(part)
        if isinstance(part, FileRange):
            part.read_into(room[start:end])
        else:
            room[start:end] = part
        start = end


def _in_memory(part: FileRange) -> bytearray:
    content = bytearray(len(part))
    part.read_into(memoryview(content))
    return content


def _pack_strings(values: Sequence[bytes]) -> bytes:
    return b"".join((struct.pack(f"<{len(values)}I", *map(len, values)), *values))


def _unpack_strings(content: memoryview, count: int) -> list[bytes]:
    if not 0 <= 4 * count <= len(content):
        raise ValueError("a string tensor is shorter than its shape says")
    lengths = struct.unpack_from(f"<{count}I", content)
    if 4 * count + sum(lengths) != len(content):
        raise ValueError("a string tensor's lengths do not add up")
    data, offset, values = bytes(content), 4 * count, []
    for length in lengths:
        values.append(data[offset : offset + length])
        offset += length
    return values


# Makes the memory of a range of the arena into what the reader wants to have of it.
Borrow = Callable[[int, memoryview], LentMemory | LeasedBytes]


def read_tensors(body: memoryview, start: int, count: int, arena: Arena, borrow: Borrow) -> list[tuple[int, RawTensor]]:
    """The tensors of a frame, from `start` on, with their indices. Each has as many bytes as its dtype and shape say.

    Raises:
        ValueError, struct.error: the frame contradicts itself.
    """
    heads = []
    for _ in range(count):
        index, dtype, rank, size, place = _TENSOR.unpack_from(body, start)
        start += _TENSOR.size
        shape = _dims(rank).unpack_from(body, start)
        start += 8 * rank
        if dtype != STRING and (size != element_count(shape) * ITEMSIZE.get(dtype, -1) or (shape and min(shape) < 0)):
            raise ValueError("a tensor is not of its shape's size")
        heads.append((index, dtype, shape, size, place))
    tensors = []
    for index, dtype, shape, size, place in heads:
        data: Any
        if place == _INLINE:
            if start + size > len(body):
                raise ValueError("a tensor ends beyond its frame")
            view = body[start : start + size]
            start += size
            data = _unpack_strings(view, element_count(shape)) if dtype == STRING else view
        elif dtype == STRING:
            view = arena.view(place, size)
            data = _unpack_strings(view, element_count(shape))
            borrow(place, view)
        else:
            data = borrow(place, arena.view(place, size))
        tensors.append((index, RawTensor(dtype, shape, data)))
    return tensors


def predict_frame(call: int, key: int, signature: int, outputs: Sequence[int], tensors: TensorWriter) -> list[Any]:
    """A PREDICT frame: run signature number `signature` of the version known to the worker as `key`."""
    head = _PREDICT.pack(key, signature, len(outputs), tensors.count)
    wanted = struct.pack(f"<{len(outputs)}H", *outputs)
    return frame(Kind.PREDICT, call, head, wanted, *tensors.parts())


def read_predict(body: memoryview) -> tuple[int, int, Sequence[int], int, int]:
    """key, signature, outputs wanted, number of inputs, and where these begin."""
    key, signature, output_count, input_count = _PREDICT.unpack_from(body)
    outputs = struct.unpack_from(f"<{output_count}H", body, _PREDICT.size)
    return key, signature, outputs, input_count, _PREDICT.size + 2 * output_count


def predicted_key(body: memoryview) -> int:
    """The version that a PREDICT frame is for."""
    return int.from_bytes(body[:4], "little")


def result_frame(call: int, tensors: TensorWriter, held: Sequence[int]) -> list[Any]:
    """A RESULT frame; `held` are the ranges of the inputs that the engine still uses."""
    return frame(
        Kind.RESULT, call, _RESULT.pack(tensors.count, len(held)), struct.pack(f"<{len(held)}Q", *held),
        *tensors.parts(),
    )  # fmt: skip


def read_result(body: memoryview) -> tuple[int, Sequence[int], int]:
    """Number of outputs, ranges still held, and where the outputs begin."""
    count, held_count = _RESULT.unpack_from(body)
    held = struct.unpack_from(f"<{held_count}Q", body, _RESULT.size)
    return count, held, _RESULT.size + 8 * held_count


def many_frame(kind: Kind, call: int, head: Mapping[str, Any], tensors: TensorWriter) -> list[Any]:
    """A PREDICT_MANY or RESULT_MANY frame: a head in JSON, and the tensors it speaks of by their indices."""
    text = json.dumps({**head, "tensors": tensors.count}).encode()
    return frame(kind, call, _MANY.pack(len(text)), text, *tensors.parts())


def read_many(body: memoryview) -> tuple[dict[str, Any], int]:
    """The head of a frame of many, and where its tensors (`head["tensors"]` of them) begin."""
    (length,) = _MANY.unpack_from(body)
    start = _MANY.size + length
    return read_json(body[_MANY.size : start]), start


def read_json(body: Iterable[int]) -> dict[str, Any]:
    """The body of a JSON frame."""
    value = json.loads(bytes(body))
    if not isinstance(value, dict):
        raise ValueError("a frame's JSON body is not an object")
    return value
