"""Protobuf messages as Triton's JSON has them: names as they are, and whole numbers as numbers, whatever their size."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message


def message_document(message: Message) -> dict[str, Any]:
    """All of a message's fields, but messages in it that are not set."""
    document: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            of = kind.fields_by_name["value"]
            document[field.name] = {str(key): _value(of, value[key]) for key in value}
        elif field.is_repeated:
            document[field.name] = [_value(field, item) for item in value]
        else:
            document[field.name] = _value(field, value)
    return document


def _value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return message_document(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value.decode(errors="replace") if isinstance(value, bytes) else value
