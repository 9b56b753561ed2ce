"""The graph of a SavedModel: what is reached, what is a signature, what is restored, and what is not certain enough."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from google.protobuf.any_pb2 import Any
from hypothesis import given
from hypothesis import strategies as st
from modelhost_server.compat import saved_model_pb2 as pb
from modelhost_server.engines import tensorflow_build as build
from modelhost_server.engines import tensorflow_graph as graphs
from modelhost_server.engines import tensorflow_signatures as signatures
from modelhost_server.engines.tensorflow_graph import Restore
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.tensors import STRING, TensorSpec

FLOAT, INT64, RESOURCE = 1, 9, 20


@contextmanager
def refused(reason: Reason) -> Iterator[pytest.ExceptionInfo[ModelhostError]]:
    with pytest.raises(ModelhostError) as caught:
        yield caught
    assert caught.value.reason is reason


def node(name: str, *inputs: str, op: str = "Identity", **attrs: typing.Any) -> pb.NodeDef:
    """A node; an attribute is a dtype number, a shape, a string or a function's name, or several of these."""
    definition = pb.NodeDef(name=name, op=op, input=inputs)
    for key, value in attrs.items():
        attr = definition.attr[key]
        if isinstance(value, int):
            attr.type = value
        elif isinstance(value, bytes):
            attr.s = value
        elif isinstance(value, str):
            attr.func.name = value
        elif isinstance(value, pb.TensorShapeProto):
            attr.shape.CopyFrom(value)
        else:
            attr.list.func.extend(pb.NameAttrList(name=name) for name in value)
    return definition


def shaped(*sizes: int) -> pb.TensorShapeProto:
    return pb.TensorShapeProto(dim=[pb.TensorShapeProto.Dim(size=size) for size in sizes])


def variable(name: str, dtype: int = FLOAT, shape: Sequence[int] = (2, 3)) -> pb.NodeDef:
    return node(name, op="VarHandleOp", dtype=dtype, shape=shaped(*shape), shared_name=f"{name}/shared".encode())


def function(name: str, *body: pb.NodeDef) -> pb.FunctionDef:
    return pb.FunctionDef(signature=pb.OpDef(name=name), node_def=body)


def graph(
    *nodes: pb.NodeDef, functions: Iterable[pb.FunctionDef] = (), gradients: Mapping[str, str] = {}
) -> pb.GraphDef:
    library = pb.FunctionDefLibrary(
        function=functions, gradient=[pb.GradientDef(function_name=f, gradient_func=g) for f, g in gradients.items()]
    )
    return pb.GraphDef(node=nodes, library=library)


def names(items: Iterable[pb.NodeDef]) -> list[str]:
    return [item.name for item in items]


# What is reached


@pytest.mark.parametrize(
    ("reference", "name"), [("a", "a"), ("a:1", "a"), ("^a", "a"), ("scope/a:0", "scope/a"), ("f/x:out:0", "f/x")]
)
def test_a_reference_names_a_node(reference: str, name: str) -> None:
    assert graphs.node_name(reference) == name


@pytest.mark.parametrize(
    ("roots", "reached"),
    [
        ([], []),
        (["c"], ["c"]),
        (["c:0"], ["c"]),
        (["b"], ["a", "b"]),
        (["d"], ["a", "b", "c", "d"]),
        (["^e"], ["c", "e"]),
        (["d:1", "e"], ["a", "b", "c", "d", "e"]),
        (["loop"], ["loop", "back"]),
        (["missing"], []),
        (["dangling"], ["dangling"]),
    ],
)
def test_a_node_reaches_its_inputs_by_data_port_and_control(roots: list[str], reached: list[str]) -> None:
    whole = graph(
        node("a"), node("b", "a:1"), node("c"), node("d", "b", "c:2"), node("e", "^c"), node("loop", "back"),
        node("back", "loop:1"), node("dangling", "gone"),
    )  # fmt: skip
    assert names(graphs.reachable(whole, roots)) == reached


