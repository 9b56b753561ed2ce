"""What TensorFlow Serving checks of a prediction, in its order and words.

It checks no shapes, and neither the names of methods that signatures have (its --enable_signature_method_name_check is
off unless asked for).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from ...errors import Code, ModelhostError
from ...hosting.checks import DEFAULT_SIGNATURE, Checks, check_tensor
from ...store.records import Version
from ...tensors import RawTensor, SignatureSpec, TensorSpec
from .errors import error, invalid
from .tensors import UNREADABLE

# Where TensorFlow's own names of dtypes are not ours.
DTYPE_NAME: Mapping[int, str] = {
    1: "float", 2: "double", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 7: "string", 8: "complex64", 9: "int64",
    10: "bool", 14: "bfloat16", 17: "uint16", 18: "complex128", 19: "half", 22: "uint32", 23: "uint64",
}  # fmt: skip


def find_signature(version: Version, name: str) -> tuple[int, SignatureSpec] | None:
    """Position and spec of a signature; "serving_default" when no name is given."""
    assert version.loaded is not None, "only loaded versions are acquired"
    return version.loaded.signature(name or DEFAULT_SIGNATURE)


def _choose_signature(version: Version, name: str) -> tuple[int, SignatureSpec]:
    found = find_signature(version, name)
    if found is None:
        raise error(Code.FAILED_PRECONDITION, f'Serving signature key "{name or DEFAULT_SIGNATURE}" not found.')
    return found


def check_inputs(spec: SignatureSpec, inputs: Mapping[str, RawTensor]) -> list[tuple[int, RawTensor]]:
    """The inputs by position.

    Raises:
        ForeignError: they are not the signature's.
    """
    _check_count(spec, inputs)
    chosen = []
    for position, expected in enumerate(spec.inputs):
        tensor = inputs.get(expected.name)
        if tensor is not None:
            _check_readable(expected, tensor)
            chosen.append((position, tensor))
        elif not expected.optional:
            raise invalid(
                f"Signature input alias: {expected.name}(feed name: {expected.tensor}) not found in request and no "
                f"default value provided. Inputs expected to be in the request {{{_set(inputs)}}}, or default input "
                f"alias set: {_set(_optional(spec))}"
            )
    if len(chosen) != len(inputs):
        used = _set(spec.inputs[position].name for position, _ in chosen)
        raise invalid(f"Inputs contains invalid name. Used request inputs: {used}, request input: {_set(inputs)}")
    check_dtypes([(spec.inputs[position], tensor) for position, tensor in chosen])
    return chosen


def _check_count(spec: SignatureSpec, inputs: Collection[str]) -> None:
    if len(inputs) == len(spec.inputs) or (len(inputs) < len(spec.inputs) and _optional(spec)):
        return
    sent, known = set(inputs), {expected.name for expected in spec.inputs}
    raise invalid(
        f"input size does not match signature: {len(sent)}!={len(known)} "
        f"len({{{_set(sent)}}}) != len({{{_set(known)}}}). Sent extra: {{{_set(sent - known)}}}. "
        f"Missing but required: {{{_set(known - sent)}}}."
    )


def _optional(spec: SignatureSpec) -> list[str]:
    return [expected.name for expected in spec.inputs if expected.optional]


def _check_readable(expected: TensorSpec, tensor: RawTensor) -> None:
    try:
        if tensor is not UNREADABLE:
            check_tensor(expected.name, tensor)
            return
    except ModelhostError:
        pass
    raise invalid(f"tensor parsing error: {expected.name}")


def check_dtypes(tensors: Sequence[tuple[TensorSpec, RawTensor]]) -> None:
    """Says what TensorFlow's session says, which counts its arguments by the names of their tensors.

    Raises:
        ForeignError: a dtype is not the signature's.
    """
    if all(expected.dtype == tensor.dtype for expected, tensor in tensors):
        return
    for i, (expected, tensor) in enumerate(sorted(tensors, key=lambda pair: pair[0].tensor)):
        if expected.dtype != tensor.dtype:
            raise invalid(
                f"Expects arg[{i}] to be {DTYPE_NAME[expected.dtype]} but {DTYPE_NAME[tensor.dtype]} is provided"
            )


def _choose_outputs(spec: SignatureSpec, wanted: Sequence[str]) -> list[int]:
    positions = {output.name: i for i, output in enumerate(spec.outputs)}
    chosen: dict[str, int] = {}
    for name in wanted:
        if name not in positions:
            raise invalid(
                f"output tensor alias not found in signature: {name} Outputs expected to be in the set "
                f"{{{_set(positions)}}}."
            )
        if name in chosen:
            raise invalid(f"duplicate output tensor alias: {name}")
        chosen[name] = positions[name]
    return list(chosen.values())


def _set(names: Iterable[str]) -> str:
    return ",".join(sorted(names))


PREDICT = Checks(_choose_signature, check_inputs, _choose_outputs, keeps_shapes=False)
