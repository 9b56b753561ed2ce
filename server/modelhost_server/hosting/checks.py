"""Checks a prediction's inputs against its signature before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from ..errors import ModelhostError, Reason, brief
from ..store.records import Loaded, Version
from ..tensors import (
    DTYPE_NAME,
    ITEMSIZE,
    STRING,
    FileRange,
    RawTensor,
    SignatureSpec,
    TensorSpec,
    element_count,
    is_too_large,
)

DEFAULT_SIGNATURE = "serving_default"
_BOOL = 10
# Names that a message lists: a status must fit into HTTP headers.
_MAX_LISTED = 8


def choose_signature(version: Version, name: str) -> tuple[int, SignatureSpec]:
    """Position and spec of the signature asked for: "serving_default", or the only one, when no name is given.

    Raises:
        ModelhostError: SIGNATURE_NOT_FOUND.
    """
    loaded = version.loaded
    assert loaded is not None, "only loaded versions are acquired"
    found = loaded.signature(name or DEFAULT_SIGNATURE)
    if found is not None:
        return found
    if not name and len(loaded.signatures) == 1:
        return 0, loaded.signatures[0]
    raise _no_signature(version, loaded, name)


def _no_signature(version: Version, loaded: Loaded, name: str) -> ModelhostError:
    there = _listed(spec.name for spec in loaded.signatures)
    resource = version.resource
    return ModelhostError(
        Reason.SIGNATURE_NOT_FOUND,
        f"signature: {resource} has no signature {brief(name or DEFAULT_SIGNATURE)}; it has: {there}",
        field="signature",
        resource=resource,
    )


def check_inputs(spec: SignatureSpec, inputs: Mapping[str, RawTensor]) -> list[tuple[int, RawTensor]]:
    """The inputs by position.

    Raises:
        ModelhostError: INPUT_MISSING, INPUT_UNKNOWN, INPUT_DTYPE_MISMATCH, INPUT_SHAPE_MISMATCH, INPUT_MALFORMED.
    """
    chosen: list[tuple[int, RawTensor]] = []
    for position, expected in enumerate(spec.inputs):
        tensor = inputs.get(expected.name)
        if tensor is None:
            if expected.optional:
                continue
            raise _missing(spec, expected, inputs)
        _check_tensor(expected, tensor)
        chosen.append((position, tensor))
    if len(chosen) != len(inputs):
        raise _unknown(spec, inputs)
    return chosen


def _missing(spec: SignatureSpec, expected: TensorSpec, inputs: Mapping[str, RawTensor]) -> ModelhostError:
    came = _listed(brief(name) for name in sorted(inputs))
    return ModelhostError(
        Reason.INPUT_MISSING,
        f"inputs: signature '{spec.name}' needs {brief(expected.name)} ({expected}); got: {came}",
        field=f"inputs[{brief(expected.name)}]",
        input=expected.name,
        expected=expected,
    )


def _unknown(spec: SignatureSpec, inputs: Mapping[str, RawTensor]) -> ModelhostError:
    known = [expected.name for expected in spec.inputs]
    name = next(name for name in sorted(inputs) if name not in known)
    return ModelhostError(
        Reason.INPUT_UNKNOWN,
        f"inputs: signature '{spec.name}' has no input {brief(name)}; it has: {_listed(known)}",
        field=f"inputs[{brief(name)}]",
        input=brief(name),
    )


def _check_tensor(expected: TensorSpec, tensor: RawTensor) -> None:
    if tensor.dtype != expected.dtype:
        got = DTYPE_NAME.get(tensor.dtype, f"number {tensor.dtype}")
        raise _input_error(
            Reason.INPUT_DTYPE_MISMATCH, expected, f"expected {expected}; got dtype {got}", expected, got
        )
    if not expected.accepts_shape(tensor.shape):
        raise _input_error(
            Reason.INPUT_SHAPE_MISMATCH, expected, f"expected {expected}; got shape {_short(tensor.shape)}",
            expected, _short(tensor.shape),
        )  # fmt: skip
    try:
        _check_content(f"inputs[{brief(expected.name)}]", tensor)
    except ModelhostError as error:
        error.details["input"] = expected.name
        raise


def check_tensor(field: str, tensor: RawTensor) -> None:
    """Checks that a tensor's dtype, shape and bytes go together.

    Raises:
        ModelhostError: INPUT_DTYPE_MISMATCH, INPUT_MALFORMED.
    """
    if tensor.dtype not in ITEMSIZE:
        raise _field_error(
            Reason.INPUT_DTYPE_MISMATCH, field, f"expected a dtype of modelhost.v1.DataType; got number {tensor.dtype}",
            "a known dtype", tensor.dtype,
        )  # fmt: skip
    _check_content(field, tensor)


def _check_content(field: str, tensor: RawTensor) -> None:
    shape, data = tensor.shape, tensor.data
    if min(shape, default=0) < 0:
        raise _field_error(
            Reason.INPUT_MALFORMED, field, f"no extent of a tensor is negative; got shape {_short(shape)}",
            "extents of 0 or more", _short(shape),
        )  # fmt: skip
    if is_too_large(shape):
        raise _field_error(
            Reason.INPUT_MALFORMED, field, f"the shape is too large: {_short(shape)}", "a smaller shape", _short(shape)
        )
    assert isinstance(data, bytes | memoryview | Sequence | FileRange)
    count = element_count(shape)
    size, unit = (count, "elements") if tensor.dtype == STRING else (count * ITEMSIZE[tensor.dtype], "bytes")
    if len(data) != size:
        raise _field_error(
            Reason.INPUT_MALFORMED, field,
            f"shape {_short(shape)} of {DTYPE_NAME[tensor.dtype]} is {size} {unit}; got {len(data)}", size, len(data),
        )  # fmt: skip
    if tensor.dtype == _BOOL and (wrong := bytes(data).translate(None, b"\0\1")):  # type: ignore[arg-type]
        raise _field_error(
            Reason.INPUT_MALFORMED, field, f"bytes of bool are 0 or 1; got {wrong[0]}", "0 or 1", wrong[0]
        )


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f", … ({len(names)} in all)" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more or "none"


def _short(shape: Sequence[int]) -> str:
    more = f", … ({len(shape)} dimensions)" if len(shape) > 16 else ""
    return f"[{', '.join(map(str, shape[:16]))}{more}]"


def _input_error(reason: Reason, spec: TensorSpec, text: str, expected: object, actual: object) -> ModelhostError:
    error = _field_error(reason, f"inputs[{brief(spec.name)}]", text, expected, actual)
    error.details["input"] = spec.name
    return error


def _field_error(reason: Reason, field: str, text: str, expected: object, actual: object) -> ModelhostError:
    return ModelhostError(reason, f"{field}: {text}", field=field, expected=expected, actual=actual)


def choose_outputs(spec: SignatureSpec, wanted: Sequence[str]) -> list[int]:
    """Positions of the outputs asked for; empty for all.

    Raises:
        ModelhostError: OUTPUT_UNKNOWN.
    """
    if not wanted:
        return []
    position = {output.name: i for i, output in enumerate(spec.outputs)}
    for name in wanted:
        if name not in position:
            raise ModelhostError(
                Reason.OUTPUT_UNKNOWN,
                f"output_filter: signature '{spec.name}' has no output {brief(name)}; it has: {_listed(position)}",
                field="output_filter",
            )
    return [position[name] for name in dict.fromkeys(wanted)]


class Checks(NamedTuple):
    """How a protocol checks predictions: in its own order, with its own messages.

    Attributes:
        choose_signature: position and spec of a version's signature of this name.
        check_inputs: the inputs by position. Whatever it lets pass, the bytes fit the dtype and the shape.
        choose_outputs: positions of the outputs asked for; empty for all.
        keeps_shapes: `check_inputs` lets only shapes pass that fit the signature.
    """

    choose_signature: Callable[[Version, str], tuple[int, SignatureSpec]]
    check_inputs: Callable[[SignatureSpec, Mapping[str, RawTensor]], list[tuple[int, RawTensor]]]
    choose_outputs: Callable[[SignatureSpec, Sequence[str]], list[int]]
    keeps_shapes: bool = True


NATIVE_CHECKS = Checks(choose_signature, check_inputs, choose_outputs)
