"""Protobuf's encoding, for messages that are read and written by hand because they carry large tensors.

See https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from ..tensors import LeasedBytes

# Wire types.
VARINT, LENGTH = 0, 2

# Buffers, one after the other. Leased ones stay leased until they are written: their memory is used again after that.
Parts = list[Any]


class UnusualError(Exception):
    """A message is not as protobuf libraries write it, or nothing for the one who reads it."""


def read_fields(data: bytes, place: int, end: int) -> Iterable[tuple[int, int, int, int, int]]:
    """Of each field: number, wire type, where it begins, and where its content begins and ends."""
    while place < end:
        field = place
        tag, place = read_varint(data, place)
        begin, kind = place, tag & 7
        if kind == LENGTH:
            size, begin = read_varint(data, place)
            place = begin + size
        elif kind == VARINT:
            _, place = read_varint(data, place)
        else:
            raise UnusualError
        if place > end:
            raise UnusualError
        yield tag >> 3, kind, field, begin, place


def read_varint(data: bytes, place: int) -> tuple[int, int]:
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
    raise UnusualError


@lru_cache(4096)
def write_varint(value: int) -> bytes:
    """A number that is not negative, as a varint."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def join_parts(parts: Iterable[Any]) -> bytes:
    """All of them as one."""
    return b"".join(part.view if isinstance(part, LeasedBytes) else part for part in parts)
