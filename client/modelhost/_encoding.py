"""Predictions as bytes: what protobuf would write, with each tensor copied once instead of once a message it is in.

Bytes of a message's fields, one after another in any order, are the message; so what many predictions have in common is
written by protobuf once and kept, and only the inputs are put behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from modelhost.v1.prediction_service_pb2 import (
    PredictManyRequest,
    PredictManyTarget,
    PredictRequest,
    PredictStreamRequest,
    StreamedRequest,
)
from modelhost.v1.tensor_pb2 import Tensor

from . import _tensors
from ._names import ModelRef, version_choice
from ._shared_memory import LARGE_BYTES, Exchange
from ._wire import duration

Chunk: TypeAlias = bytes | memoryview

# From protobuf's encoding: the kinds of fields; keys and values of maps are the fields 1 and 2 of their entries.
_VARINT, _LENGTH_DELIMITED = 0, 2
_KEY, _VALUE = 1, 2
_NO_SIZES: Mapping[str, int] = MappingProxyType({})


class Question(NamedTuple):
    """What predictions that differ only in their inputs have in common."""

    ref: ModelRef
    signature: str = ""
    outputs: tuple[str, ...] = ()
    priority: int = 0


def encode_predict(
    question: Question,
    arrays: Mapping[str, NDArray[Any]],
    exchange: Exchange | None = None,
    output_sizes: Mapping[str, int] = _NO_SIZES,
) -> list[Chunk]:
    """A PredictRequest.

    Args:
        question: what to run.
        arrays: the inputs by name.
        exchange: where large inputs, and outputs, are put if there is room.
        output_sizes: bytes that outputs need.

    Raises:
        InvalidInputError: an array cannot travel.
    """
    chunks: list[Chunk] = [_common(question)]
    for name, array in arrays.items():
        _add_input(chunks, PredictRequest.INPUTS_FIELD_NUMBER, name, array, exchange)
    if exchange is not None and output_sizes:
        chunks.append(PredictRequest(output_regions=exchange.ask(output_sizes)).SerializeToString())
    return chunks


def encode_many(
    refs: Iterable[ModelRef],
    signatures: Iterable[str],
    arrays: Mapping[str, NDArray[Any]],
    outputs: Iterable[str] | None,
    scope: str,
) -> bytes:
    """A PredictManyRequest: `arrays` through several models of `scope`, each with its signature.

    Raises:
        InvalidInputError: an array cannot travel.
    """
    targets = [
        PredictManyTarget(model=ref.model, signature=signature, **version_choice(ref))
        for ref, signature in zip(refs, signatures, strict=True)
    ]
    common = PredictManyRequest(scope=scope, targets=targets, output_filter=outputs)
    chunks: list[Chunk] = [common.SerializeToString()]
    for name, array in arrays.items():
        _add_input(chunks, PredictManyRequest.INPUTS_FIELD_NUMBER, name, array)
    return b"".join(chunks)


def encode_timeout(seconds: float | None) -> bytes:
    """The timeout of a StreamedRequest."""
    return b"" if seconds is None else StreamedRequest(timeout=duration(seconds)).SerializeToString()


def encode_streamed(index: int, timeout: bytes, request: list[Chunk]) -> bytes:
    """A PredictStreamRequest of one prediction; several of them, one after another, are one of several."""
    size = sum(map(len, request))
    start = b"%b%b%b%b%b" % (_TAG_ID, _varint(index), timeout, _TAG_REQUEST, _varint(size))
    return b"".join((_TAG_REQUESTS, _varint(len(start) + size), start, *request))


@lru_cache(1024)
def _common(question: Question) -> bytes:
    ref, signature, outputs, priority = question
    return PredictRequest(
        scope=ref.scope,
        model=ref.model,
        signature=signature,
        output_filter=outputs,
        priority=priority,
        **version_choice(ref),
    ).SerializeToString()


def _add_input(
    chunks: list[Chunk], field: int, name: str, array: NDArray[Any], exchange: Exchange | None = None
) -> None:
    dtype = _tensors.wire_dtype(array, name)
    if dtype == _tensors.STRING:
        tensor = _tensors.to_message(array, name).SerializeToString()
        chunks += (_entry_start(field, name, len(tensor)), tensor)
    elif exchange and array.nbytes >= LARGE_BYTES and (place := exchange.put(array)):
        number = _tensors.dtype_number(dtype)
        tensor = Tensor(dtype=number, shape=array.shape, shared_memory=place).SerializeToString()
        chunks += (_entry_start(field, name, len(tensor)), tensor)
    else:
        chunks += (_tensor_start(field, name, dtype, array.shape), _tensors.raw_bytes(array))


@lru_cache(4096)
def _tensor_start(field: int, name: str, dtype: str, shape: tuple[int, ...]) -> bytes:
    """A map entry with a tensor, up to the tensor's bytes."""
    size = int(np.prod(shape, dtype=np.int64)) * _tensors.numpy_dtype(dtype).itemsize
    start = Tensor(dtype=_tensors.dtype_number(dtype), shape=shape).SerializeToString()
    start += _tag(Tensor.RAW_FIELD_NUMBER) + _varint(size)
    return _entry_start(field, name, len(start) + size) + start


def _entry_start(field: int, name: str, value_size: int) -> bytes:
    key = name.encode()
    start = _tag(_KEY) + _varint(len(key)) + key + _tag(_VALUE) + _varint(value_size)
    return _tag(field) + _varint(len(start) + value_size) + start


def _tag(field: int, kind: int = _LENGTH_DELIMITED) -> bytes:
    return _varint(field << 3 | kind)


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    groups = bytearray()
    while number >= 0x80:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


_TAG_ID = _tag(StreamedRequest.ID_FIELD_NUMBER, _VARINT)
_TAG_REQUEST = _tag(StreamedRequest.REQUEST_FIELD_NUMBER)
_TAG_REQUESTS = _tag(PredictStreamRequest.REQUESTS_FIELD_NUMBER)
