"""Quantizes flatbuffers with ai-edge-quantizer."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping
from typing import Any

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools.flatbuffer_utils import convert_object_to_bytearray, read_model_from_bytearray
from ai_edge_quantizer.calibrator import Calibrator
from ai_edge_quantizer.quantizer import Quantizer
from ai_edge_quantizer.utils.qsv_utils import min_max_update
from numpy.typing import NDArray

from ..errors import ModelhostError, Reason
from .boundary import boundary, repaired
from .recipes import FULL_INT8, recipe

_SIGNATURE = "main"
_SMALL = frozenset({schema.TensorType.INT8, schema.TensorType.FLOAT16, schema.TensorType.INT4, schema.TensorType.UINT8})


def calibrate(content: bytes, feeds: Iterable[Mapping[int, NDArray[Any]]], threads: int) -> Any:
    """The ranges of a model's tensors, seen while running it on inputs, which are given by their positions.

    They are the extremes that occurred: the quantizer's usual running average forgets the early ones, and was four
    times further off on a classifier of digits.
    """
    calibrator = Calibrator(_with_signature(content), threads, qsv_update_func=min_max_update)
    data = [{_name("in", place): array for place, array in feed.items()} for feed in feeds]
    calibrator.calibrate({_SIGNATURE: data}, recipe(FULL_INT8))
    return calibrator.get_model_qsvs()


def quantized(content: bytes, method: str, ranges: Any) -> bytes:
    """The flatbuffer with smaller weights, and the same inputs and outputs.

    Raises:
        ModelhostError: UNSUPPORTED.
    """
    quantizer = Quantizer(_with_signature(content), recipe(method).get_quantization_recipe())
    try:
        result = quantizer.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
        small = repaired(bytes(result.quantized_model), content)
        kept = boundary(small) == boundary(content)
    except MemoryError:
        raise
    except Exception as error:
        # A young tool, and any model: whatever it stumbles over is the model's not fitting the method.
        traceback.print_exc()
        raise ModelhostError(Reason.UNSUPPORTED, f"{method} cannot be applied to the model: {error}") from error
    if not kept:
        raise ModelhostError(Reason.UNSUPPORTED, f"{method} would change the model's inputs or outputs")
    return small


def has_small_weights(content: bytes) -> bool:
    """Whether any constant has fewer bits than float32 has and stands for real numbers."""
    model = read_model_from_bytearray(content)
    return any(
        tensor.type in _SMALL
        and model.buffers[tensor.buffer].data is not None
        and (tensor.type == schema.TensorType.FLOAT16 or _is_scaled(tensor))
        for subgraph in model.subgraphs
        for tensor in subgraph.tensors
    )


def _is_scaled(tensor: Any) -> bool:
    return tensor.quantization is not None and tensor.quantization.scale is not None


def _with_signature(content: bytes) -> bytes:
    """The flatbuffer with a signature for what it runs, by which the calibrator addresses it."""
    model = read_model_from_bytearray(content)
    main = model.subgraphs[0]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = _SIGNATURE, 0
    signature.inputs = [_mapping("in", i, tensor) for i, tensor in enumerate(main.inputs)]
    signature.outputs = [_mapping("out", i, tensor) for i, tensor in enumerate(main.outputs)]
    model.signatureDefs = [signature]
    return bytes(convert_object_to_bytearray(model))


def _mapping(side: str, place: int, tensor: int) -> Any:
    mapping = schema.TensorMapT()
    mapping.name, mapping.tensorIndex = _name(side, place), tensor
    return mapping


def _name(side: str, place: int) -> str:
    return f"{side}_{place}"
