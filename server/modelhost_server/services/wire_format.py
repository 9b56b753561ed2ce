"""Protobuf's encoding, for messages that are read and written by hand because they carry large tensors.

See https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor

from ..errors import ModelhostError, Reason
from ..tensors import MAX_TENSORS, LeasedBytes

# Wire types.
VARINT, LENGTH = 0, 2
_FIXED = {1: 8, 5: 4}
# Read one by one, so many take some hundredths of a second, and of strings a second.
_MOST_FIELDS, _MOST_STRINGS = 50_000, 1_000_000
# Parts that are messages take many times their size once they are parsed.
_MOST_MESSAGES = 50_000
_LARGE_BYTES = 256 << 10
# Fields of the entries of a map.
_KEY, _VALUE = 1, 2

_Value = TypeVar("_Value")

# Buffers, one after the other. Leased ones stay leased until they are written: their memory is used again after that.
Parts = list[Any]


class UnusualError(Exception):
    """A message is not as protobuf libraries write it, or nothing for the one who reads it."""


def read_fields(
    data: bytes, place: int, end: int, most: int = _MOST_FIELDS
) -> Iterable[tuple[int, int, int, int, int]]:
    """Of each field: number, wire type, where it begins, and where its content begins and ends.

    Raises:
        ModelhostError: INVALID_REQUEST: there are more than anybody needs, and looking at them takes long.
    """
    count = 0
    while place < end:
        count += 1
        if count > most:
            raise too_many_parts()
        field = place
        tag, place = read_varint(data, place)
        begin, kind = place, tag & 7
        if kind == LENGTH:
            size, begin = read_varint(data, place)
            place = begin + size
        elif kind == VARINT:
            _, place = read_varint(data, place)
        elif kind in _FIXED:
            place += _FIXED[kind]
        else:
            raise UnusualError
        if place > end:
            raise UnusualError
        yield tag >> 3, kind, field, begin, place


def too_many_tensors() -> ModelhostError:
    """More tensors than a message may have."""
    return ModelhostError(Reason.INVALID_REQUEST, f"expected at most {MAX_TENSORS} tensors in a message; got more")


def too_many_parts() -> ModelhostError:
    """A message of more parts than anybody needs."""
    return ModelhostError(Reason.INVALID_REQUEST, "the message has too many parts; split it into several")


def check_parts(data: bytes, descriptor: Descriptor) -> None:
    """Looks at what a large message consists of before protobuf makes objects of it: an empty part of 2 bytes becomes
    one of 100.

    Raises:
        ModelhostError: INVALID_REQUEST: it has too many parts.
    """
    if len(data) < _LARGE_BYTES:
        return
    count, left = 0, _MOST_STRINGS
    messages = [(descriptor, 0, len(data))]
    try:
        while messages:
            parent, begin, end = messages.pop()
            for number, kind, _, start, stop in read_fields(data, begin, end, left):
                left -= 1
                field = parent.fields_by_number.get(number)
                if kind != LENGTH or field is None or field.message_type is None:
                    continue
                count += 1
                if count > _MOST_MESSAGES:
                    raise too_many_parts()
                # Looked into only where there may be more of them.
                if any(inner.message_type for inner in field.message_type.fields):
                    messages.append((field.message_type, start, stop))
    except (UnusualError, IndexError):
        # Cut off, or of a kind that nobody writes: there is no such message.
        raise ModelhostError(Reason.INVALID_REQUEST, "the request is no message that protobuf would write") from None


def read_singles(data: bytes, begin: int, end: int, varints: Collection[int]) -> dict[int, tuple[int, int]]:
    """Where the content of each field begins and ends, in a message whose fields come once; those of the numbers
    `varints` are varints, the others have lengths.

    Raises:
        UnusualError: they do not.
    """
    fields = {}
    for number, kind, _, start, stop in read_fields(data, begin, end):
        if number in fields or kind != (VARINT if number in varints else LENGTH):
            raise UnusualError
        fields[number] = start, stop
    return fields


def read_map(
    data: bytes, number: int, read_value: Callable[[bytes, int, int], _Value]
) -> tuple[bytes, dict[str, _Value]]:
    """A message without a map of it, and the map, by its field's number; `read_value` is given where a value begins and
    ends.

    Raises:
        UnusualError: an entry is not complete, or not the only one of its key.
        UnicodeDecodeError: a key is not UTF-8.
        ModelhostError: INVALID_REQUEST: there are too many entries.
        IndexError: the message is cut off.
    """
    view = memoryview(data)
    values: dict[str, _Value] = {}
    rest = []
    for found, kind, field, begin, end in read_fields(data, 0, len(data)):
        if found != number:
            rest.append(view[field:end])
            continue
        entry = read_singles(data, begin, end, ()) if kind == LENGTH else {}
        if entry.keys() != {_KEY, _VALUE}:
            raise UnusualError
        key = data[slice(*entry[_KEY])].decode()
        if key in values:
            raise UnusualError
        if len(values) == MAX_TENSORS:
            raise too_many_tensors()
        values[key] = read_value(data, *entry[_VALUE])
    return b"".join(rest), values


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


def write_entry_head(number: int, key: str, value: bytes, content_size: int) -> bytes:
    """All of a map's entry that precedes the content of its value: `value` is what the value begins with, and so many
    bytes follow.
    """
    encoded = key.encode()
    head = b"\x0a" + write_varint(len(encoded)) + encoded + b"\x12" + write_varint(len(value) + content_size) + value
    return write_varint(number << 3 | LENGTH) + write_varint(len(head) + content_size) + head


def join_parts(parts: Iterable[Any]) -> bytes:
    """All of them as one."""
    return b"".join(part.view if isinstance(part, LeasedBytes) else part for part in parts)
