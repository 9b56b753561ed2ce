"""BYTES tensors: each element's length in four bytes, little-endian, then the element."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

_LENGTH = struct.Struct("<I")


class IncompleteError(ValueError):
    """Bytes end within an element, or within its length.

    Attributes:
        length: of the element; None when its length is incomplete.
        available: bytes that are there of it.
    """

    def __init__(self, length: int | None, available: int) -> None:
        super().__init__(length, available)
        self.length = length
        self.available = available


def read_strings(data: bytes | bytearray | memoryview) -> list[bytes]:
    """The elements.

    Raises:
        IncompleteError: the last one is not there as a whole.
    """
    content = bytes(data)
    strings = []
    place, end = 0, len(content)
    while place < end:
        if end - place < _LENGTH.size:
            raise IncompleteError(None, end - place)
        (length,) = _LENGTH.unpack_from(content, place)
        place += _LENGTH.size
        if length > end - place:
            raise IncompleteError(length, end - place)
        strings.append(content[place : place + length])
        place += length
    return strings


def string_parts(strings: Iterable[Any]) -> list[Any]:
    """The encoded elements, part by part."""
    return [part for string in strings for part in (_LENGTH.pack(len(string)), string)]
