"""Reads the warm-up records that a SavedModel may carry, in TensorFlow Serving's format.

They are a TFRecord file: each record has the length of its data (8 bytes), a checksum of the length (4), the data and a
checksum of the data (4). The data is a PredictionLog message.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from google.protobuf.message import DecodeError

from ..compat import prediction_log_pb2 as pb
from ..errors import ModelhostError, Reason, brief
from ..samples import Sample
from ..tensor_values import raw_tensor

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"

# TensorFlow Serving reads no more than these.
_LIMIT = 1000

_HEADER = struct.Struct("<QI")
_TRAILER_SIZE = 4


def read_warmup_requests(path: str) -> list[Sample | ModelhostError]:
    """The warm-up records of a SavedModel directory, in order; [] when it has none.

    A record that cannot be used is represented by the error that says why; the others can be.

    Raises:
        ModelhostError: SOURCE_INVALID when the file is damaged, so that its records cannot be told apart.
    """
    try:
        with (Path(path) / WARMUP_FILE).open("rb") as file:
            return [_sample(data, number) for number, data in enumerate(_records(file), 1)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _invalid(f"{WARMUP_FILE} cannot be read: {error.strerror}") from None


def _records(file: BinaryIO) -> Iterator[bytes]:
    """The data of the records.

    The checksums of the data are left alone: at Python's speed they would take longer than the warm-up, and what they
    would find is found by parsing or harms no caller.
    """
    for number in range(1, _LIMIT + 1):
        header = file.read(_HEADER.size)
        if not header:
            return
        if len(header) < _HEADER.size:
            raise _damaged(number, "the file ends within its header")
        size, checksum = _HEADER.unpack(header)
        if _masked_crc32c(header[:8]) != checksum:
            raise _damaged(number, "its length does not match the length's checksum")
        missing = size + _TRAILER_SIZE - (os.fstat(file.fileno()).st_size - file.tell())
        if missing > 0:
            raise _damaged(number, f"the file ends {missing} bytes too early")
        yield file.read(size)
        file.seek(_TRAILER_SIZE, os.SEEK_CUR)


def _sample(data: bytes, number: int) -> Sample | ModelhostError:
    try:
        log = pb.PredictionLog.FromString(data)
    except DecodeError:
        return _invalid(f"warm-up record {number} is not a PredictionLog message")
    kind = log.WhichOneof("log_type")
    if kind != "predict_log":
        return ModelhostError(
            Reason.UNSUPPORTED,
            f"warm-up record {number} is {'empty' if kind is None else f'a {kind}'}: only predict_log can be run",
        )
    request = log.predict_log.request
    inputs = {}
    for name, value in request.inputs.items():
        try:
            inputs[name] = raw_tensor(value)
        except ModelhostError as error:
            return _invalid(f"warm-up record {number}, input {brief(name)}: {error.message}")
    return Sample(request.model_spec.signature_name, inputs)


def _crc32c_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _crc32c_table()


def _masked_crc32c(data: bytes) -> int:
    """TFRecord's checksum: CRC-32C, rotated and shifted, so that checksums of checksums stay good ones."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _damaged(number: int, how: str) -> ModelhostError:
    return _invalid(f"{WARMUP_FILE} is damaged at record {number}: {how}")


def _invalid(message: str) -> ModelhostError:
    return ModelhostError(Reason.SOURCE_INVALID, message)
