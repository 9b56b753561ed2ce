"""The part of a SavedModel's graph that its signatures reach, and how its variables are restored.

Pure functions over messages; no TensorFlow. The pruned graph is why a Keras 3 export, which stores every weight
twice, costs the memory of one copy, and why a SavedModel whose variables TensorFlow's own Session loader leaves
uninitialised (`tf.saved_model.save` of a Keras 3 model) loads at all: variables are found through the object graph,
as `tf.saved_model.load` finds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError

from ..compat import saved_model_pb2 as pb
from ..errors import ModelhostError, Reason, brief
from ..tensors import VariableSpec
from .tensorflow_signatures import REF_DTYPE, shape_of

# Where TensorFlow 1 lists the assets.
_ASSETS_COLLECTION = "saved_model_assets"


@dataclass(frozen=True, slots=True)
class Restore:
    """A variable's node, and the key of its value in the checkpoint."""

    node: str
    dtype: int
    key: str
    nbytes: int


def node_name(reference: str) -> str:
    """The node that an input reference (`^node`, `node`, `node:1`) names."""
    return reference.removeprefix("^").partition(":")[0]


def reachable(graph: pb.GraphDef, roots: Iterable[str]) -> list[pb.NodeDef]:
    """The nodes that the named ones depend on, and these, in the graph's order."""
    by_name = {node.name: node for node in graph.node}
    seen: set[str] = set()
    pending = [node_name(root) for root in roots]
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in by_name:
            pending.extend(node_name(reference) for reference in by_name[name].input)
    return [node for node in graph.node if node.name in seen]


def function_names(nodes: Iterable[pb.NodeDef]) -> set[str]:
    """The functions that these nodes may call, and some names that are no function's."""
    names = set()
    for node in nodes:
        names.add(node.op)  # A node may call a function by using its name as the op.
        for attr in node.attr.values():
            kind = attr.WhichOneof("value")
            if kind == "func":
                names.update(_named_functions(attr.func))
            elif kind == "list":
                for function in attr.list.func:
                    names.update(_named_functions(function))
    return names


def _named_functions(function: pb.NameAttrList) -> set[str]:
    # A function given to an op may itself be given functions.
    names = {function.name}
    for attr in function.attr.values():
        for inner in [attr.func] if attr.HasField("func") else attr.list.func:
            names.update(_named_functions(inner))
    return names


def reachable_functions(graph: pb.GraphDef, nodes: Iterable[pb.NodeDef]) -> list[pb.FunctionDef]:
    """The library functions that these nodes call, directly or through others."""
    by_name = {function.signature.name: function for function in graph.library.function}
    gradients = {gradient.function_name: gradient.gradient_func for gradient in graph.library.gradient}
    seen: set[str] = set()
    pending = list(function_names(nodes))
    while pending:
        name = pending.pop()
        if name in seen or name not in by_name:
            continue
        seen.add(name)
        pending.extend(function_names(by_name[name].node_def))
        if name in gradients:
            pending.append(gradients[name])
    return [by_name[name] for name in sorted(seen)]


def init_op(meta_graph: pb.MetaGraphDef) -> str | None:
    """The operation that initialises tables and the like, when there is one."""
    signature = meta_graph.signature_def.get("__saved_model_init_op")
    if signature is not None and "__saved_model_init_op" in signature.outputs:
        return node_name(signature.outputs["__saved_model_init_op"].name)
    for key in ("saved_model_main_op", "legacy_init_op"):
        if key in meta_graph.collection_def and meta_graph.collection_def[key].node_list.value:
            return node_name(meta_graph.collection_def[key].node_list.value[0])
    return None


def asset_feeds(meta_graph: pb.MetaGraphDef, path: str) -> dict[str, bytes]:
    """The tensors that initialisers expect paths of asset files in."""
    folder = Path(path) / "assets"
    return {
        asset.tensor_info.name: str(folder / Path(asset.filename).name).encode()
        for asset in _assets(meta_graph)
        if asset.tensor_info.name
    }


def _assets(meta_graph: pb.MetaGraphDef) -> Iterable[pb.AssetFileDef]:
    if meta_graph.asset_file_def or _ASSETS_COLLECTION not in meta_graph.collection_def:
        return meta_graph.asset_file_def
    items = meta_graph.collection_def[_ASSETS_COLLECTION].any_list.value
    try:
        return [pb.AssetFileDef.FromString(Any.FromString(item).value) for item in items]
    except DecodeError:
        raise ModelhostError(Reason.SOURCE_INVALID, "the SavedModel's list of assets is corrupt") from None


