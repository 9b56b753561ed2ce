"""Loads SavedModels with Python TensorFlow, in the two ways there are, and freezes their signatures.

Each way refuses models that the other takes: `tf.saved_model.load` those that carry slots of old optimizers, the
Session loader what `tf.saved_model.save` makes of Keras 3 models.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import op_def_registry
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from ..engines.tensorflow_signatures import DEFAULT_TAGS, Entry
from .frozen import IN, OUT
from .refusals import CannotConvert, Op

v1 = tf.compat.v1

_VARIABLES = frozenset({"VarHandleOp", "ReadVariableOp", "VariableV2", "Variable"})

# Builds the outputs of a signature from its inputs, in the graph that is current.
_Call = Callable[[Sequence[tf.Tensor]], Sequence[tf.Tensor]]


def find_op(name: str) -> Op | None:
    """What TensorFlow's registry says of an op; None when it does not have it."""
    definition = op_def_registry.get(name)
    if definition is None:
        return None
    arguments = [*definition.input_arg, *definition.output_arg]
    return Op(bool(definition.is_stateful), any(argument.type == tf.string.as_datatype_enum for argument in arguments))


def freeze(path: str, tags: Sequence[str], entries: Sequence[Entry], take: Callable[[Entry, Any], None]) -> None:
    """Gives `take` each signature with its GraphDef of constants, one at a time, for they are large.

    What comes after an error in the first way to load begins with the first signature again.
    """
    tags = list(tags or DEFAULT_TAGS)
    try:
        _freeze(_load_objects(path, tags), entries, take)
    except MemoryError:
        raise
    except Exception:
        traceback.print_exc()
        _freeze(_load_session(path, tags, entries), entries, take)


def _freeze(call_of: Callable[[Entry], _Call], entries: Sequence[Entry], take: Callable[[Entry, Any], None]) -> None:
    for entry in entries:
        take(entry, _frozen(entry, call_of(entry)))


def _load_objects(path: str, tags: list[str]) -> Callable[[Entry], _Call]:
    model = tf.saved_model.load(path, tags)
    return lambda entry: _object_call(model, entry)


def _object_call(model: Any, entry: Entry) -> _Call:
    signature = model.signatures[entry.spec.name]

    def call(inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        names = [endpoint.spec.name for endpoint in entry.inputs]
        results = signature(**dict(zip(names, inputs, strict=True)))
        return [results[endpoint.spec.name] for endpoint in entry.outputs]

    return call


def _load_session(path: str, tags: list[str], entries: Sequence[Entry]) -> Callable[[Entry], _Call]:
    graph = tf.Graph()
    with graph.as_default(), v1.Session(graph=graph) as session:
        v1.saved_model.load(session, tags, path)
        nodes = sorted({endpoint.tensor.partition(":")[0] for entry in entries for endpoint in entry.outputs})
        constants = v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), nodes)
    return lambda entry: _graph_call(constants, entry)


def _graph_call(graph: Any, entry: Entry) -> _Call:
    there = {node.name for node in graph.node}

    def call(inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        fed = {endpoint.tensor: value for endpoint, value in zip(entry.inputs, inputs, strict=True)}
        outputs = [endpoint.tensor for endpoint in entry.outputs]
        computed = [tensor for tensor in outputs if tensor not in fed]
        # An input that nothing depends on has gone with the freezing.
        input_map = {tensor: value for tensor, value in fed.items() if tensor.partition(":")[0] in there}
        results = tf.import_graph_def(graph, input_map, computed, name="")
        found = {**fed, **dict(zip(computed, results, strict=True))}
        return [found[tensor] for tensor in outputs]

    return call


def _frozen(entry: Entry, call: _Call) -> Any:
    """The GraphDef of a signature: variables are constants, calls are inlined, inputs and outputs have our names."""
    specs = [
        tf.TensorSpec([None if d < 0 else d for d in endpoint.spec.shape or ()], endpoint.spec.dtype, f"{IN}{i}")
        for i, endpoint in enumerate(entry.inputs)
    ]

    # A list, for TensorFlow would sort the keys of a dictionary: out_10 before out_2.
    function = tf.function(lambda *inputs: list(call(inputs)), input_signature=specs, autograph=False)
    # Loops stay functions: that is how the converters like them best.
    frozen = convert_variables_to_constants_v2(
        function.get_concrete_function(), lower_control_flow=False, aggressive_inlining=True
    )
    graph = frozen.graph.as_graph_def()
    _check_frozen(graph)
    _drop_order(graph)
    for i, output in enumerate(frozen.outputs):
        node = graph.node.add(name=f"{OUT}{i}", op="Identity", input=[output.name])
        node.attr["T"].type = output.dtype.as_datatype_enum
    return v1.graph_util.extract_sub_graph(graph, [f"{OUT}{i}" for i in range(len(frozen.outputs))])


def _drop_order(graph: Any) -> None:
    """Drops the edges that only order effects, and with them the messages and assertions that hang on them.

    In loops of TensorFlow 1 they also say to which loop a constant belongs.
    """
    if any(node.op == "Enter" for node in graph.node):
        return
    for node in graph.node:
        data = [reference for reference in node.input if not reference.startswith("^")]
        del node.input[:]
        node.input.extend(data)


def _check_frozen(graph: Any) -> None:
    """TensorFlow passes over what it cannot freeze."""
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        for node in nodes:
            is_resource = node.op == "Placeholder" and node.attr["dtype"].type == tf.resource.as_datatype_enum
            if node.op in _VARIABLES or is_resource:
                raise CannotConvert(f"TensorFlow cannot freeze the variable {node.name!r}")
