"""Stage `openvino`: frozen graphs become OpenVINO models, in float32; without TensorFlow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import openvino as ov

from ..engines.base import OPENVINO
from .frozen import FrozenSignature, read_frozen
from .placing import Port, convert_all
from .refusals import CannotConvert

# OpenVINO's names of dtypes, and everybody else's.
_DTYPE_NAMES = {
    "boolean": "bool", "f16": "float16", "f32": "float32", "f64": "float64", "bf16": "bfloat16",
    "i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64",
    "u8": "uint8", "u16": "uint16", "u32": "uint32", "u64": "uint64",
}  # fmt: skip


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Converts the graphs in the directory `frozen` into an artifact in the directory `target`."""
    source, target = Path(job["frozen"]), Path(job["target"])
    core = ov.Core()

    def convert(signature: FrozenSignature) -> tuple[str, list[Port], list[Port]]:
        file = Path(signature.graph).with_suffix(".xml").name
        try:
            # Not by openvino.convert_model, which forks a process that reports to its makers.
            model = core.read_model(str(source / signature.graph))
        except MemoryError:
            raise
        except Exception as error:
            raise CannotConvert(f"OpenVINO refuses the model: {_reason(str(error))}") from error
        ov.save_model(model, str(target / file), compress_to_fp16=False)
        # Read again, for what counts is what the engine will read.
        saved = core.read_model(str(target / file))
        return file, [_port(port) for port in saved.inputs], [_port(port) for port in saved.outputs]

    convert_all(read_frozen(source), OPENVINO, target, convert)
    return {}


def _reason(message: str) -> str:
    unsupported = re.search(r"No conversion rule found for operations: (.+)", message)
    if unsupported:
        return f"unsupported ops: {unsupported[1]}"
    lines = [line.strip() for line in message.splitlines()]
    # The first lines say where in OpenVINO's sources the error was raised.
    telling = [line for line in lines if line and not line.startswith(("Check '", "Exception from", "While"))]
    return (telling or lines or ["no message"])[0]


def _port(port: Any) -> Port:
    names = frozenset(name.removesuffix(":0") for name in port.get_names())
    dtype = port.get_element_type().get_type_name()
    shape = port.get_partial_shape()
    extents = None if shape.rank.is_dynamic else tuple(-1 if d.is_dynamic else d.get_length() for d in shape)
    return Port(names, _DTYPE_NAMES.get(dtype, dtype), extents)
