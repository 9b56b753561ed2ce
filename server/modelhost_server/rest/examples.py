"""Examples of `:classify` and `:regress` requests, between JSON and TensorFlow's Example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import ForeignError
from ..services.tensorflow_serving.errors import invalid
from .dense import from_base64, is_base64
from .documents import kind, quoted

# The name of a feature's list in TensorFlow's Feature, and what messages call it.
_BYTES, _FLOATS, _INTEGERS = "bytes_list", "float_list", "int64_list"
_MESSAGE_NAME = {_BYTES: "bytes", _FLOATS: "float", _INTEGERS: "int64"}
_INT64 = np.iinfo(np.int64)
# From here on numbers are rounded to infinity.
_FLOAT32_END = 2.0**128 - 2.0**103


def fill_input(document: Mapping[str, Any], target: Any) -> None:
    """Puts the examples of a request, and what all of them have in common, into TensorFlow Serving's Input.

    Raises:
        ForeignError: they are not as they should be.
    """
    examples = target.example_list
    if "context" in document:
        examples = target.example_list_with_context
        _fill_example(document["context"], examples.context)
    if "examples" not in document:
        raise invalid(
            f"JSON Value: {quoted(document)} When method is classify, key 'examples' is expected and was not found"
        )
    values = document["examples"]
    if not isinstance(values, list):
        raise invalid(f"JSON Value: {quoted(document)} Expecting 'examples' value to be an list/array")
    if not values:
        raise invalid(f"JSON Value: {quoted(document)} 'examples' value is an empty array")
    for value in values:
        _fill_example(value, examples.examples.add())


def _fill_example(value: Any, example: Any) -> None:
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {kind(value)}")
    for name, content in value.items():
        # A feature without values is one, too.
        feature = example.features.feature[name]
        for item in content if isinstance(content, list) else [content]:
            _add(item, name, feature)


def _add(value: Any, name: str, feature: Any) -> None:
    wanted, element = _element(value, name)
    there = feature.WhichOneof("kind")
    if there not in (None, wanted):
        raise invalid(f"Unexpected element type in feature: {name} expecting type: {_MESSAGE_NAME[there]}")
    getattr(feature, wanted).value.append(element)


def _element(value: Any, name: str) -> tuple[str, Any]:
    """Which list a value goes into, and what goes there."""
    match value:
        case bool() | int() if not _INT64.min <= value <= _INT64.max:
            raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
        case bool() | int():
            return _INTEGERS, int(value)
        case float() if _FLOAT32_END <= abs(value) < float("inf"):
            raise _lossy(value)
        case float():
            return _FLOATS, value
        case str():
            return _BYTES, value.encode()
        case _ if is_base64(value):
            return _BYTES, from_base64(value)
    raise invalid(f"Feature: {name} has element with unexpected JSON type: {kind(value)}")


def _lossy(value: float) -> ForeignError:
    return invalid(f"Cannot convert JSON value: {quoted(value)} to float without loss of precision.")