def test_a_long_chain_is_followed_to_its_end() -> None:
    whole = graph(node("n0"), *[node(f"n{i}", f"n{i - 1}") for i in range(1, 5000)])
    assert len(graphs.reachable(whole, ["n4999"])) == 5000


edges = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=25)


@given(edges, st.sets(st.integers(0, 9)))
def test_what_is_reached_is_closed_and_nothing_more(edges: list[tuple[int, int]], roots: set[int]) -> None:
    whole = graph(*[node(str(i), *[str(b) for a, b in edges if a == i]) for i in range(10)])
    expected, grown = set(roots), {b for a, b in edges if a in roots}
    while not grown <= expected:
        expected |= grown
        grown = {b for a, b in edges if a in expected}
    assert names(graphs.reachable(whole, map(str, roots))) == [str(i) for i in sorted(expected)]


LIBRARY = [
    function("direct", node("x", op="PartitionedCall", f="inner")),
    function("inner"),
    function("branch_a"),
    function("branch_b", node("y", op="as_op")),
    function("as_op"),
    function("with_gradient"),
    function("gradient", node("z", op="in_gradient")),
    function("in_gradient"),
    function("recursive", node("r", op="PartitionedCall", f="recursive")),
    function("unused", node("u", op="PartitionedCall", f="inner")),
]


@pytest.mark.parametrize(
    ("calls", "reached"),
    [
        (node("n", op="PartitionedCall", f="direct"), ["direct", "inner"]),
        (node("n", op="Case", branches=["branch_a", "branch_b"]), ["as_op", "branch_a", "branch_b"]),
        (node("n", op="If", then_branch="branch_a", else_branch="inner"), ["branch_a", "inner"]),
        (node("n", op="as_op"), ["as_op"]),
        (node("n", op="PartitionedCall", f="with_gradient"), ["gradient", "in_gradient", "with_gradient"]),
        (node("n", op="PartitionedCall", f="recursive"), ["recursive"]),
        (node("n", op="Identity", T=FLOAT), []),
        (node("n", op="PartitionedCall", f="elsewhere"), []),
    ],
    ids=[
        "directly",
        "by a list",
        "by branches",
        "as an op",
        "with its gradient",
        "recursively",
        "not",
        "not in library",
    ],
)
def test_functions_are_reached_however_they_are_called(calls: pb.NodeDef, reached: list[str]) -> None:
    whole = graph(calls, functions=LIBRARY, gradients={"with_gradient": "gradient", "unused": "inner"})
    found = graphs.reachable_functions(whole, whole.node)
    assert [f.signature.name for f in found] == reached


def test_functions_are_reached_through_the_attributes_of_a_call() -> None:
    calls = node("n", op="PartitionedCall", f="inner")
    calls.attr["f"].func.attr["body"].func.name = "branch_a"
    whole = graph(calls, functions=LIBRARY)
    assert [f.signature.name for f in graphs.reachable_functions(whole, whole.node)] == ["branch_a", "inner"]


# Signatures


def tensor(name: str, dtype: int = FLOAT, *sizes: int) -> pb.TensorInfo:
    return pb.TensorInfo(name=name, dtype=dtype, tensor_shape=shaped(*sizes))


def meta(*nodes: pb.NodeDef, tags: Sequence[str] = ("serve",), **signatures: pb.SignatureDef) -> pb.MetaGraphDef:
    definition = pb.MetaGraphDef(
        meta_info_def=pb.MetaGraphDef.MetaInfoDef(tags=tags), graph_def=graph(*nodes), signature_def=signatures
    )
    return definition


def signature(inputs: Mapping[str, pb.TensorInfo] = {}, **outputs: pb.TensorInfo) -> pb.SignatureDef:
    return pb.SignatureDef(inputs=inputs, outputs=outputs, method_name="predict")


