"""Stage `litert`: frozen graphs become `.tflite` files of built-in ops, in float32."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from ..engines.base import LITERT
from .frozen import IN, OUT, FrozenSignature, read_frozen
from .placing import Port, convert_all
from .refusals import CannotConvert

v1 = tf.compat.v1


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Converts the graphs in the directory `frozen` into an artifact in the directory `target`."""
    source, target = Path(job["frozen"]), Path(job["target"])

    def convert(signature: FrozenSignature) -> tuple[str, list[Port], list[Port]]:
        content = convert_graph(source / signature.graph, signature)
        file = Path(signature.graph).with_suffix(".tflite").name
        (target / file).write_bytes(content)
        return file, *ports(target / file)

    convert_all(read_frozen(source), LITERT, target, convert)
    return {}


def graph_function(graph: Path, signature: FrozenSignature) -> Any:
    """A frozen graph as the ConcreteFunction that TensorFlow's converter takes."""
    definition = v1.GraphDef.FromString(graph.read_bytes())
    wrapped = v1.wrap_function(lambda: tf.import_graph_def(definition, name=""), [])
    names = [f"{IN}{position}" for position in signature.inputs if position is not None]
    names_out = [f"{OUT}{position}" for position in range(len(signature.spec.outputs))]
    tensors = [wrapped.graph.get_tensor_by_name(f"{name}:0") for name in [*names, *names_out]]
    return wrapped.prune(tensors[: len(names)], tensors[len(names) :])


def convert_graph(graph: Path, signature: FrozenSignature) -> bytes:
    """The flatbuffer of a frozen graph."""
    # From a ConcreteFunction only: from a SavedModel of Keras 3 the converter makes a model without weights.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph_function(graph, signature)])
    # The engine has no others.
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        return bytes(converter.convert())
    except MemoryError:
        raise
    except Exception as error:
        raise CannotConvert(f"LiteRT's converter refuses the model: {_reason(str(error))}") from error


def _reason(message: str) -> str:
    unsupported = re.findall(r"(?:TF Select|Custom) ops: (.+)", message)
    if unsupported:
        return f"unsupported ops: {', '.join(unsupported)}"
    errors = re.findall(r"error: (?:loc\(.*?\): )?(.+)", message)
    return errors[0] if errors else message.strip().partition("\n")[0]


def ports(file: Path) -> tuple[list[Port], list[Port]]:
    """A flatbuffer's inputs and outputs."""
    interpreter = Interpreter(model_path=str(file))
    return (
        [_port(details) for details in interpreter.get_input_details()],
        [_port(details) for details in interpreter.get_output_details()],
    )


def _port(details: dict[str, Any]) -> Port:
    shape = tuple(int(extent) for extent in details["shape_signature"])
    # A tensor whose rank is only known when it runs looks like a scalar.
    return Port(frozenset({details["name"]}), np.dtype(details["dtype"]).name, shape or None)