def check_tables(nodes: Iterable[pb.NodeDef]) -> None:
    """Refuses what every session would serve wrongly without an error.

    Raises:
        ModelhostError: SOURCE_UNSUPPORTED for anonymous tables: each run makes new, empty ones.
    """
    for node in nodes:
        if node.op.startswith(("AnonymousMutable", "AnonymousHashTable")):
            raise ModelhostError(
                Reason.SOURCE_UNSUPPORTED,
                f"the model uses an anonymous lookup table ({brief(node.name)}), which is empty in every session; make "
                "the table without experimental_is_anonymous and save the model again",
            )


def variable_nodes(nodes: Iterable[pb.NodeDef]) -> list[pb.NodeDef]:
    """The nodes that hold variables, of TensorFlow 2's kind and of 1's."""
    return [node for node in nodes if node.op in ("VarHandleOp", "VariableV2", "Variable")]


def variable_spec(node: pb.NodeDef) -> VariableSpec:
    """What a variable's node says of it."""
    shape = shape_of(node.attr["shape"].shape)
    # Looking up a missing key of a protobuf map would add it.
    shared_name = node.attr["shared_name"].s.decode("utf-8", "replace") if "shared_name" in node.attr else ""
    name = shared_name or node.name
    return VariableSpec(name, node.attr["dtype"].type % REF_DTYPE, (-1,) if shape is None else shape)


def _assigned(nodes: Iterable[pb.NodeDef]) -> set[str]:
    """The names of the variables that nodes assign. A damaged node need not say which."""
    assigning = (node for node in nodes if node.op in ("Assign", "AssignVariableOp"))
    return {node_name(reference) for node in assigning for reference in node.input[:1]}


def unassigned(nodes: Sequence[pb.NodeDef]) -> list[pb.NodeDef]:
    """The variables among `nodes` that none of these assigns: their values must come from a checkpoint."""
    assigned = _assigned(nodes)
    return [node for node in variable_nodes(nodes) if node.name not in assigned]


def find_restores(
    meta_graph: pb.MetaGraphDef, nodes: Sequence[pb.NodeDef], checkpoint: pb.TrackableObjectGraph
) -> list[Restore] | None:
    """How to restore each variable among `nodes` that the initialiser does not assign (those that hold the paths of
    assets are); None when that is not certain for every one of them.

    A function's captures are, in order, the last inputs of the node that calls it; the object graph tells which
    object each is, and the checkpoint's own object graph under which key that object's value is stored.
    """
    objects = meta_graph.object_graph_def
    if len(checkpoint.nodes) != len(objects.nodes):
        return None
    object_of: dict[str, int] = {}
    for node in nodes:
        if "f" not in node.attr:
            continue
        function = objects.concrete_functions.get(node.attr["f"].func.name)
        if function is None or not function.bound_inputs:
            continue
        data_inputs = [reference for reference in node.input if not reference.startswith("^")]
        if len(function.bound_inputs) > len(data_inputs):
            return None
        captures = data_inputs[len(data_inputs) - len(function.bound_inputs) :]
        for reference, object_id in zip(captures, function.bound_inputs, strict=True):
            if object_of.setdefault(node_name(reference), object_id) != object_id:
                return None
    initialiser = init_op(meta_graph)
    initialising = reachable(meta_graph.graph_def, [initialiser]) if initialiser else []
    assigned = _assigned(initialising)
    restores = []
    for node in nodes:
        if node.op in ("VariableV2", "Variable"):
            return None
        if node.op != "VarHandleOp":
            # Tables that training may fill are restored by their saver, which only the full loader runs.
            if node.op.startswith(("Mutable", "Anonymous")):
                return None
            continue
        if node.name in assigned and node.name not in object_of:
            continue
        restore = _restore(node, object_of.get(node.name), objects, checkpoint)
        if restore is None:
            return None
        restores.append(restore)
    return restores


def _restore(
    node: pb.NodeDef, object_id: int | None, objects: pb.SavedObjectGraph, checkpoint: pb.TrackableObjectGraph
) -> Restore | None:
    if object_id is None or not 0 <= object_id < len(objects.nodes):
        return None
    saved, stored = objects.nodes[object_id], checkpoint.nodes[object_id]
    dtype = node.attr["dtype"].type
    # The kinds of object that are stored as exactly one value; anything else has a saver of its own.
    if not saved.HasField("variable") or saved.registered_saver or saved.saveable_objects:
        return None
    if saved.variable.dtype != dtype or len(stored.attributes) != 1 or stored.attributes[0].name != "VARIABLE_VALUE":
        return None
    return Restore(node.name, dtype, stored.attributes[0].checkpoint_key, variable_spec(node).nbytes)