def test_signatures_inputs_and_outputs_come_in_alphabetical_order() -> None:
    one = signature({"b": tensor("y:0", INT64), "a": tensor("x:0", FLOAT, -1, 3)}, z=tensor("o:1"), m=tensor("o:0"))
    entries = signatures.read_entries(meta(serve=one, alt=signature(y=tensor("o:0", STRING))))
    assert [entry.spec.name for entry in entries] == ["alt", "serve"]
    assert entries[1].spec.inputs == (TensorSpec("a", FLOAT, (-1, 3)), TensorSpec("b", INT64, ()))
    assert [(e.spec.name, e.tensor) for e in entries[1].outputs] == [("m", "o:0"), ("z", "o:1")]
    assert entries[1].spec.method_name == "predict"


def test_a_shape_of_unknown_rank_is_none() -> None:
    info = pb.TensorInfo(name="x:0", dtype=FLOAT, tensor_shape=pb.TensorShapeProto(unknown_rank=True))
    (entry,) = signatures.read_entries(meta(s=signature({"x": info}, y=info)))
    assert entry.spec.inputs[0].shape is None


def test_signatures_for_loaders_and_those_without_outputs_are_skipped() -> None:
    out = signature(y=tensor("y:0"))
    found = signatures.read_entries(
        meta(mine=out, nothing=signature({"x": tensor("x:0")}), __saved_model_init_op=out, __saved_model_train_op=out)
    )
    assert [entry.spec.name for entry in found] == ["mine"]


def test_a_model_without_signatures_is_refused() -> None:
    with refused(Reason.SOURCE_INVALID) as caught:
        signatures.read_entries(meta(__saved_model_init_op=signature(y=tensor("y:0"))))
    assert "no signatures" in caught.value.message


@pytest.mark.parametrize(
    ("info", "says"),
    [
        (pb.TensorInfo(coo_sparse=pb.TensorInfo.CooSparse(values_tensor_name="v:0"), dtype=FLOAT), "sparse"),
        (pb.TensorInfo(composite_tensor=pb.TensorInfo.CompositeTensor(), dtype=FLOAT), "composite"),
        (tensor("x:0", RESOURCE), "dtype number 20"),
        (tensor("x:0", 0), "dtype number 0"),
    ],
    ids=["sparse", "composite", "resource", "no dtype"],
)
@pytest.mark.parametrize("as_input", [True, False], ids=["input", "output"])
def test_tensors_that_cannot_be_served_are_refused_by_name(info: pb.TensorInfo, says: str, as_input: bool) -> None:
    bad = signature({"weird": info}, y=tensor("y:0")) if as_input else signature(weird=info)
    with refused(Reason.SOURCE_UNSUPPORTED) as caught:
        signatures.read_entries(meta(classify=bad))
    for word in ("'classify'", "'weird'", says):
        assert word in caught.value.message


def test_reference_types_are_served_as_what_they_refer_to() -> None:
    (entry,) = signatures.read_entries(meta(s=signature(y=tensor("y:0", 100 + FLOAT))))
    assert entry.spec.outputs[0].dtype == FLOAT


def test_inputs_with_a_default_are_optional() -> None:
    definition = signature({"a": tensor("a:0"), "b": tensor("b:0"), "c": tensor("c:0")}, y=tensor("y:0"))
    definition.defaults["b"].dtype = FLOAT
    (entry,) = signatures.read_entries(meta(node("c", op="PlaceholderWithDefault"), s=definition))
    assert [(e.spec.name, e.spec.optional, e.default is not None) for e in entry.inputs] == [
        ("a", False, False), ("b", True, True), ("c", True, False)
    ]  # fmt: skip


# The file


def saved(directory: Path, *meta_graphs: pb.MetaGraphDef) -> str:
    (directory / "saved_model.pb").write_bytes(pb.SavedModel(meta_graphs=meta_graphs).SerializeToString())
    return str(directory)


@pytest.mark.parametrize(("asked", "found"), [((), "serve"), (("serve",), "serve"), (("gpu", "serve"), "both")])
def test_the_meta_graph_is_chosen_by_all_its_tags(tmp_path: Path, asked: tuple[str, ...], found: str) -> None:
    both = meta(tags=["serve", "gpu"], both=signature(y=tensor("y:0")))
    path = saved(tmp_path, both, meta(serve=signature(y=tensor("y:0"))))
    assert list(signatures.read_meta_graph(path, asked).signature_def) == [found]


