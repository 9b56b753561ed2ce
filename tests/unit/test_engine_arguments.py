"""Variables that become arguments, and which graphs are the same but for their names."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from modelhost_server.compat import saved_model_pb2 as pb
from modelhost_server.engines.tensorflow_arguments import convert
from modelhost_server.engines.tensorflow_structure import structure

FLOAT, RESOURCE = 1, 20


def node(name: str, op: str, *inputs: str, **attrs: int | str | list[int]) -> pb.NodeDef:
    """A node; an attribute is a dtype number, several of them, or a function's name."""
    definition = pb.NodeDef(name=name, op=op, input=inputs)
    for key, value in attrs.items():
        if isinstance(value, int):
            definition.attr[key].type = value
        elif isinstance(value, str):
            definition.attr[key].func.name = value
        else:
            definition.attr[key].list.type.extend(value)
    return definition


def function(name: str, body: list[pb.NodeDef], result: str, argument: str = "handle") -> pb.FunctionDef:
    """A function of one resource."""
    signature = pb.OpDef(
        name=name,
        input_arg=[pb.OpDef.ArgDef(name=argument, type=RESOURCE)],
        output_arg=[pb.OpDef.ArgDef(name="y", type=FLOAT)],
    )
    definition = pb.FunctionDef(signature=signature, node_def=body, ret={"y": result})
    definition.arg_attr[0].attr["_output_shapes"].list.shape.add()
    definition.attr["_input_shapes"].list.shape.add()
    return definition


def call(name: str, target: str, *inputs: str) -> pb.NodeDef:
    return node(name, "StatefulPartitionedCall", *inputs, f=target, Tin=[RESOURCE], Tout=[FLOAT])


def variable(name: str) -> pb.NodeDef:
    definition = node(name, "VarHandleOp", dtype=FLOAT)
    definition.attr["shape"].shape.dim.add().size = 3
    return definition


def reading() -> pb.GraphDef:
    """A variable that is read two functions below."""
    inner = function("inner", [node("read", "ReadVariableOp", "handle", dtype=FLOAT)], "read:value:0")
    outer = function("outer", [call("again", "inner", "handle")], "again:output:0")
    library = pb.FunctionDefLibrary(function=[inner, outer])
    return pb.GraphDef(node=[variable("v"), call("call", "outer", "v")], library=library)


def test_a_variable_that_is_read_becomes_an_argument_on_all_the_way() -> None:
    graph = reading()
    assert convert(graph, {"v": FLOAT}, None)
    fed, outer_call = graph.node
    assert (fed.op, fed.attr["dtype"].type, fed.attr["shape"].shape.dim[0].size) == ("Placeholder", FLOAT, 3)
    assert list(outer_call.attr["Tin"].list.type) == [FLOAT]
    inner, outer = graph.library.function
    for definition in (inner, outer):
        assert [argument.type for argument in definition.signature.input_arg] == [FLOAT]
        # What is said of a resource's shape is not the value's.
        assert not definition.arg_attr
        assert "_input_shapes" not in definition.attr
    assert list(outer.node_def[0].attr["Tin"].list.type) == [FLOAT]
    (read,) = inner.node_def
    assert (read.op, list(read.input), read.attr["T"].type) == ("Identity", ["handle"], FLOAT)
    assert dict(inner.ret) == {"y": "read:output:0"}


def test_rows_that_are_gathered_are_gathered_from_the_argument() -> None:
    graph = reading()
    inner = graph.library.function[0]
    gather = node("read", "ResourceGather", "handle", "ids", "^first", dtype=FLOAT, Tindices=9)
    gather.attr["batch_dims"].i = 1
    inner.node_def[0].CopyFrom(gather)
    inner.ret["y"] = "read:output:0"
    assert convert(graph, {"v": FLOAT}, None)
    gathered, axis = inner.node_def
    assert (gathered.op, list(gathered.input)) == ("GatherV2", ["handle", "ids", "read/axis:output:0", "^first"])
    assert gathered.attr["batch_dims"].i == 1
    assert (axis.op, list(axis.attr["value"].tensor.int_val)) == ("Const", [1])


def test_other_variables_stay_what_they_are() -> None:
    graph = reading()
    graph.node.extend([variable("kept"), node("assign", "AssignVariableOp", "kept", "x", dtype=FLOAT)])
    kept = [pb.NodeDef.FromString(n.SerializeToString()) for n in graph.node[2:]]
    assert convert(graph, {"v": FLOAT}, None)
    assert list(graph.node[2:]) == kept


