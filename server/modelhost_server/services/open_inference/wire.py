"""Inferences on the wire: large requests are read, and responses are written, without a copy of a tensor that is not
needed. Whatever is not as every protobuf library writes it is left to protobuf.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from ...compat.open_inference_pb2 import ModelInferRequest
from ...tensors import MAX_TENSORS, STRING, RawTensor
from ..failures import no_message
from ..wire_format import (
    LENGTH,
    Parts,
    UnusualError,
    check_parts,
    join_parts,
    read_fields,
    too_many_tensors,
    write_varint,
)
from .byte_strings import string_parts
from .datatypes import datatype
from .inference import InferenceResponse

# From here on a request is worth taking apart.
_LARGE_BYTES = 16 << 10
_RAW_CONTENTS = 7
# {"triton_final_response": true} as a field of ModelInferResponse: every answer of a stream is its request's last.
_FINAL = b"\x22\x1b\x0a\x15triton_final_response\x12\x02\x08\x01"


class Request(NamedTuple):
    """A ModelInferRequest, and its `raw_input_contents`, which `message` may not have."""

    message: ModelInferRequest
    raw: Sequence[bytes | memoryview]


def read_request(data: bytes) -> Request:
    """A ModelInferRequest. Raw tensors of a large one look into `data`.

    Raises:
        ModelhostError: INVALID_REQUEST.
    """
    try:
        if len(data) >= _LARGE_BYTES:
            try:
                return _take_apart(data)
            except (UnusualError, IndexError):
                pass
        check_parts(data, ModelInferRequest.DESCRIPTOR)
        message = ModelInferRequest.FromString(data)
    except DecodeError:
        raise no_message("an inference.ModelInferRequest", data) from None
    return Request(message, message.raw_input_contents)


def _take_apart(data: bytes) -> Request:
    view = memoryview(data)
    rest: list[memoryview] = []
    raw: list[memoryview] = []
    for number, kind, field, begin, end in read_fields(data, 0, len(data)):
        if number == _RAW_CONTENTS and kind == LENGTH:
            if len(raw) == MAX_TENSORS:
                raise too_many_tensors()
            raw.append(view[begin:end])
        else:
            rest.append(view[field:end])
    described = b"".join(rest)
    check_parts(described, ModelInferRequest.DESCRIPTOR)
    return Request(ModelInferRequest.FromString(described), raw)


class StreamAnswer(NamedTuple):
    """What a request of a stream is answered: a response, or why there is none."""

    id: str
    response: InferenceResponse | None
    error: str = ""


def write_response(response: InferenceResponse) -> bytes:
    """A ModelInferResponse."""
    return join_parts(_response(response))


def write_answer(answer: StreamAnswer) -> bytes:
    """A ModelStreamInferResponse."""
    if answer.response is None:
        parts: Parts = [_text(b"\x1a", answer.id)]
        head = _text(b"\x0a", answer.error)
    else:
        parts = [*_response(answer.response), _FINAL]
        head = b""
    return join_parts([head, b"\x12", write_varint(sum(map(len, parts))), *parts])


def _response(response: InferenceResponse) -> Parts:
    parts: Parts = [_names(response.model, response.version)]
    if response.id:
        parts.append(_text(b"\x1a", response.id))
    contents: Parts = []
    for name, tensor in response.outputs.items():
        parts.append(_head(name, tensor.dtype, tuple(tensor.shape)))
        contents += _content(tensor)
    return parts + contents


def _content(tensor: RawTensor) -> Parts:
    """One of `raw_output_contents`."""
    data: Any = tensor.data
    if tensor.dtype == STRING:
        values = string_parts(data)
        return [b"\x32", write_varint(sum(map(len, values))), *values]
    return [b"\x32", write_varint(len(data)), data]


@lru_cache(4096)
def _names(model: str, version: int) -> bytes:
    """The model's name and version."""
    return _text(b"\x0a", model) + _text(b"\x12", str(version))


@lru_cache(4096)
def _head(name: str, dtype: int, shape: tuple[int, ...]) -> bytes:
    """An output without its content."""
    extents = b"".join(map(write_varint, shape))
    output = _text(b"\x0a", name) + _text(b"\x12", datatype(dtype))
    if extents:
        output += b"\x1a" + write_varint(len(extents)) + extents
    return b"\x2a" + write_varint(len(output)) + output


def _text(tag: bytes, text: str) -> bytes:
    content = text.encode()
    return tag + write_varint(len(content)) + content