@pytest.mark.parametrize(
    ("there", "says"),
    [([["train"], ["b", "a"]], "['train'], ['a', 'b']"), ([], "none"), ([[]], "[]")],
    ids=["others", "no meta graph", "no tags"],
)
def test_missing_tags_are_told_with_those_there_are(tmp_path: Path, there: list[list[str]], says: str) -> None:
    path = saved(tmp_path, *[meta(tags=tags) for tags in there])
    with refused(Reason.SOURCE_INVALID) as caught:
        signatures.read_meta_graph(path, ["serve", "gpu"])
    assert caught.value.message == f"no MetaGraph with the tags ['gpu', 'serve']; the SavedModel has: {says}"


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    whole = pb.SavedModel(meta_graphs=[meta(node("a"), s=signature(y=tensor("y:0")))]).SerializeToString()
    for end in range(1, len(whole)):
        (tmp_path / "saved_model.pb").write_bytes(whole[:end])
        with refused(Reason.SOURCE_INVALID):
            signatures.read_meta_graph(str(tmp_path), ())


@pytest.mark.parametrize(
    ("file", "reason", "says"),
    [
        ("saved_model.pbtxt", Reason.SOURCE_UNSUPPORTED, "text form"),
        ("saved_model.pb/x", Reason.SOURCE_INVALID, "cannot be read"),
        ("model.onnx", Reason.SOURCE_INVALID, "not a SavedModel"),
    ],
)
def test_what_is_no_saved_model_is_refused(tmp_path: Path, file: str, reason: Reason, says: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    with refused(reason) as caught:
        signatures.read_meta_graph(str(tmp_path), ())
    assert says in caught.value.message
    assert str(tmp_path) not in caught.value.message


# Initialisers and assets


def test_the_initialiser_is_found_where_each_exporter_puts_it() -> None:
    by_signature = meta(__saved_model_init_op=signature(__saved_model_init_op=pb.TensorInfo(name="NoOp:0")))
    assert graphs.init_op(by_signature) == "NoOp"
    for key in ("saved_model_main_op", "legacy_init_op"):
        by_collection = meta()
        by_collection.collection_def[key].node_list.value.append("group_deps")
        assert graphs.init_op(by_collection) == "group_deps"
    assert graphs.init_op(meta()) is None


def test_an_empty_collection_is_no_initialiser_and_none_is_added_by_looking() -> None:
    empty = meta()
    empty.collection_def["legacy_init_op"].SetInParent()
    assert graphs.init_op(empty) is None
    untouched = meta()
    graphs.init_op(untouched)
    assert untouched == meta()


@pytest.mark.parametrize("filename", ["vocab.txt", "../../etc/vocab.txt", "sub/vocab.txt"])
def test_assets_stay_in_their_directory(filename: str) -> None:
    definition = meta()
    definition.asset_file_def.add(tensor_info=pb.TensorInfo(name="asset:0"), filename=filename)
    definition.asset_file_def.add(filename="without a tensor")
    assert graphs.asset_feeds(definition, "/model") == {"asset:0": b"/model/assets/vocab.txt"}


def listed_asset(filename: str) -> bytes:
    asset = pb.AssetFileDef(tensor_info=pb.TensorInfo(name="listed:0"), filename=filename)
    return Any(value=asset.SerializeToString()).SerializeToString()


def test_assets_are_found_in_the_collection_of_tensorflow_1_when_nowhere_else() -> None:
    definition = meta()
    definition.collection_def["saved_model_assets"].any_list.value.append(listed_asset("../a.txt"))
    assert graphs.asset_feeds(definition, "/model") == {"listed:0": b"/model/assets/a.txt"}
    definition.asset_file_def.add(tensor_info=pb.TensorInfo(name="asset:0"), filename="b.txt")
    assert graphs.asset_feeds(definition, "/model") == {"asset:0": b"/model/assets/b.txt"}


def test_a_corrupt_list_of_assets_is_refused() -> None:
    definition = meta()
    definition.collection_def["saved_model_assets"].any_list.value.append(listed_asset("a.txt")[:-1])
    with refused(Reason.SOURCE_INVALID):
        graphs.asset_feeds(definition, "/model")


# Variables


def test_variables_of_both_kinds_are_found() -> None:
    nodes = [variable("a"), node("b", op="VariableV2"), node("c", op="Variable"), node("d", op="ReadVariableOp")]
    assert names(graphs.variable_nodes(nodes)) == ["a", "b", "c"]


def test_a_variable_tells_its_name_type_and_size() -> None:
    spec = graphs.variable_spec(variable("v", INT64, (2, 3)))
    assert (spec.name, spec.dtype, spec.shape, spec.nbytes) == ("v/shared", INT64, (2, 3), 48)


def test_a_variable_of_unknown_shape_has_no_size() -> None:
    unknown = node("v", op="VariableV2", dtype=100 + FLOAT, shape=pb.TensorShapeProto(unknown_rank=True))
    spec = graphs.variable_spec(unknown)
    assert (spec.name, spec.dtype, spec.shape, spec.nbytes) == ("v", FLOAT, (-1,), 0)
    assert "shared_name" not in unknown.attr


class Model:
    """A SavedModel with two variables that one call captures, of which everything is certain."""

    def __init__(self) -> None:
        self.nodes = [
            node("x", op="Placeholder"), variable("v"), variable("w", INT64, (4,)),
            node("call", "x", "v", "w:0", "^v", op="StatefulPartitionedCall", f="f"),
        ]  # fmt: skip
        self.objects = pb.SavedObjectGraph()
        self.objects.nodes.add()
        self.objects.nodes.add().variable.dtype = FLOAT
        self.objects.nodes.add().variable.dtype = INT64
        self.objects.concrete_functions["f"].bound_inputs.extend([1, 2])
        self.signatures: dict[str, pb.SignatureDef] = {}
        self.checkpoint = pb.TrackableObjectGraph()
        for key in ("", "the v", "the w"):
            stored = self.checkpoint.nodes.add()
            if key:
                stored.attributes.add(name="VARIABLE_VALUE", checkpoint_key=key)

    def restores(self) -> list[Restore] | None:
        definition = meta(*self.nodes, **self.signatures)
        definition.object_graph_def.CopyFrom(self.objects)
        return graphs.find_restores(definition, self.nodes, self.checkpoint)


def test_variables_are_restored_from_the_keys_of_their_objects() -> None:
    assert Model().restores() == [Restore("v", FLOAT, "the v", 24), Restore("w", INT64, "the w", 32)]


def test_what_needs_nothing_restored_restores_nothing() -> None:
    model = Model()
    model.nodes = [node("x", op="Placeholder"), node("table", op="HashTableV2")]
    assert model.restores() == []


def test_captures_are_the_last_inputs_whatever_comes_before() -> None:
    model = Model()
    model.nodes[3].input[:] = ["x", "v", "x", "v", "w"]
    assert model.restores() == Model().restores()


def test_one_variable_may_be_captured_by_many_calls() -> None:
    model = Model()
    model.objects.concrete_functions["g"].bound_inputs.append(1)
    model.nodes.append(node("second", "x", "v", op="PartitionedCall", f="g"))
    assert model.restores() == Model().restores()


def assigned(model: Model) -> None:
    """Adds a variable that no call captures, such as holds the path of an asset, and a node that assigns it."""
    model.nodes += [variable("path", STRING, ()), node("assign", "path", "x", op="AssignVariableOp")]


def test_variables_that_the_initialiser_assigns_are_left_to_it() -> None:
    model = Model()
    assigned(model)
    init = pb.TensorInfo(name="assign")
    model.signatures["__saved_model_init_op"] = signature(__saved_model_init_op=init)
    assert model.restores() == Model().restores()


def no_call(model: Model) -> None:
    del model.nodes[3]


def unknown_function(model: Model) -> None:
    model.objects.concrete_functions.clear()


def fewer_captures(model: Model) -> None:
    del model.objects.concrete_functions["f"].bound_inputs[0]


def other_object_graph(model: Model) -> None:
    model.checkpoint.nodes.add()


def object_out_of_range(model: Model) -> None:
    model.objects.concrete_functions["f"].bound_inputs[1] = 3


def negative_object(model: Model) -> None:
    model.objects.concrete_functions["f"].bound_inputs[1] = -1


def object_is_no_variable(model: Model) -> None:
    model.objects.nodes[1].ClearField("variable")


def object_has_a_saver_of_its_own(model: Model) -> None:
    model.objects.nodes[1].registered_saver = "mine"


def object_saves_itself(model: Model) -> None:
    model.objects.nodes[1].saveable_objects["part"].save_function = 3


def objects_swapped(model: Model) -> None:
    model.objects.concrete_functions["f"].bound_inputs[:] = [2, 1]


def nothing_stored(model: Model) -> None:
    del model.checkpoint.nodes[1].attributes[:]


def two_values_stored(model: Model) -> None:
    model.checkpoint.nodes[1].attributes.add(name="VARIABLE_VALUE", checkpoint_key="more")


def another_kind_stored(model: Model) -> None:
    model.checkpoint.nodes[1].attributes[0].name = "part_0"


def a_reference_variable(model: Model) -> None:
    model.nodes.append(node("old", op="VariableV2"))


def an_old_reference_variable(model: Model) -> None:
    model.nodes.append(node("old", op="Variable"))


def a_mutable_table(model: Model) -> None:
    model.nodes.append(node("table", op="MutableHashTableV2"))


def a_mutable_dense_table(model: Model) -> None:
    model.nodes.append(node("table", op="MutableDenseHashTableV2"))


def a_variable_nobody_captures(model: Model) -> None:
    model.nodes.append(variable("lonely"))


def an_anonymous_table(model: Model) -> None:
    model.nodes.append(node("table", op="AnonymousMutableHashTable"))


def more_captures_than_inputs(model: Model) -> None:
    # The first of two objects would be taken for the last input.
    model.objects.nodes[1].variable.dtype = INT64
    model.nodes = [model.nodes[2], node("call", "w", op="StatefulPartitionedCall", f="f")]


def captures_that_disagree(model: Model) -> None:
    model.objects.nodes[0].variable.dtype = FLOAT
    model.checkpoint.nodes[0].attributes.add(name="VARIABLE_VALUE", checkpoint_key="another")
    model.objects.concrete_functions["g"].bound_inputs.append(0)
    model.nodes.append(node("second", "x", "v", op="PartitionedCall", f="g"))


def assigned_by_a_signature(model: Model) -> None:
    assigned(model)
    model.signatures["serve"] = signature(y=tensor("assign:0"))


@pytest.mark.parametrize(
    "spoil",
    [
        no_call, unknown_function, fewer_captures, other_object_graph, object_out_of_range, negative_object,
        object_is_no_variable, object_has_a_saver_of_its_own, object_saves_itself, objects_swapped, nothing_stored,
        two_values_stored, another_kind_stored, a_reference_variable, an_old_reference_variable, a_mutable_table,
        a_mutable_dense_table, a_variable_nobody_captures,
        an_anonymous_table,
        more_captures_than_inputs,
        captures_that_disagree,
        assigned_by_a_signature,
    ],
    ids=lambda spoil: spoil.__name__,
)  # fmt: skip
def test_nothing_is_restored_when_anything_is_uncertain(spoil: typing.Any) -> None:
    model = Model()
    spoil(model)
    assert model.restores() is None


# The graph that serves


def serving() -> pb.GraphDef:
    """What becomes of a model of which a part is used."""
    definition = signature({"x": tensor("x:0"), "unused": tensor("unused:0", INT64)}, y=tensor("call:0"))
    meta_graph = meta(serve=definition)
    meta_graph.graph_def.CopyFrom(
        graph(
            node("x", op="Placeholder"), node("unused", op="Placeholder"), variable("v"), variable("slot"),
            node("call", "x", "v", op="StatefulPartitionedCall", f="direct"), node("train", "slot", "x"),
            node("asset", op="Placeholder"), node("table", "asset", op="InitializeTable"), node("init", "^table"),
            node("other asset", op="Placeholder"),
            functions=LIBRARY, gradients={"inner": "gradient", "unused": "inner"},
        )
    )  # fmt: skip
    entries = signatures.read_entries(meta_graph)
    restores = [Restore("v", FLOAT, "the v", 24), Restore("w", INT64, "the w", 32)]
    before = meta_graph.SerializeToString(deterministic=True)
    result = build.reachable_graph(meta_graph, entries, "init", ["other asset:0"])
    build.add_assignments(result, restores)
    assert meta_graph.SerializeToString(deterministic=True) == before
    return result


def test_the_serving_graph_holds_what_is_reached_and_nothing_else() -> None:
    own = [name for name in names(serving().node) if not name.startswith("modelhost/")]
    assert own == ["x", "unused", "v", "call", "asset", "table", "init", "other asset"]


def test_the_serving_graph_holds_the_functions_that_are_reached() -> None:
    library = serving().library
    assert [f.signature.name for f in library.function] == ["direct", "gradient", "in_gradient", "inner"]
    assert [(g.function_name, g.gradient_func) for g in library.gradient] == [("inner", "gradient")]


def test_every_variable_is_given_a_value_that_is_fed() -> None:
    nodes = {n.name: n for n in serving().node}
    for i, (variable_name, dtype) in enumerate([("v", FLOAT), ("w", INT64)]):
        assign = nodes[build.assign_operation(i)]
        assert list(assign.input) == [variable_name, build.value(i)]
        fed = nodes[build.value(i)]
        assert fed.op == "Placeholder"
        assert fed.attr["shape"].shape.unknown_rank
        assert assign.attr["dtype"].type == fed.attr["dtype"].type == dtype


def test_constants_keep_their_values_and_what_is_unknown_of_them() -> None:
    # Field 5 is TensorProto.float_val, which our copy of the message does not know.
    unknown = pb.TensorProto.FromString(bytes([0x08, FLOAT, 0x2A, 4]) + b"\0\0\x80\x3f")
    values = [pb.TensorProto(dtype=INT64, tensor_content=bytes(8)), unknown]
    nodes = {n.name: n for n in pb.GraphDef.FromString(build.constants_graph(values)).node}
    assert len(nodes) == 2
    for i, value in enumerate(values):
        constant = nodes[graphs.node_name(build.constant(i))]
        assert (constant.op, constant.attr["dtype"].type) == ("Const", value.dtype)
        assert constant.attr["value"].tensor.SerializeToString() == value.SerializeToString()


def test_all_nodes_have_names_of_their_own_that_tensorflow_accepts() -> None:
    nodes = names(serving().node)
    assert len({*nodes}) == len(nodes)
    ours = [name for name in nodes if name.startswith("modelhost/")]
    assert all(part.replace("_", "").isalnum() for name in ours for part in name.split("/"))


def test_all_that_nodes_refer_to_is_in_the_graph() -> None:
    nodes = serving().node
    there = {*names(nodes)} | {"w"}  # Restored for variables that this graph leaves out.
    assert {graphs.node_name(reference) for n in nodes for reference in n.input} <= there


def test_values_are_read_one_at_a_time_by_an_operation_for_each_dtype() -> None:
    nodes = {n.name: n for n in pb.GraphDef.FromString(build.checkpoint_graph()).node}
    for dtype in (FLOAT, INT64, STRING):
        read = nodes[build.read_operation(dtype)]
        assert (read.op, list(read.attr["dtypes"].list.type)) == ("RestoreV2", [dtype])
        assert list(read.input[:2]) == [build.PREFIX, build.KEY]
        assert list(nodes[read.input[2]].attr["value"].tensor.string_val) == [b""]


def test_a_damaged_assignment_assigns_nothing() -> None:
    left = graphs.unassigned(
        [variable("v"), variable("w"), node("a", op="AssignVariableOp"), node("b", "w", op="Assign")]
    )
    assert names(left) == ["v"]
