"""What TensorFlow Serving's checks refuse, and in which words."""

from __future__ import annotations

import struct

import pytest
from modelhost_server.compat import serving_inference_pb2 as pb
from modelhost_server.compat import serving_predict_pb2
from modelhost_server.errors import Code, ForeignError, ModelhostError, Reason
from modelhost_server.services.tensorflow_serving.checks import PREDICT
from modelhost_server.services.tensorflow_serving.errors import check_target, invalid, servable_error, translate
from modelhost_server.services.tensorflow_serving.examples import serialized
from modelhost_server.services.tensorflow_serving.metadata import signature_def_map
from modelhost_server.services.tensorflow_serving.names import Target, model_spec, target_of
from modelhost_server.services.tensorflow_serving.results import Class, classifications, regressions
from modelhost_server.services.tensorflow_serving.tensors import UNREADABLE
from modelhost_server.tensors import STRING, RawTensor, SignatureSpec, TensorSpec

X = TensorSpec("x", 1, (-1,), tensor="serving_x:0")
Y = TensorSpec("y", 9, (-1,), optional=True, tensor="serving_y:0")
SPEC = SignatureSpec("s", (X, TensorSpec("z", 3, (), tensor="a:0")), (TensorSpec("out", 1, None),))
DEFAULTED = SignatureSpec("s", (X, Y), ())
ONE = RawTensor(1, (1,), bytes(4))


def refused(spec: SignatureSpec, inputs: dict[str, RawTensor]) -> str:
    with pytest.raises(ForeignError) as caught:
        PREDICT.check_inputs(spec, inputs)
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value.message


def test_inputs_by_position():
    z = RawTensor(3, (), bytes(4))
    assert PREDICT.check_inputs(SPEC, {"z": z, "x": ONE}) == [(0, ONE), (1, z)]
    # Shapes are the model's to judge.
    column = RawTensor(1, (2, 1), bytes(8))
    assert PREDICT.check_inputs(DEFAULTED, {"x": column}) == [(0, column)]


@pytest.mark.parametrize(
    ("spec", "inputs", "message"),
    [
        (
            SPEC,
            {"x": ONE, "b": ONE, "a": ONE},
            "input size does not match signature: 3!=2 len({a,b,x}) != len({x,z}). Sent extra: {a,b}. "
            "Missing but required: {z}.",
        ),
        (
            SPEC,
            {"x": ONE},
            "input size does not match signature: 1!=2 len({x}) != len({x,z}). Sent extra: {}. "
            "Missing but required: {z}.",
        ),
        (
            DEFAULTED,
            {"y": ONE},
            "Signature input alias: x(feed name: serving_x:0) not found in request and no default value provided. "
            "Inputs expected to be in the request {y}, or default input alias set: y",
        ),
        (
            DEFAULTED,
            {"x": ONE, "a": ONE},
            "Inputs contains invalid name. Used request inputs: x, request input: a,x",
        ),
        (SPEC, {"x": UNREADABLE, "z": ONE}, "tensor parsing error: x"),
        (SPEC, {"x": RawTensor(1, (2,), bytes(4)), "z": ONE}, "tensor parsing error: x"),
        # As TensorFlow counts its arguments: by the names of their tensors.
        (SPEC, {"x": ONE, "z": ONE}, "Expects arg[0] to be int32 but float is provided"),
        (
            SPEC,
            {"x": RawTensor(19, (), b"12"), "z": RawTensor(3, (), bytes(4))},
            "Expects arg[1] to be float but half is provided",
        ),
    ],
)
def test_refused_inputs(spec, inputs, message):
    assert refused(spec, inputs) == message


def error(reason: Reason, **details: object) -> ModelhostError:
    return ModelhostError(reason, "ours", resource="scopes/default/models/m/versions/3", **details)


@pytest.mark.parametrize(
    ("target", "ours", "code", "message"),
    [
        (Target("m"), error(Reason.MODEL_NOT_FOUND), 5, "Servable not found for request: Latest(m)"),
        (Target("s/m", 3), error(Reason.SCOPE_NOT_FOUND), 5, "Servable not found for request: Specific(s/m, 3)"),
        (Target("m", 4), error(Reason.VERSION_NOT_FOUND), 5, "Servable not found for request: Specific(m, 4)"),
        (Target("m"), error(Reason.VERSION_LOADING), 5, "Servable not found for request: Latest(m)"),
        (Target("m"), error(Reason.VERSION_LOADING, recovering=True), 14, "ours"),
        (Target("m"), error(Reason.VERSION_FAILED), 5, "Servable not found for request: Latest(m)"),
        (
            Target("m", None, "stable"),
            error(Reason.VERSION_UNLOADING),
            5,
            "Servable not found for request: Specific(m, 3)",
        ),
        (Target("m", None, "l"), error(Reason.LABEL_NOT_FOUND), 3, "Unrecognized servable version label: l"),
        (Target("m", None, "l"), error(Reason.MODEL_NOT_FOUND), 3, "Unrecognized servable version label: l"),
        (Target("m"), error(Reason.QUEUE_FULL), 14, "ours"),
        (Target("m"), error(Reason.SERVER_DRAINING), 14, "ours"),
        (Target("m"), error(Reason.MEMORY_LIMIT), 8, "ours"),
    ],
)
def test_versions_that_do_not_answer(target, ours, code, message):
    found = servable_error(target, ours)
    assert (found.code, found.message) == (code, message)


