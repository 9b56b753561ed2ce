"""JSON documents: read whatever callers send, and told of in messages."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

# A message quotes at most this much of a document.
_QUOTED = 256
_SURROGATE = re.compile(rb"\\u[dD]")
_KINDS = ((dict, "Object"), (list, "Array"), (str, "String"))


class MalformedDocument(ValueError):
    """These bytes are no JSON. `offset` is where that shows."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset


def read_document(data: bytes | memoryview) -> Any:
    """The document in UTF-8. NaN, Infinity and -Infinity are numbers; of a name that is there twice the last counts.

    Raises:
        MalformedDocument: it is none, or too deep, or has a number that is too large.
    """
    try:
        with _no_collection():
            return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        text = bytes(data)
        if b"NaN" not in text and b"Infinity" not in text:
            raise MalformedDocument(error.msg, error.pos) from None
    try:
        # Strictly: `loads` would take bytes that are no UTF-8.
        document = json.loads(text.decode())
        if _SURROGATE.search(text):
            # Half a character, which could not be written anywhere.
            orjson.dumps(document)
        return document
    except json.JSONDecodeError as error:
        raise MalformedDocument(error.msg, error.pos) from None
    except RecursionError:
        raise MalformedDocument("depth limit exceeded", 0) from None
    except (ValueError, TypeError) as error:
        raise MalformedDocument(str(error), 0) from None


@contextmanager
def _no_collection() -> Iterator[None]:
    # The lists of a document are never cyclic, and the collector looks at all of them again and again while they are
    # made: for an image, that takes twice as long as reading it.
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def quoted(value: Any) -> str:
    """A value of a document as a message shows it: its beginning, when it is long."""
    text = ""
    for part in json.JSONEncoder(ensure_ascii=False).iterencode(value):
        text += part
        if len(text) > _QUOTED:
            return f"{text[:_QUOTED]}…"
    return text


def kind(value: Any) -> str:
    """What a value is, in the words of TensorFlow Serving's messages."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return "True" if value else "False"
    return next((name for of, name in _KINDS if isinstance(value, of)), "Number")
