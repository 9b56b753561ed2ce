"""Checks an inference's inputs and outputs against a signature, in Triton's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import ForeignError, ModelhostError
from ...hosting.checks import Checks, check_tensor, choose_signature
from ...store.records import Version
from ...tensors import ITEMSIZE, STRING, RawTensor, SignatureSpec, TensorSpec, element_count, is_too_large
from .byte_strings import IncompleteError, read_strings
from .datatypes import datatype
from .errors import invalid, quoted


class RequestChecks:
    """The checks of one request.

    Args:
        model: as its caller calls it.
        request_id: its caller's; messages have it.
    """

    __slots__ = ("_labels", "_model", "_request_id", "_spec")

    def __init__(self, model: str, request_id: str) -> None:
        self._model = model
        self._request_id = request_id
        self._spec: SignatureSpec | None = None
        self._labels: Mapping[str, Sequence[bytes]] = {}

    @property
    def is_batched(self) -> bool:
        """Whether the signature that was chosen takes and gives batches."""
        return self._spec is not None and self._spec.is_batched

    def labels(self, output: str) -> Sequence[bytes]:
        """Of the elements of an output of the version that was chosen, as far as there are any."""
        return self._labels.get(output, ())

    def checks(self) -> Checks:
        """As the host wants them."""
        return Checks(self._choose_signature, self._check_inputs, self._choose_outputs)

    def _choose_signature(self, version: Version, name: str) -> tuple[int, SignatureSpec]:
        position, self._spec = choose_signature(version, name)
        self._labels = version.description.labels
        return position, self._spec

    def _check_inputs(self, spec: SignatureSpec, inputs: Mapping[str, RawTensor]) -> list[tuple[int, RawTensor]]:
        chosen: list[tuple[int, RawTensor]] = []
        for position, expected in enumerate(spec.inputs):
            tensor = inputs.get(expected.name)
            if tensor is not None:
                chosen.append((position, self._checked(expected, tensor)))
            elif not expected.optional:
                raise self._other_inputs(spec, inputs)
        if len(chosen) != len(inputs):
            raise self._other_inputs(spec, inputs)
        return chosen

    def _choose_outputs(self, spec: SignatureSpec, wanted: Sequence[str]) -> list[int]:
        """Positions in the signature's order, whatever the request's is. All are none: what is wanted alike may share a
        batch.
        """
        if not wanted:
            return []
        names = [output.name for output in spec.outputs]
        asked = dict.fromkeys(wanted)
        for name in asked:
            if name not in names:
                raise invalid(f"unexpected inference output {quoted(name)} for model {quoted(self._model)}")
        positions = [position for position, name in enumerate(names) if name in asked]
        return positions if len(positions) < len(names) else []

    def _other_inputs(self, spec: SignatureSpec, inputs: Mapping[str, RawTensor]) -> ForeignError:
        known = {expected.name for expected in spec.inputs}
        required = [expected.name for expected in spec.inputs if not expected.optional]
        if len(required) <= len(inputs) <= len(known):
            name = next((name for name in inputs if name not in known), "")
            if name:
                return invalid(f"unexpected inference input {quoted(name)} for model {quoted(self._model)}")
        count = str(len(known))
        if len(required) != len(known):
            count = f"number of inputs between {len(required)} and {len(known)}"
        else:
            count += " inputs"
        missing = [name for name in required if name not in inputs]
        return self._refused(
            f"expected {count} but got {len(inputs)} inputs for model {quoted(self._model)}. Got input(s) "
            f"{_listed(inputs)}, but missing required input(s) {_listed(missing)}. Please provide all required "
            "input(s)."
        )

    def _checked(self, expected: TensorSpec, tensor: RawTensor) -> RawTensor:
        """The tensor, with BYTES as a list."""
        if tensor.dtype != expected.dtype:
            raise self._refused(
                f"inference input {quoted(expected.name)} data-type is '{datatype(tensor.dtype)}', but model "
                f"{quoted(self._model)} expects '{datatype(expected.dtype)}'"
            )
        if not expected.accepts_shape(tensor.shape):
            if any(extent < 0 for extent in tensor.shape):
                raise self._negative(expected.name, tensor)
            raise self._refused(
                f"unexpected shape for input {quoted(expected.name)} for model {quoted(self._model)}. Expected "
                f"{_dims(expected.shape or ())}, got {_dims(tensor.shape)}. "
            )
        if tensor.dtype == STRING and not isinstance(tensor.data, list):
            tensor = tensor._replace(data=self._strings(expected.name, tensor.data))
        try:
            check_tensor(f"input {quoted(expected.name)}", tensor)
        except ModelhostError as error:
            raise self._malformed(expected.name, tensor, error) from None
        return tensor

    def _strings(self, name: str, data: Any) -> list[bytes]:
        try:
            return read_strings(data)
        except IncompleteError as error:
            if error.length is not None:
                raise invalid(
                    f"incomplete string data for inference input {quoted(name)}, expecting string of length "
                    f"{error.length} but only {error.available} bytes available"
                ) from None
            raise self._refused(
                f"incomplete string length indicator for inference input {quoted(name)} for model "
                f"{quoted(self._model)}, expecting 4 bytes but only {error.available} bytes available. Please make "
                "sure the string length indicator is in one buffer."
            ) from None

    def _malformed(self, name: str, tensor: RawTensor, error: ModelhostError) -> ForeignError:
        """What is wrong with a tensor of the right dtype and of a shape that fits."""
        if any(extent < 0 for extent in tensor.shape):
            return self._negative(name, tensor)
        if is_too_large(tensor.shape):
            return self._refused(error.message)
        count, got = element_count(tensor.shape), len(tensor.data)  # type: ignore[arg-type]
        where = f"input {quoted(name)} for model {quoted(self._model)}"
        if tensor.dtype != STRING:
            if got == count * ITEMSIZE[tensor.dtype]:
                return self._refused(error.message)
            expected = count * ITEMSIZE[tensor.dtype]
            return self._refused(f"input byte size mismatch for {where}. Expected {expected}, got {got}")
        if got < count:
            return self._refused(f"expected {count} string elements for inference {where}, got {got}")
        return self._refused(f"unexpected number of string elements {got} for inference {where}, expecting {count}")

    def _negative(self, name: str, tensor: RawTensor) -> ForeignError:
        return self._refused(
            f"All input dimensions should be specified for input {quoted(name)} for model {quoted(self._model)}, got "
            f"{_dims(tensor.shape)}"
        )

    def _refused(self, message: str) -> ForeignError:
        return refused(self._request_id, message)


def refused(request_id: str, message: str) -> ForeignError:
    """The failure of a request, with its id."""
    return invalid(f"[request id: {request_id[:256] or '<id_unknown>'}] {message}")


def _listed(names: Mapping[str, object] | Sequence[str]) -> str:
    some = list(names)[:16]
    more = f",… ({len(names)} in all)" if len(names) > len(some) else ""
    return f"[{','.join(map(quoted, some))}{more}]"


def _dims(shape: Sequence[int]) -> str:
    more = f",… ({len(shape)} dimensions)" if len(shape) > 16 else ""
    return f"[{','.join(map(str, shape[:16]))}{more}]"
