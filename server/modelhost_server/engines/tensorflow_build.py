"""Builds the graph that serves a SavedModel: the reachable part of its own, and nodes that restore just that."""

from __future__ import annotations

from collections.abc import Sequence

from ..compat import saved_model_pb2 as pb
from ..tensors import ITEMSIZE, STRING
from .tensorflow_graph import Restore, reachable, reachable_functions
from .tensorflow_signatures import Entry

PREFIX = "modelhost/checkpoint_prefix"
KEY = "modelhost/checkpoint_key"
_CONSTANT = "modelhost/constant"


def _const(name: str, value: pb.TensorProto) -> pb.NodeDef:
    node = pb.NodeDef(name=name, op="Const")
    node.attr["dtype"].type = value.dtype
    node.attr["value"].tensor.CopyFrom(value)
    return node


def _placeholder(name: str, dtype: int) -> pb.NodeDef:
    node = pb.NodeDef(name=name, op="Placeholder")
    node.attr["dtype"].type = dtype
    node.attr["shape"].shape.unknown_rank = True
    return node


def read_operation(dtype: int) -> str:
    """The operation of `checkpoint_graph` that reads values of a dtype."""
    return f"modelhost/read/{dtype}"


def checkpoint_graph() -> bytes:
    """A graph that reads the value fed as `KEY` (one, as a vector) from the checkpoint fed as `PREFIX`."""
    graph = pb.GraphDef(node=[_placeholder(PREFIX, STRING), _placeholder(KEY, STRING)])
    # A value is read whole, not in slices.
    one = pb.TensorShapeProto(dim=[pb.TensorShapeProto.Dim(size=1)])
    slices = _const("modelhost/slices", pb.TensorProto(dtype=pb.DT_STRING, tensor_shape=one, string_val=[b""]))
    graph.node.append(slices)
    for dtype in ITEMSIZE:
        read = pb.NodeDef(name=read_operation(dtype), op="RestoreV2", input=[PREFIX, KEY, slices.name])
        read.attr["dtypes"].list.type.append(dtype)
        graph.node.append(read)
    return graph.SerializeToString()


def value(index: int) -> str:
    """The placeholder of a graph with assignments for a variable's value."""
    return f"modelhost/value/{index}"


def assign_operation(index: int) -> str:
    """The operation of a graph with assignments that gives a variable its value."""
    return f"modelhost/assign/{index}"


def constant(index: int) -> str:
    """The output that holds a value of `constants_graph`."""
    return f"{_CONSTANT}/{index}:0"


def constants_graph(values: Sequence[pb.TensorProto]) -> bytes:
    """A graph of constants."""
    nodes = [_const(constant(i).removesuffix(":0"), value) for i, value in enumerate(values)]
    return pb.GraphDef(node=nodes).SerializeToString()


def reachable_graph(
    meta_graph: pb.MetaGraphDef, entries: Sequence[Entry], initialiser: str | None, asset_tensors: Sequence[str]
) -> pb.GraphDef:
    """What signatures, initialiser and assets reach of a SavedModel's graph."""
    roots = [tensor for entry in entries for tensor in entry.tensors]
    roots += [initialiser] if initialiser else []
    whole = meta_graph.graph_def
    nodes = reachable(whole, [*roots, *asset_tensors])
    functions = reachable_functions(whole, nodes)
    kept = {function.signature.name for function in functions}
    gradients = [gradient for gradient in whole.library.gradient if gradient.function_name in kept]
    return pb.GraphDef(
        node=nodes,
        library=pb.FunctionDefLibrary(function=functions, gradient=gradients),
        versions=whole.versions if whole.HasField("versions") else None,
    )


def add_assignments(graph: pb.GraphDef, restores: Sequence[Restore]) -> None:
    """Adds what gives variables their values: run every `assign_operation` with every `value` fed."""
    for i, restore in enumerate(restores):
        assign = pb.NodeDef(name=assign_operation(i), op="AssignVariableOp", input=[restore.node, value(i)])
        assign.attr["dtype"].type = restore.dtype
        graph.node.extend([_placeholder(value(i), restore.dtype), assign])
