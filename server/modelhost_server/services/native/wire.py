"""Predictions on the wire: what is on every call's way, read and written without a copy of a tensor that is not needed.

Protobuf copies each `bytes` field when it parses it, again when it is asked for it, and twice on the way out. So large
requests are taken apart here, as far as their tensors' bytes, and responses are put together here, as
https://protobuf.dev/programming-guides/encoding/ says. Whatever is not as every protobuf library writes it is left to
protobuf.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError
from modelhost.v1.prediction_service_pb2 import PredictRequest

from ...tensors import MAX_RANK, STRING, RawTensor
from ..failures import no_message
from ..wire_format import (
    Parts,
    UnusualError,
    check_parts,
    join_parts,
    read_map,
    read_singles,
    read_varint,
    write_entry_head,
    write_varint,
)
from .tensors import raw_inputs

# From here on a request is worth taking apart.
_LARGE_BYTES = 16 << 10
# Fields of PredictRequest, PredictResponse and Tensor.
_INPUTS, _OUTPUTS = 6, 2
_DTYPE, _SHAPE, _RAW = 1, 2, 3


class Request(NamedTuple):
    """A PredictRequest: `message` without its inputs, which are apart."""

    message: PredictRequest
    inputs: Mapping[str, RawTensor]


def read_request(data: bytes) -> Request:
    """A PredictRequest. Tensors of a large one look into `data`.

    Raises:
        ModelhostError: INVALID_REQUEST, INPUT_MALFORMED, UNSUPPORTED.
    """
    try:
        if len(data) >= _LARGE_BYTES:
            try:
                rest, inputs = read_map(data, _INPUTS, _tensor)
                return Request(PredictRequest.FromString(rest), inputs)
            except (UnusualError, IndexError, UnicodeDecodeError):
                pass
        check_parts(data, PredictRequest.DESCRIPTOR)
        message = PredictRequest.FromString(data)
    except DecodeError:
        raise no_message("a modelhost.v1.PredictRequest", data) from None
    return Request(message, raw_inputs(message.inputs))


def _tensor(data: bytes, begin: int, end: int) -> RawTensor:
    fields = read_singles(data, begin, end, (_DTYPE,))
    if not fields.keys() <= {_DTYPE, _SHAPE, _RAW} or not fields.keys() >= {_DTYPE, _RAW}:
        raise UnusualError
    dtype, _ = read_varint(data, fields[_DTYPE][0])
    if dtype == STRING or dtype > 0x7F:
        raise UnusualError
    shape: list[int] = []
    place, stop = fields.get(_SHAPE, (0, 0))
    while place < stop:
        if len(shape) > MAX_RANK:
            raise UnusualError
        extent, place = read_varint(data, place)
        # What is negative is written as if it had no sign.
        shape.append(extent - (1 << 64) if extent >> 63 else extent)
    if place != stop:
        raise UnusualError
    return RawTensor(dtype, shape, memoryview(data)[slice(*fields[_RAW])])


class Response(NamedTuple):
    """A PredictResponse. `placed` are the outputs that are in shared memory, as encoded SharedMemoryReferences."""

    version: int
    outputs: Mapping[str, RawTensor]
    placed: Mapping[str, bytes]


def write_response(response: Response) -> bytes:
    """A PredictResponse."""
    return join_parts(_response(response)[0])


def write_answers(answers: Iterable[tuple[Parts, int]]) -> bytes:
    """A PredictStreamResponse of answers that `answer` has made."""
    return join_parts(part for parts, _ in answers for part in parts)


def answer(number: int, response: Response | None, error: bytes = b"") -> tuple[Parts, int]:
    """A StreamedResponse as a field of PredictStreamResponse, and its size: a response, or an encoded Error."""
    parts, size = ([error], len(error)) if response is None else _response(response)
    # An id of 0 is left out, as protobuf does.
    head = b"\x08" + write_varint(number) if number else b""
    head += (b"\x1a" if response is None else b"\x12") + write_varint(size)
    size += len(head)
    head = b"\x0a" + write_varint(size) + head
    return [head, *parts], size


def _response(response: Response) -> tuple[Parts, int]:
    version = b"\x08" + write_varint(response.version)
    parts: Parts = [version]
    size = len(version)
    for name, tensor in response.outputs.items():
        content = _content(tensor, response.placed.get(name))
        content_size = sum(map(len, content))
        head = _head(name, tensor.dtype, tuple(tensor.shape), content_size)
        parts.append(head)
        parts += content
        size += len(head) + content_size
    return parts, size


def _content(tensor: RawTensor, placed: bytes | None) -> Sequence[Any]:
    """The content of a tensor, with its tag and length."""
    data: Any = tensor.data
    if placed is not None:
        return (b"\x2a" + write_varint(len(placed)), placed)
    if tensor.dtype == STRING:
        values = [part for value in data for part in (b"\x0a", write_varint(len(value)), value)]
        return (b"\x22" + write_varint(sum(map(len, values))), *values)
    return (b"\x1a" + write_varint(len(data)), data)


@lru_cache(4096)
def _head(name: str, dtype: int, shape: tuple[int, ...], content_size: int) -> bytes:
    """All that precedes the content of an output: the map entry's tag, its key, and the tensor's dtype and shape."""
    extents = b"".join(map(write_varint, shape))
    tensor = b"\x08" + write_varint(dtype) + (b"\x12" + write_varint(len(extents)) + extents if extents else b"")
    return write_entry_head(_OUTPUTS, name, tensor, content_size)