def test_long_messages_are_cut_as_tensorflow_serving_cuts_them():
    found = translate(ModelhostError(Reason.MODEL_REJECTED_INPUT, "m" * 2000))
    assert (found.code, found.message) == (Code.INVALID_ARGUMENT, "m" * 1024 + "...TRUNCATED")
    # Bytes, as clients count headers, and no half characters.
    assert invalid("ä😀" * 500).message == "ä😀" * 170 + "ä...TRUNCATED"


def test_targets():
    spec = serving_predict_pb2.ModelSpec(name="team/m", version_label="stable", signature_name="s")
    target = target_of(spec)
    assert target == Target("team/m", None, "stable", "s")
    assert target.place == ("team", "m")
    check_target(target)
    assert target_of(model_spec("m", 7)) == Target("m", 7)
    assert Target("m").signature_name == "serving_default"


def test_contexts_are_merged_into_examples():
    message = pb.Input()
    features = message.example_list_with_context
    features.context.features.feature["c"].int64_list.value.append(1)
    for value in (2, 3):
        features.examples.add().features.feature["x"].int64_list.value.append(value)
    merged = [type(features.context).FromString(example) for example in serialized(message)]
    assert [sorted(example.features.feature) for example in merged] == [["c", "x"]] * 2
    assert merged[1].features.feature["x"].int64_list.value == [3]
    assert serialized(pb.Input()) == []


def floats(*values: float, shape: tuple[int, ...]) -> RawTensor:
    return RawTensor(1, shape, struct.pack(f"<{len(values)}f", *values))


SCORES = floats(0.25, 0.75, 1, 0, shape=(2, 2))
CLASSES = RawTensor(STRING, (2, 2), [b"a", b"b", b"\xff", b"d"])


def test_contexts_that_become_too_large_are_refused():
    found = pb.Input()
    with_context = found.example_list_with_context
    with_context.context.features.feature["a"].bytes_list.value.append(bytes(1 << 20))
    for _ in range(1000):
        with_context.examples.add()
    with pytest.raises(ForeignError, match=r"The context, once for each example, is 1048[0-9]{6} bytes") as refused:
        serialized(found)
    assert refused.value.code is Code.INVALID_ARGUMENT


def test_classes_and_scores():
    both = classifications({"classes": CLASSES, "scores": SCORES}, 2)
    assert both == [[Class("a", 0.25), Class("b", 0.75)], [Class("�", 1), Class("d", 0)]]
    assert classifications({"scores": SCORES}, 2)[0] == [Class("", 0.25), Class("", 0.75)]
    assert classifications({"classes": CLASSES}, 2)[0] == [Class("a", 0), Class("b", 0)]
    assert classifications({"scores": floats(shape=(2, 0))}, 2) == [[], []]


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"scores": floats(1, 2, shape=(2,))}, "Expected Tensor shape: [batch_size num_classes] but got [2]"),
        ({"scores": CLASSES}, "Expected scores Tensor of DT_FLOAT. Got: DT_STRING"),
        ({"classes": SCORES}, "Expected classes Tensor of DT_STRING. Got: DT_FLOAT"),
        ({"classes": RawTensor(STRING, (1, 1), [b""])}, "Expected classes output batch size of 2. Got: 1"),
        (
            {"classes": CLASSES, "scores": floats(1, 2, shape=(2, 1))},
            "Tensors class and score should match in dim_size(1). Got 2 vs. 1",
        ),
    ],
)
def test_what_is_no_classification(outputs, message):
    with pytest.raises(ForeignError) as caught:
        classifications(outputs, 2)
    assert caught.value.message == message


def test_regressions():
    assert regressions({"outputs": floats(1.5, 2, shape=(2,))}, 2) == [1.5, 2]
    assert regressions({"outputs": floats(1.5, 2, shape=(2, 1))}, 2) == [1.5, 2]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            floats(1, shape=()),
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got []",
        ),
        (
            SCORES,
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [2,2]",
        ),
        (floats(1, shape=(1,)), "Input batch size did not match output batch size: 2 vs. 1"),
        (RawTensor(2, (2,), bytes(16)), "Expected output Tensor of DT_FLOAT.  Got: DT_DOUBLE"),
    ],
)
def test_what_is_no_regression(output, message):
    with pytest.raises(ForeignError) as caught:
        regressions({"outputs": output}, 2)
    assert caught.value.message == message


def test_signatures_as_a_message():
    found = signature_def_map([SignatureSpec("s", (X,), (TensorSpec("any", 7, None),), "method")]).signature_def["s"]
    assert found.method_name == "method"
    assert (found.inputs["x"].name, found.inputs["x"].dtype) == ("serving_x:0", 1)
    assert [dim.size for dim in found.inputs["x"].tensor_shape.dim] == [-1]
    # A model that has no graph of TensorFlow's has names for its tensors, too.
    assert found.outputs["any"].name == "any"
    assert found.outputs["any"].tensor_shape.unknown_rank
