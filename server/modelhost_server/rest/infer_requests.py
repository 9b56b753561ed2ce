"""The Open Inference Protocol's `infer` requests: a JSON document, and bytes of tensors behind it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..compat import open_inference_pb2 as pb
from ..errors import ForeignError
from ..services.open_inference.byte_strings import string_parts
from ..services.open_inference.datatypes import DTYPE
from ..services.open_inference.errors import invalid, quoted
from ..services.open_inference.wire import Request
from ..tensors import STRING
from .arrays import NUMPY, Unfit, flattened, number_bytes
from .documents import MalformedDocument, read_document

_BINARY_ONLY = ("FP16", "BF16")
_INT64, _UINT64 = 2**63, 2**64


class InferRequest(NamedTuple):
    """A request.

    Attributes:
        request: as the service takes it.
        is_binary: by name of an output asked for, whether it is wanted as bytes.
        is_binary_by_default: whether the others are.
    """

    request: Request
    is_binary: Mapping[str, bool]
    is_binary_by_default: bool


def infer_request(model: str, version: str, body: bytes, header_length: str | None) -> InferRequest:
    """A request. Tensors that came as bytes look into `body`.

    Args:
        model: from the path.
        version: from the path; "" when there is none.
        body: of the request.
        header_length: where its JSON ends; None: it is nothing else.

    Raises:
        ForeignError: it is not as it should be.
    """
    view = memoryview(body)
    end = _document_end(header_length, len(body))
    document = json_object(view[:end])
    message = pb.ModelInferRequest(model_name=model, model_version=version, id=_text(document, "id", ""))
    parameters = dict(_object(document, "parameters"))
    by_default = _flag(parameters, "binary_data_output")
    _fill_parameters(parameters, message.parameters)
    raw = _Inputs(message, view[end:]).read(_array(document, "inputs"))
    is_binary = {}
    for item in _array(document, "outputs") if "outputs" in document else []:
        output = message.outputs.add(name=_text(_checked_object(item, "outputs"), "name"))
        parameters = dict(_object(item, "parameters"))
        is_binary[output.name] = _flag(parameters, "binary_data")
        if is_binary[output.name] and "shared_memory_region" in parameters:
            raise invalid("Output can't set both 'shared_memory_region' and 'binary_data'")
        _fill_parameters(parameters, output.parameters)
    return InferRequest(Request(message, raw), is_binary, by_default)


def json_object(data: bytes | memoryview) -> dict[str, Any]:
    """The JSON object that a request, or its beginning, is.

    Raises:
        ForeignError: it is none.
    """
    try:
        document = read_document(data)
    except MalformedDocument as error:
        raise invalid(f"failed to parse the request JSON buffer: {error.message} at {error.offset}") from None
    return _checked_object(document, "the request")


class _Inputs:
    """Takes inputs out of a document and the bytes behind it."""

    def __init__(self, message: pb.ModelInferRequest, rest: memoryview) -> None:
        self._message = message
        self._rest = rest
        self._place = 0

    def read(self, items: Sequence[Any]) -> list[bytes | memoryview]:
        """The contents, of all inputs that are not in shared memory; the rest goes into the message."""
        raw: list[bytes | memoryview] = []
        for item in items:
            document = _checked_object(item, "inputs")
            parameters = dict(_object(document, "parameters"))
            _check_one_content(document, parameters)
            name, datatype = _text(document, "name"), _text(document, "datatype")
            shape = _shape(document)
            tensor = self._message.inputs.add(name=name, datatype=datatype, shape=shape)
            if "binary_data_size" in parameters:
                raw.append(self._taken(name, parameters.pop("binary_data_size")))
            elif "data" in document:
                raw.append(_from_json(name, datatype, shape, _array(document, "data")))
            _fill_parameters(parameters, tensor.parameters)
        if self._place != len(self._rest):
            raise invalid(f"unexpected additional input data for model {quoted(self._message.model_name)}")
        return raw

    def _taken(self, name: str, size: Any) -> memoryview:
        if not is_count(size):
            raise not_a_count("binary_data_size")
        begin, self._place = self._place, min(self._place + size, len(self._rest))
        missing = size - (self._place - begin)
        if missing:
            raise invalid(
                f"unexpected size for input {quoted(name)}, expecting {missing} additional bytes for model "
                f"{quoted(self._message.model_name)}"
            )
        return self._rest[begin : self._place]


def _document_end(header_length: str | None, size: int) -> int:
    if header_length is None:
        return size
    end = int(header_length) if re.fullmatch("[0-9]{1,10}", header_length) else size + 1
    if end > size:
        raise invalid(f"inference header size should be in range (0, {size}), got: {header_length[:32]}")
    if not end:
        raise invalid("requests of bytes alone are not supported: expected a JSON header that names the inputs")
    return end


def _check_one_content(document: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    found = [name for name in ("binary_data_size", "shared_memory_region") if name in parameters]
    found[:0] = ["data"] * ("data" in document)
    if len(found) != 1:
        got = " ".join(["set", *map(quoted, found)]) if found else "no field is set"
        raise invalid(
            "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', "
            f"'shared_memory_region' in 'parameters'. But {got}"
        )


def _from_json(name: str, datatype: str, shape: Sequence[int], data: list[Any]) -> bytes:
    if datatype in _BINARY_ONLY:
        raise invalid(
            f"receiving {datatype} data via JSON is not supported. Please use the binary data format for input {name}"
        )
    dtype = DTYPE.get(datatype)
    if dtype is None:
        raise invalid(f"invalid datatype for input {name}")
    wrong_shape = invalid("Unable to parse 'data': Shape does not match true shape of 'data' field")
    try:
        _, values = flattened(data)
    except Unfit:
        raise wrong_shape from None
    if len(values) != math.prod(shape):
        raise wrong_shape
    if dtype == STRING:
        if not set(map(type, values)) <= {str}:
            raise invalid("Unable to parse 'data': attempt to access JSON non-string as string")
        return b"".join(string_parts(value.encode() for value in values))
    try:
        return number_bytes(values, dtype, is_exact=False)
    except Unfit:
        raise _wrong_number(values, dtype, datatype) from None


def _wrong_number(values: Sequence[Any], dtype: int, datatype: str) -> ForeignError:
    kind = {"b": "boolean", "u": "unsigned-integer", "i": "signed-integer"}.get(NUMPY[dtype].kind, "number")
    fitting = (float, int) if kind == "number" else (bool,) if kind == "boolean" else (int,)
    if all(type(value) in fitting for value in values):
        return invalid(f"Unable to parse 'data': a value is out of the range of {datatype}")
    return invalid(f"Unable to parse 'data': attempt to access JSON non-{kind} as {kind}")


def _shape(document: Mapping[str, Any]) -> list[int]:
    shape = _array(document, "shape")
    if not all(is_count(extent) and extent < _INT64 for extent in shape):
        raise not_a_count("shape")
    return shape


def is_count(value: Any) -> bool:
    """Whether it is a number that counts something."""
    return type(value) is int and 0 <= value < _UINT64


def not_a_count(name: str) -> ForeignError:
    """What is said of a value that is none."""
    return invalid(f"Unable to parse '{name}': attempt to access JSON non-unsigned-integer as unsigned-integer")


def _checked_object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise invalid(f"Unable to parse {quoted(name)}: expected a JSON object")
    return value


def _object(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    return _checked_object(document.get(name, {}), name)


def _array(document: Mapping[str, Any], name: str) -> list[Any]:
    value = document.get(name)
    if not isinstance(value, list):
        raise invalid(f"Unable to parse {quoted(name)}: attempt to access JSON non-array as array")
    return value


def _text(document: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = document.get(name, default)
    if not isinstance(value, str):
        raise invalid(f"Unable to parse {quoted(name)}: attempt to access JSON non-string as string")
    return value


def _flag(parameters: dict[str, Any], name: str) -> bool:
    """Takes a flag out of parameters."""
    value = parameters.pop(name, False)
    if not isinstance(value, bool):
        raise invalid(f"Unable to parse {quoted(name)}: attempt to access JSON non-boolean as boolean")
    return value


def _fill_parameters(parameters: Mapping[str, Any], target: Any) -> None:
    for name, value in parameters.items():
        match value:
            case bool():
                target[name].bool_param = value
            case int() if -_INT64 <= value < _INT64:
                target[name].int64_param = value
            case int() if 0 <= value < _UINT64:
                target[name].uint64_param = value
            case float():
                target[name].double_param = value
            case str():
                target[name].string_param = value
            case _:
                raise invalid(
                    f"parameter {quoted(name)} has invalid type. It should be either 'int', 'bool', or 'string'."
                )