def assigned(graph: pb.GraphDef) -> None:
    graph.library.function[0].node_def[0].op = "AssignVariableOp"


def passed_to_a_loop(graph: pb.GraphDef) -> None:
    graph.node.append(node("loop", "While", "v", cond="inner", body="inner", T=[RESOURCE]))


def returned(graph: pb.GraphDef) -> None:
    graph.library.function[0].ret["y"] = "handle"


def called_with_another(graph: pb.GraphDef) -> None:
    graph.node.extend([variable("other"), call("second", "inner", "other")])


def called_by_its_name(graph: pb.GraphDef) -> None:
    graph.node.extend([variable("other"), node("direct", "inner", "other")])


def in_nobodys_library(graph: pb.GraphDef) -> None:
    del graph.library.function[0]


def called_with_too_few_types(graph: pb.GraphDef) -> None:
    del graph.node[1].attr["Tin"].list.type[:]


def of_more_arguments_than_types(graph: pb.GraphDef) -> None:
    graph.library.function[1].signature.input_arg.add(name="more", type=FLOAT)


@pytest.mark.parametrize(
    "spoil",
    [
        assigned, passed_to_a_loop, returned, called_with_another, called_by_its_name, in_nobodys_library,
        called_with_too_few_types, of_more_arguments_than_types,
    ],
)  # fmt: skip
def test_what_only_a_variable_can_do_is_not_converted(spoil: Callable[[pb.GraphDef], None]) -> None:
    graph = reading()
    spoil(graph)
    assert not convert(graph, {"v": FLOAT}, None)


def test_a_variable_that_the_initialiser_needs_is_not_converted() -> None:
    graph = reading()
    graph.node.append(node("init", "NoOp", "^call"))
    assert not convert(graph, {"v": FLOAT}, "init")


# Structure


def renamed() -> pb.GraphDef:
    """As `reading`, with other names throughout, other cosmetics, and the functions in another order."""
    inner = function("z_12", [node("r", "ReadVariableOp", "a", dtype=FLOAT)], "r:value:0", "a")
    outer = function("a_34", [call("c", "z_12", "b")], "c:output:0", "b")
    inner.arg_attr[0].attr["_user_specified_name"].s = b"somebody's"
    graph = pb.GraphDef(node=[variable("w"), call("d", "a_34", "w")])
    graph.library.function.extend([outer, inner])
    graph.node[0].attr["debug_name"].s = b"w/"
    return graph


def test_names_make_no_difference() -> None:
    assert structure(reading()) == structure(renamed())


def other_op(graph: pb.GraphDef) -> None:
    graph.library.function[0].node_def[0].op = "VariableShape"


def other_attr(graph: pb.GraphDef) -> None:
    graph.node[0].attr["shape"].shape.dim[0].size = 4


def other_edge(graph: pb.GraphDef) -> None:
    graph.node[1].input[0] = "call"


def other_output(graph: pb.GraphDef) -> None:
    graph.node[1].input[0] = "v:1"


def control_edge(graph: pb.GraphDef) -> None:
    graph.node[1].input.append("^v")


def other_device(graph: pb.GraphDef) -> None:
    graph.node[1].device = "/device:CPU:0"


def other_function(graph: pb.GraphDef) -> None:
    graph.node[1].attr["f"].func.name = "inner"


def other_result(graph: pb.GraphDef) -> None:
    graph.library.function[0].ret["y"] = "handle"


def more_nodes(graph: pb.GraphDef) -> None:
    graph.library.function[1].node_def.append(node("more", "NoOp"))


def kept_by_control(graph: pb.GraphDef) -> None:
    graph.library.function[0].control_ret["read"] = "read"


def other_version(graph: pb.GraphDef) -> None:
    graph.versions.producer = 5


@pytest.mark.parametrize(
    "change",
    [
        other_op, other_attr, other_edge, other_output, control_edge, other_device, other_function, other_result,
        more_nodes, kept_by_control, other_version,
    ],
)  # fmt: skip
def test_everything_else_makes_a_difference(change: Callable[[pb.GraphDef], None]) -> None:
    graph = reading()
    change(graph)
    assert structure(graph) != structure(reading())
