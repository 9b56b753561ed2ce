"""Requests as they are sent, as inferences have them."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from ...compat import open_inference_pb2 as pb
from ...errors import brief
from ...tensors import STRING, RawTensor
from ..wire_format import read_varint
from .checks import refused
from .datatypes import DTYPE, INVALID_DTYPE, datatype
from .errors import invalid, quoted
from .inference import InferenceRequest
from .parameters import Value, options
from .places import place_of, read_place
from .regions import Place, SystemRegions

# What a field of InferTensorContents is for; the last one is what it is said to be for where it does not fit.
_CONTENTS: Mapping[str, Sequence[str]] = {
    "bool_contents": ("BOOL",),
    "int_contents": ("INT8", "INT16", "INT32"),
    "int64_contents": ("INT64",),
    "uint_contents": ("UINT8", "UINT16", "UINT32"),
    "uint64_contents": ("UINT64",),
    "fp32_contents": ("FP32",),
    "fp64_contents": ("FP64",),
    "bytes_contents": ("BYTES",),
}
# On the wire as they are in memory.
_PACKED = frozenset({"bool_contents", "fp32_contents", "fp64_contents"})
_TYPECODES = {
    "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
}  # fmt: skip
# Elements of these are looked at before they are run.
_LOOKED_AT = frozenset({DTYPE["BOOL"], STRING})
_ALL_CLASSES = 1 << 31


def inference_request(
    message: pb.ModelInferRequest, raw: Sequence[bytes | memoryview], regions: SystemRegions
) -> InferenceRequest:
    """A request.

    Args:
        message: the request.
        raw: its `raw_input_contents`.
        regions: that inputs may be in.

    Raises:
        ForeignError: INVALID_ARGUMENT, NOT_FOUND.
    """
    asked = options({name: value_of(value) for name, value in message.parameters.items()})
    inputs = _inputs(message, raw, regions)
    outputs = _outputs(message) if message.outputs else ()
    return InferenceRequest(message.model_name, message.model_version, message.id, asked, inputs, *outputs)


def value_of(parameter: pb.InferParameter) -> Value:
    """A parameter's value."""
    choice = parameter.WhichOneof("parameter_choice")
    return None if choice is None else getattr(parameter, choice)


def _inputs(
    message: pb.ModelInferRequest, raw: Sequence[bytes | memoryview], regions: SystemRegions
) -> dict[str, RawTensor]:
    inputs: dict[str, RawTensor] = {}
    taken = 0
    for tensor in message.inputs:
        name, shape = tensor.name, tensor.shape
        dtype = DTYPE.get(tensor.datatype, INVALID_DTYPE)
        place = place_of(tensor) if tensor.parameters else None
        data: Any
        if place is not None:
            if tensor.HasField("contents"):
                raise invalid(
                    f"unexpected 'content' provided when using shared memory for input tensor {quoted(name)} for model "
                    f"{quoted(message.model_name)}"
                )
            data = regions.range(place)
            if dtype in _LOOKED_AT:
                data = read_place(place, data)
        elif tensor.HasField("contents"):
            if raw:
                raise invalid(
                    f"contents field must not be specified when using raw_input_contents for {quoted(name)} for model "
                    f"{quoted(message.model_name)}"
                )
            data = _typed(message.model_name, tensor, dtype)
        elif taken < len(raw):
            data = raw[taken]
            taken += 1
        else:
            raise invalid(
                f"unable to find data for input tensor {quoted(name)} for model {quoted(message.model_name)} in "
                "request."
            )
        if name in inputs:
            raise refused(message.id, f"input {quoted(name)} already exists in request")
        inputs[name] = RawTensor(dtype, shape, data)
    return inputs


def _typed(model: str, tensor: pb.ModelInferRequest.InferInputTensor, dtype: int) -> Any:
    """Typed contents as bytes, or as a list."""
    contents = tensor.contents
    where = f"unexpected explicit tensor data for input tensor {quoted(tensor.name)} for model {quoted(model)}"
    given = contents.ListFields()
    if not given:
        return b""
    field, values = given[0]
    allowed, wanted = _CONTENTS[field.name], datatype(dtype)
    if wanted not in allowed:
        raise invalid(f"{where} of type '{allowed[-1]}', expected datatype '{wanted}'")
    if len(given) > 1:
        raise invalid(f"{where}, binary data was already supplied.")
    if dtype == STRING:
        return list(values)
    if field.name in _PACKED:
        contents.DiscardUnknownFields()
        encoded = contents.SerializeToString()
        _, begin = read_varint(encoded, 1)
        return memoryview(encoded)[begin:]
    try:
        return array(_TYPECODES[wanted], values).tobytes()
    except OverflowError:
        low = next(value for value in values if not _fits(_TYPECODES[wanted], value))
        raise invalid(f"{where}: {brief(low)} is no {wanted}") from None


def _fits(typecode: str, value: int) -> bool:
    try:
        array(typecode, (value,))
    except OverflowError:
        return False
    return True


def _outputs(message: pb.ModelInferRequest) -> tuple[list[str], dict[str, int], dict[str, Place]]:
    """The outputs asked for, how many classes of them, and where they are to go."""
    names: list[str] = []
    classes: dict[str, int] = {}
    places: dict[str, Place] = {}
    for output in message.outputs:
        names.append(output.name)
        if not output.parameters:
            continue
        place = place_of(output)
        if "classification" in output.parameters:
            count = value_of(output.parameters["classification"])
            if isinstance(count, bool) or not isinstance(count, int):
                raise invalid("invalid value type for 'classification' parameter, expected int64_param")
            if count <= 0:
                raise invalid("invalid value for 'classification' parameter, expected >= 1")
            if place is not None:
                raise invalid("output can't set both 'shared_memory_region' and 'classification'")
            classes[output.name] = min(count, _ALL_CLASSES)
        elif place is not None:
            places[output.name] = place
    return names, classes, places
