"""What `infer` answers: a JSON document, and behind it the bytes of those outputs that are wanted so."""

from __future__ import annotations

from typing import Any

import orjson

from ..services.open_inference.byte_strings import string_parts
from ..services.open_inference.datatypes import datatype
from ..services.open_inference.errors import invalid, quoted
from ..services.open_inference.inference import InferenceResponse
from ..services.wire_format import join_parts
from ..tensors import STRING, RawTensor
from .arrays import array_json, flat_array
from .infer_requests import InferRequest


def infer_response(asked: InferRequest, response: InferenceResponse) -> tuple[bytes, int | None]:
    """The answer, and where its JSON ends; None when it is nothing else.

    Raises:
        ForeignError: JSON has nothing for an output.
    """
    placed = {output.name for output in asked.request.message.outputs if "shared_memory_region" in output.parameters}
    binary: list[Any] = []
    outputs = []
    for name, tensor in response.outputs.items():
        output: dict[str, Any] = {"name": name, "datatype": datatype(tensor.dtype), "shape": list(tensor.shape)}
        if name in placed:
            pass
        elif asked.is_binary.get(name, asked.is_binary_by_default):
            parts = _binary(tensor)
            output["parameters"] = {"binary_data_size": sum(map(len, parts))}
            binary += parts
        else:
            output["data"] = _data(name, tensor)
        outputs.append(output)
    document: dict[str, Any] = {"id": response.id} if response.id else {}
    document |= {"model_name": response.model, "model_version": str(response.version), "outputs": outputs}
    header = orjson.dumps(document)
    if not any(map(len, binary)):
        return header, None
    return join_parts([header, *binary]), len(header)


def _binary(tensor: RawTensor) -> list[Any]:
    return string_parts(tensor.data) if tensor.dtype == STRING else [tensor.data]  # type: ignore[arg-type]


def _data(name: str, tensor: RawTensor) -> Any:
    kind = datatype(tensor.dtype)
    if tensor.dtype == STRING:
        try:
            return [value.decode() for value in tensor.data]  # type: ignore[union-attr]
        except UnicodeDecodeError:
            raise invalid(
                "sending BYTES data that is not UTF-8 via JSON is not supported. Please use the binary data format for "
                f"output {quoted(name)}"
            ) from None
    if kind in ("FP16", "BF16"):
        raise invalid(f"sending {kind} data via JSON is not supported. Please use the binary data format for output")
    return orjson.Fragment(array_json(flat_array(tensor)))
