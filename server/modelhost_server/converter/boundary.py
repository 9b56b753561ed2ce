"""Repairs what ai-edge-quantizer does to inputs and outputs of a flatbuffer where it puts operations beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools.flatbuffer_utils import convert_object_to_bytearray, read_model_from_bytearray


def boundary(content: bytes) -> list[tuple[np.dtype[Any], list[int]]]:
    """Dtype and shape of each input and output of a flatbuffer that LiteRT can run."""
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    details = [*interpreter.get_input_details(), *interpreter.get_output_details()]
    return [(np.dtype(tensor["dtype"]), list(tensor["shape_signature"])) for tensor in details]


def repaired(quantized: bytes, original: bytes) -> bytes:
    """The quantized flatbuffer with inputs and outputs that are what the original's were."""
    model: Any = read_model_from_bytearray(quantized)
    for ours, theirs in zip(_ends(model), _ends(read_model_from_bytearray(original)), strict=True):
        # Of the tensors that it puts in their places, the quantizer does not say which extents are open.
        ours.shapeSignature = theirs.shapeSignature
    _feed_integers(model)
    return bytes(convert_object_to_bytearray(model))


def _ends(model: Any) -> list[Any]:
    main = model.subgraphs[0]
    return [main.tensors[i] for i in [*main.inputs, *main.outputs]]


def _feed_integers(model: Any) -> None:
    """Gives operations on int8 the int8 tensor again where the quantizer gives them the floats that were made of it,
    because it is an output of the model, too.
    """
    main = model.subgraphs[0]
    for dequantize in _operations(model, schema.BuiltinOperator.DEQUANTIZE):
        (small,), (wide,) = dequantize.inputs, dequantize.outputs
        if wide not in main.outputs:
            continue
        for operation in main.operators:
            if all(main.tensors[i].type == schema.TensorType.INT8 for i in operation.outputs) and not _is(
                model, operation, schema.BuiltinOperator.QUANTIZE
            ):
                operation.inputs = [small if i == wide else i for i in operation.inputs]


def _operations(model: Any, code: int) -> list[Any]:
    return [operation for operation in model.subgraphs[0].operators if _is(model, operation, code)]


def _is(model: Any, operation: Any, code: int) -> bool:
    known = model.operatorCodes[operation.opcodeIndex]
    # Codes below 127 are in the old field, for old readers.
    return bool(max(known.builtinCode, known.deprecatedBuiltinCode) == code)
