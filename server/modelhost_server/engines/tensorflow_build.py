"""Builds the graph that serves a SavedModel: the reachable part of its own, and nodes that restore just that."""

from __future__ import annotations

from collections.abc import Sequence

from ..compat import saved_model_pb2 as pb
from ..tensors import STRING
from .tensorflow_graph import Restore, reachable, reachable_functions
from .tensorflow_signatures import Entry

PREFIX = "modelhost/checkpoint_prefix"
RESTORE = "modelhost/restore"
_CONSTANT = "modelhost/constant"


def _const(name: str, value: pb.TensorValue) -> pb.NodeDef:
    node = pb.NodeDef(name=name, op="Const")
    node.attr["dtype"].type = value.dtype
    node.attr["value"].tensor.CopyFrom(value)
    return node


def _string_vector(name: str, values: Sequence[str]) -> pb.NodeDef:
    shape = pb.TensorShape(dim=[pb.TensorShape.Dim(size=len(values))])
    return _const(
        name, pb.TensorValue(dtype=STRING, tensor_shape=shape, string_val=[value.encode() for value in values])
    )


def _checkpoint_prefix() -> pb.NodeDef:
    node = pb.NodeDef(name=PREFIX, op="Placeholder")
    node.attr["dtype"].type = STRING
    node.attr["shape"].shape.SetInParent()
    return node


def read_strings_graph(keys: Sequence[str]) -> bytes:
    """A graph whose `RESTORE` reads string values from the checkpoint fed as `PREFIX`."""
    graph = pb.GraphDef(node=[_checkpoint_prefix()])
    graph.node.extend(_restore_nodes(RESTORE, keys, [STRING] * len(keys)))
    return graph.SerializeToString()


def _restore_nodes(name: str, keys: Sequence[str], dtypes: Sequence[int]) -> list[pb.NodeDef]:
    names = _string_vector(f"{name}/names", keys)
    slices = _string_vector(f"{name}/slices", [""] * len(keys))
    node = pb.NodeDef(name=name, op="RestoreV2", input=[PREFIX, names.name, slices.name])
    node.attr["dtypes"].list.type.extend(dtypes)
    return [names, slices, node]


def restore_operation(group: int) -> str:
    """The operation that restores a group of variables."""
    return f"{RESTORE}/{group}"


def _restore_group(group: int, restores: Sequence[Restore]) -> list[pb.NodeDef]:
    name = restore_operation(group)
    nodes = _restore_nodes(f"{name}/read", [r.key for r in restores], [r.dtype for r in restores])
    done = pb.NodeDef(name=name, op="NoOp")
    for i, restore in enumerate(restores):
        assign = pb.NodeDef(name=f"{name}/assign/{i}", op="AssignVariableOp", input=[restore.node, f"{name}/read:{i}"])
        assign.attr["dtype"].type = restore.dtype
        nodes.append(assign)
        done.input.append(f"^{assign.name}")
    return [*nodes, done]


def constant(index: int) -> str:
    """The output that holds a value of `constants_graph`."""
    return f"{_CONSTANT}/{index}:0"


def constants_graph(values: Sequence[pb.TensorValue]) -> bytes:
    """A graph of constants."""
    nodes = [_const(constant(i).removesuffix(":0"), value) for i, value in enumerate(values)]
    return pb.GraphDef(node=nodes).SerializeToString()


def serving_graph(
    meta_graph: pb.MetaGraphDef,
    entries: Sequence[Entry],
    initialiser: str | None,
    asset_tensors: Sequence[str],
    restore_groups: Sequence[Sequence[Restore]],
) -> bytes:
    """The serialized GraphDef to serve from: run `restore_operation(i)` for each group, then the initialiser."""
    roots = [e.tensor for entry in entries for e in (*entry.inputs, *entry.outputs)]
    roots += [initialiser] if initialiser else []
    nodes = reachable(meta_graph.graph_def, [*roots, *asset_tensors])
    graph = pb.GraphDef()
    # Keeps versions and whatever else the original says about itself.
    graph.CopyFrom(meta_graph.graph_def)
    functions = reachable_functions(meta_graph.graph_def, nodes)
    kept = {function.signature.name for function in functions}
    gradients = [g for g in meta_graph.graph_def.library.gradient if g.function_name in kept]
    del graph.node[:]
    graph.library.Clear()
    graph.node.extend(nodes)
    graph.library.function.extend(functions)
    graph.library.gradient.extend(gradients)
    graph.node.append(_checkpoint_prefix())
    for i, restores in enumerate(restore_groups):
        graph.node.extend(_restore_group(i, restores))
    return graph.SerializeToString()
