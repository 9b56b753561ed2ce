"""Tensors between messages and the server's own form. Bytes are handed on, not looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelhost.v1 import model_pb2, prediction_service_pb2, tensor_pb2

from ...errors import ModelhostError, Reason, brief
from ...hosting.checks import check_tensor
from ...samples import Sample
from ...tensors import MAX_TENSORS, STRING, RawTensor, RegionRange, TensorSpec, output_bytes
from ..wire_format import too_many_tensors


def raw_inputs(tensors: Mapping[str, tensor_pb2.Tensor]) -> dict[str, RawTensor]:
    """The inputs of a request; those in shared memory are told by where they are, see `sharing`.

    Raises:
        ModelhostError: INPUT_MALFORMED, INVALID_REQUEST.
    """
    if len(tensors) > MAX_TENSORS:
        raise too_many_tensors()
    return {name: _raw_tensor(name, tensor) for name, tensor in tensors.items()}


def _raw_tensor(name: str, tensor: tensor_pb2.Tensor) -> RawTensor:
    content, dtype = tensor.WhichOneof("content"), tensor.dtype
    if content == "raw" and dtype != STRING:
        return RawTensor(dtype, tensor.shape, tensor.raw)
    if content == "strings" and dtype == STRING:
        return RawTensor(dtype, tensor.shape, list(tensor.strings.values))
    if content is None:
        return RawTensor(dtype, tensor.shape, [] if dtype == STRING else b"")
    if content == "shared_memory" and dtype != STRING:
        place = tensor.shared_memory
        return RawTensor(dtype, tensor.shape, RegionRange(place.region, place.offset, place.byte_size))
    field = f"inputs[{brief(name)}]"
    expected = "strings" if dtype == STRING else "raw"
    raise ModelhostError(
        Reason.INPUT_MALFORMED, f"{field}: expected the content in `{expected}`, as its dtype asks; got `{content}`",
        field=field, input=brief(name),
    )  # fmt: skip


def samples(field: str, messages: Sequence[model_pb2.Sample]) -> tuple[Sample, ...]:
    """The samples in a request's field.

    Raises:
        ModelhostError: INPUT_MALFORMED, UNSUPPORTED.
    """
    found = []
    for i, message in enumerate(messages):
        inputs = raw_inputs(message.inputs)
        for name, tensor in inputs.items():
            where = f"{field}[{i}].inputs[{brief(name)}]"
            if isinstance(tensor.data, RegionRange):
                raise ModelhostError(
                    Reason.UNSUPPORTED, f"{where}: examples are not taken from shared memory; send `raw`", field=where
                )
            check_tensor(where, tensor)
        found.append(Sample(message.signature, inputs))
    return tuple(found)


def fill_outputs(response: prediction_service_pb2.PredictResponse, outputs: Mapping[str, RawTensor]) -> None:
    """Puts outputs into a response."""
    for name, output in outputs.items():
        tensor = response.outputs[name]
        tensor.dtype = output.dtype  # type: ignore[assignment]
        tensor.shape.extend(output.shape)
        if output.dtype == STRING:
            tensor.strings.values.extend(output.data)  # type: ignore[arg-type]
        else:
            tensor.raw = bytes(output_bytes(output))


def spec_message(spec: TensorSpec) -> tensor_pb2.TensorSpec:
    """A signature's input or output as a message."""
    return tensor_pb2.TensorSpec(
        name=spec.name, dtype=spec.dtype, shape=spec.shape or (), unknown_rank=spec.shape is None,  # type: ignore[arg-type]
        optional=spec.optional,
    )  # fmt: skip
