"""Words, times and counts as the protocol's messages hold them."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from ._errors import InvalidRequestError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def duration(seconds: float) -> Duration:
    """Seconds as a message."""
    message = Duration()
    message.FromNanoseconds(int(seconds * 1e9))
    return message


def server_path(path: str | os.PathLike[str]) -> str:
    """A URI, or a path on the server's machine."""
    text = os.fspath(path)
    # A relative path that exists here can only mean that client and server share the disk.
    return os.path.abspath(text) if not _SCHEME.match(text) and os.path.exists(text) else text


def enum_number(enum: Any, field: str, word: str | None, prefix: str | None = None) -> Any:
    """The number of a word, in capitals or small letters; 0 for None.

    Args:
        enum: the protocol's enum.
        field: what the word was given as.
        word: the name of a value, without its prefix.
        prefix: of the names of its values; the field's name when None.

    Raises:
        InvalidRequestError: there is no such word.
    """
    if word is None:
        return 0
    prefix = prefix or f"{field.upper()}_"
    known = {name.removeprefix(prefix): number for name, number in enum.items() if number}
    found = known.get(str(word).upper())
    if found is None:
        raise InvalidRequestError(
            f"{field}: expected one of {', '.join(known).lower()}; got {word!r}", reason="INVALID_REQUEST"
        )
    return found


def enum_word(enum: Any, number: int, prefix: str) -> Any:
    """The word for an enum's number; the number itself when a newer server sends one unknown here."""
    return enum.Name(number).removeprefix(prefix) if number in enum.values() else str(number)


def optional_time(message: Message, field: str) -> datetime | None:
    """A timestamp field, or None when it is unset."""
    return getattr(message, field).ToDatetime(tzinfo=UTC) if message.HasField(field) else None


def optional_seconds(message: Message, field: str) -> float | None:
    """A duration field, or None when it is unset."""
    return getattr(message, field).ToNanoseconds() / 1e9 if message.HasField(field) else None
