"""Turns a graph's variables into arguments: what is read from a variable is fed with each run instead.

So one session serves all models whose graphs are equal, however their weights differ, and the weights need no memory
of the session's. A run with 320 arguments takes no longer than one that reads 320 variables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..compat import saved_model_pb2 as pb
from .tensorflow_graph import function_names, node_name, reachable

_INT32, _RESOURCE = 3, 20
_CALLS = ("StatefulPartitionedCall", "PartitionedCall")


class _NotConvertible(Exception):
    """A variable is used in a way that only variables can be, or the graph is at odds with itself."""


def convert(graph: pb.GraphDef, dtypes: Mapping[str, int], initialiser: str | None) -> bool:
    """Turns the variables with these nodes and dtypes into placeholders of the same names.

    Returns:
        Whether it could; if not, the graph is spoilt.
    """
    if initialiser and any(node.name in dtypes for node in reachable(graph, [initialiser])):
        return False
    try:
        _Conversion(graph).run(dtypes)
    except _NotConvertible:
        return False
    return True


class _Conversion:
    def __init__(self, graph: pb.GraphDef) -> None:
        self._graph = graph
        self._functions = {function.signature.name: function for function in graph.library.function}
        # The types of the arguments of each function that is called.
        self._types: dict[str, list[int]] = {}
        self._changed: set[str] = set()

    def run(self, dtypes: Mapping[str, int]) -> None:
        for node in self._graph.node:
            if node.name in dtypes:
                _make_placeholder(node, dtypes[node.name])
        others = [node for node in self._graph.node if node.name not in dtypes]
        self._graph.node.extend(self._convert_nodes(others, dtypes, ""))
        nodes = [*self._graph.node, *(node for f in self._graph.library.function for node in f.node_def)]
        if self._changed & function_names(node for node in nodes if node.op not in _CALLS):
            raise _NotConvertible

    def _convert_nodes(self, nodes: Iterable[pb.NodeDef], dtypes: Mapping[str, int], output: str) -> list[pb.NodeDef]:
        """Converts the nodes of a graph or a function, in which these names are values and no longer resources.

        Returns:
            Nodes to add to it.
        """
        added = []
        for node in nodes:
            data_inputs = [reference for reference in node.input if not reference.startswith("^")]
            values = {i: dtypes[n] for i, r in enumerate(data_inputs) if (n := node_name(r)) in dtypes}
            if node.op in _CALLS:
                self._convert_call(node, values)
            elif not values:
                continue
            elif node.op == "ReadVariableOp":
                _make_identity(node)
            elif node.op == "ResourceGather":
                axis = _make_gather(node)
                node.input.insert(2, axis.name + output)
                added.append(axis)
            else:
                raise _NotConvertible
        return added

    def _convert_call(self, node: pb.NodeDef, values: Mapping[int, int]) -> None:
        types = list(node.attr["Tin"].list.type)
        if any(i >= len(types) for i in values):
            raise _NotConvertible
        for i, dtype in values.items():
            types[i] = dtype
        node.attr["Tin"].list.type[:] = types
        # Positions of resources; they only say what may run side by side.
        node.attr.pop("_read_only_resource_inputs", None)
        self._convert_function(node.attr["f"].func.name, types)

    def _convert_function(self, name: str, types: list[int]) -> None:
        if name not in self._functions:
            raise _NotConvertible
        if name in self._types:
            # Called elsewhere with resources, or from within itself.
            if self._types[name] != types:
                raise _NotConvertible
            return
        self._types[name] = types
        function = self._functions[name]
        arguments = function.signature.input_arg
        if len(arguments) != len(types):
            raise _NotConvertible
        dtypes = {}
        for i, (argument, dtype) in enumerate(zip(arguments, types, strict=True)):
            if argument.type == _RESOURCE != dtype:
                # What else is said of the argument is said of a resource, whose shape is a scalar's.
                argument.CopyFrom(pb.OpDef.ArgDef(name=argument.name, type=dtype))
                function.arg_attr.pop(i, None)
                function.resource_arg_unique_id.pop(i, None)
                dtypes[argument.name] = dtype
        if not dtypes:
            return
        self._changed.add(name)
        function.attr.pop("_input_shapes", None)
        if any(node_name(reference) in dtypes for reference in function.ret.values()):
            raise _NotConvertible
        added = self._convert_nodes(function.node_def, dtypes, ":output:0")
        function.node_def.extend(added)
        reads = {f"{n.name}:value:0": f"{n.name}:output:0" for n in function.node_def if n.op == "Identity"}
        for node in function.node_def:
            node.input[:] = [reads.get(reference, reference) for reference in node.input]
        for key, reference in list(function.ret.items()):
            function.ret[key] = reads.get(reference, reference)


def _make_placeholder(node: pb.NodeDef, dtype: int) -> None:
    shape = pb.AttrValue()
    shape.CopyFrom(node.attr["shape"])
    node.op = "Placeholder"
    node.attr.clear()
    node.attr["dtype"].type = dtype
    node.attr["shape"].CopyFrom(shape)


def _make_identity(node: pb.NodeDef) -> None:
    dtype = node.attr["dtype"].type
    node.op = "Identity"
    node.attr.clear()
    node.attr["T"].type = dtype


def _make_gather(node: pb.NodeDef) -> pb.NodeDef:
    """Turns a ResourceGather into a GatherV2, whose third input is to be the node returned."""
    dtype, indices = node.attr["dtype"].type, node.attr["Tindices"].type
    batch_dims = node.attr["batch_dims"].i
    node.op = "GatherV2"
    node.attr.clear()
    node.attr["Tparams"].type, node.attr["Tindices"].type, node.attr["Taxis"].type = dtype, indices, _INT32
    node.attr["batch_dims"].i = batch_dims
    axis = pb.NodeDef(name=f"{node.name}/axis", op="Const", device=node.device)
    axis.attr["dtype"].type = _INT32
    axis.attr["value"].tensor.dtype = pb.DT_INT32
    axis.attr["value"].tensor.int_val.append(batch_dims)
    return axis
