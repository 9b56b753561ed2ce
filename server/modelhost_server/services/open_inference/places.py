"""Tensors of inferences in shared memory: where they are, and how they get in and out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ...compat.open_inference_pb2 import InferParameter
from ...errors import Code, ForeignError
from ...tensors import FileRange
from .errors import invalid, quoted
from .regions import Place

_REGION, _OFFSET, _SIZE = "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size"


class _Tensor(Protocol):
    """An input, or an output that is asked for."""

    @property
    def name(self) -> str: ...
    @property
    def parameters(self) -> Mapping[str, InferParameter]: ...


def place_of(tensor: _Tensor) -> Place | None:
    """Where a tensor is, or is to go; None when that is the message.

    Raises:
        ForeignError: INVALID_ARGUMENT.
    """
    parameters = tensor.parameters
    if _REGION not in parameters:
        for name in (_OFFSET, _SIZE):
            if name in parameters:
                raise invalid(
                    f"'{name}' can not be specified without '{_REGION}' parameter for tensor {quoted(tensor.name)}"
                )
        return None
    _check_kind(tensor, _REGION, "string_param")
    _check_kind(tensor, _OFFSET, "int64_param")
    _check_kind(tensor, _SIZE, "int64_param")
    if _SIZE not in parameters:
        raise invalid(f"'{_SIZE}' must be specified along with '{_REGION}' parameter for tensor {quoted(tensor.name)}")
    offset = parameters[_OFFSET].int64_param if _OFFSET in parameters else 0
    return Place(parameters[_REGION].string_param, offset, parameters[_SIZE].int64_param)


def read_place(place: Place, content: FileRange) -> bytearray:
    """A copy of a range: for what is looked at here, and must be what is run, whatever the caller writes meanwhile.

    Raises:
        ForeignError: INVALID_ARGUMENT when it is no longer there.
    """
    copied = bytearray(len(content))
    try:
        content.read_into(memoryview(copied))
    except OSError as error:
        raise invalid(f"unable to read shared memory region {quoted(place.region)}: {error.strerror}") from None
    return copied


def check_room(output: str, place: Place, size: int) -> None:
    """Checks that a place is large enough for an output.

    Raises:
        ForeignError: INTERNAL, as Triton has it.
    """
    if size > place.byte_size:
        raise ForeignError(
            Code.INTERNAL,
            f"shared memory size specified with the request for output {quoted(output)} ({place.byte_size} bytes) "
            f"should be at least {size} bytes to hold the results",
        )


def write_place(place: Place, target: FileRange, content: memoryview) -> None:
    """Puts an output where its caller wants it.

    Raises:
        ForeignError: INTERNAL when there is no longer room for it.
    """
    try:
        target.write_from(content)
    except OSError as error:
        raise ForeignError(
            Code.INTERNAL, f"unable to write shared memory region {quoted(place.region)}: {error.strerror}"
        ) from None


def _check_kind(tensor: _Tensor, name: str, kind: str) -> None:
    parameter = tensor.parameters.get(name)
    if parameter is not None and parameter.WhichOneof("parameter_choice") != kind:
        raise invalid(f"invalid value type for '{name}' parameter for tensor {quoted(tensor.name)}, expected {kind}.")
