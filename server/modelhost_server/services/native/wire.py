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

from ...errors import ModelhostError, Reason
from ...tensors import STRING, LeasedBytes, RawTensor
from .tensors import raw_inputs

# From here on a request is worth taking apart.
_LARGE_BYTES = 16 << 10
_VARINT, _LENGTH = 0, 2
# Fields of PredictRequest, its map entries, and Tensor.
_INPUTS, _KEY, _VALUE = 6, 1, 2
_DTYPE, _SHAPE, _RAW = 1, 2, 3

# Buffers, one after the other. Leased ones stay leased until they are written: their memory is used again after that.
Parts = list[Any]


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
                rest, inputs = _take_apart(data)
                return Request(PredictRequest.FromString(rest), inputs)
            except (_Unusual, IndexError, UnicodeDecodeError):
                pass
        message = PredictRequest.FromString(data)
    except DecodeError:
        raise ModelhostError(
            Reason.INVALID_REQUEST,
            f"expected a modelhost.v1.PredictRequest; got {len(data)} bytes that are truncated or corrupt",
        ) from None
    return Request(message, raw_inputs(message.inputs))


class _Unusual(Exception):
    """Not as protobuf libraries write it, or nothing for this module."""


def _take_apart(data: bytes) -> tuple[bytes, dict[str, RawTensor]]:
    """All but the inputs, and the inputs."""
    view = memoryview(data)
    inputs: dict[str, RawTensor] = {}
    rest = []
    for number, kind, field, begin, end in _fields(data, 0, len(data)):
        if number != _INPUTS:
            rest.append(view[field:end])
            continue
        entry = {n: (b, e) for n, k, _, b, e in _fields(data, begin, end) if k == _LENGTH}
        if kind != _LENGTH or entry.keys() != {_KEY, _VALUE}:
            raise _Unusual
        name = data[slice(*entry[_KEY])].decode()
        if name in inputs:
            raise _Unusual
        inputs[name] = _tensor(data, view, *entry[_VALUE])
    return b"".join(rest), inputs


def _tensor(data: bytes, view: memoryview, begin: int, end: int) -> RawTensor:
    fields = {}
    for number, kind, _, start, stop in _fields(data, begin, end):
        if number in fields or kind != (_VARINT if number == _DTYPE else _LENGTH):
            raise _Unusual
        fields[number] = start, stop
    if not fields.keys() <= {_DTYPE, _SHAPE, _RAW} or not fields.keys() >= {_DTYPE, _RAW}:
        raise _Unusual
    dtype, _ = _varint(data, fields[_DTYPE][0])
    if dtype == STRING or dtype > 0x7F:
        raise _Unusual
    shape = []
    place, stop = fields.get(_SHAPE, (0, 0))
    while place < stop:
        extent, place = _varint(data, place)
        # What is negative is written as if it had no sign.
        shape.append(extent - (1 << 64) if extent >> 63 else extent)
    if place != stop:
        raise _Unusual
    return RawTensor(dtype, shape, view[slice(*fields[_RAW])])


def _fields(data: bytes, place: int, end: int) -> Iterable[tuple[int, int, int, int, int]]:
    """Of each field: number, wire type, where it begins, and where its content begins and ends."""
    while place < end:
        field = place
        tag, place = _varint(data, place)
        begin, kind = place, tag & 7
        if kind == _LENGTH:
            size, begin = _varint(data, place)
            place = begin + size
        elif kind == _VARINT:
            _, place = _varint(data, place)
        else:
            raise _Unusual
        if place > end:
            raise _Unusual
        yield tag >> 3, kind, field, begin, place


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number, and where it ends."""
    byte = data[place]
    if byte < 0x80:
        return byte, place + 1
    number, shift = byte & 0x7F, 7
    while shift < 64:
        place += 1
        byte = data[place]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & 0xFFFF_FFFF_FFFF_FFFF, place + 1
        shift += 7
    raise _Unusual


class Response(NamedTuple):
    """A PredictResponse. `placed` are the outputs that are in shared memory, as encoded SharedMemoryReferences."""

    version: int
    outputs: Mapping[str, RawTensor]
    placed: Mapping[str, bytes]


def write_response(response: Response) -> bytes:
    """A PredictResponse."""
    return _joined(_response(response)[0])


def write_answers(answers: Iterable[Parts]) -> bytes:
    """A PredictStreamResponse of answers that `answer` has made."""
    return _joined(part for parts in answers for part in parts)


def _joined(parts: Iterable[Any]) -> bytes:
    return b"".join(part.view if isinstance(part, LeasedBytes) else part for part in parts)


def answer(number: int, response: Response | None, error: bytes = b"") -> tuple[Parts, int]:
    """A StreamedResponse as a field of PredictStreamResponse, and its size: a response, or an encoded Error."""
    parts, size = ([error], len(error)) if response is None else _response(response)
    # An id of 0 is left out, as protobuf does.
    head = b"\x08" + _number(number) if number else b""
    head += (b"\x1a" if response is None else b"\x12") + _number(size)
    size += len(head)
    head = b"\x0a" + _number(size) + head
    return [head, *parts], size


def _response(response: Response) -> tuple[Parts, int]:
    version = b"\x08" + _number(response.version)
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
        return (b"\x2a" + _number(len(placed)), placed)
    if tensor.dtype == STRING:
        values = [part for value in data for part in (b"\x0a", _number(len(value)), value)]
        return (b"\x22" + _number(sum(map(len, values))), *values)
    return (b"\x1a" + _number(len(data)), data)


@lru_cache(4096)
def _head(name: str, dtype: int, shape: tuple[int, ...], content_size: int) -> bytes:
    """All that precedes the content of an output: the map entry's tag, its key, and the tensor's dtype and shape."""
    key = name.encode()
    extents = b"".join(map(_number, shape))
    tensor = b"\x08" + _number(dtype) + (b"\x12" + _number(len(extents)) + extents if extents else b"")
    value = b"\x12" + _number(len(tensor) + content_size) + tensor
    entry = b"\x0a" + _number(len(key)) + key + value
    return b"\x12" + _number(len(entry) + content_size) + entry


@lru_cache(4096)
def _number(number: int) -> bytes:
    """A number that is not negative, as a varint."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
