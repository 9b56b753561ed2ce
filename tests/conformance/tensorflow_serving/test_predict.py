"""PredictionService.Predict, by tensorflow-serving-api's stubs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.wrappers_pb2 import Int64Value
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis.model_pb2 import ModelSpec

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
HALF = {"x": tf.make_tensor_proto([1.0, 2.0])}
DTYPES = [
    tf.bool, tf.uint8, tf.uint16, tf.uint32, tf.uint64, tf.int8, tf.int16, tf.int32, tf.int64, tf.float16, tf.float32,
    tf.float64, tf.bfloat16, tf.string,
]  # fmt: skip


def request(inputs: Any, name: str = "half_plus", filter_: Any = (), **spec: Any) -> predict_pb2.PredictRequest:
    if "version" in spec:
        spec["version"] = Int64Value(value=spec["version"])
    return predict_pb2.PredictRequest(
        model_spec=ModelSpec(name=name, **spec), inputs=inputs, output_filter=filter_
    )  # fmt: skip


def refused(call: Callable[[Any], Any], message: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(message)
    return caught.value.code(), caught.value.details()


def values_of(dtype: tf.DType) -> np.ndarray:
    if dtype == tf.string:
        return np.array([[b"", b"one"], [b"\xff\0", b"four" * 100]], object)
    if dtype == tf.bool:
        return np.array([[True, False], [False, True]])
    limits = [dtype.min, dtype.max] if dtype.is_integer else [-1.5, 3.25]
    return np.array([[0, 1], limits], dtype.as_numpy_dtype)


def tensor(**changes: Any) -> Any:
    changed = tf.make_tensor_proto([1.0, 2.0])
    for field, value in changes.items():
        changed.ClearField(field)
        changed.MergeFrom(type(changed)(**{field: value}))
    return changed


def test_answers_tell_version_and_signature(stub: Any) -> None:
    answer = stub.Predict(request(HALF))
    assert answer.model_spec == ModelSpec(
        name="half_plus", version=Int64Value(value=3), signature_name="serving_default"
    )  # fmt: skip
    assert list(answer.outputs["y"].float_val) == [3.5, 4.0]
    assert not answer.outputs["y"].tensor_content


@pytest.mark.parametrize(
    ("spec", "plus"),
    [({"version": 1}, 2), ({"version": 3}, 3), ({"version_label": "stable"}, 2), ({"version_label": "canary"}, 3)],
)
def test_versions_by_number_and_label(stub: Any, spec: dict[str, Any], plus: int) -> None:
    answer = stub.Predict(request(HALF, signature_name="serving_default", **spec))
    assert tf.make_ndarray(answer.outputs["y"]).tolist() == [0.5 + plus, 1.0 + plus]
    assert answer.model_spec.version.value == {2: 1, 3: 3}[plus]
    assert answer.model_spec.WhichOneof("version_choice") == "version"


def test_models_of_other_scopes(stub: Any) -> None:
    answer = stub.Predict(request(HALF, "team/half_plus"))
    assert answer.model_spec.name == "team/half_plus"
    assert tf.make_ndarray(answer.outputs["y"]).tolist() == [2.5, 3.0]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
def test_every_dtype_there_and_back(stub: Any, dtype: tf.DType) -> None:
    values = values_of(dtype)
    name = f"identity_{dtype.name}"
    sent = tf.make_tensor_proto(values, dtype)
    answer = stub.Predict(request({"INPUT0": sent}, name)).outputs["OUTPUT0"]
    assert answer.dtype == dtype.as_datatype_enum
    assert not answer.tensor_content
    assert tf.make_ndarray(answer).dtype == tf.make_ndarray(sent).dtype
    assert np.array_equal(tf.make_ndarray(answer), tf.make_ndarray(sent))
    # From the typed field, too.
    assert stub.Predict(request({"INPUT0": answer}, name)).outputs["OUTPUT0"] == answer


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (200, 130)], ids=str)
def test_every_shape_there_and_back(stub: Any, dtype: tf.DType, shape: tuple[int, ...]) -> None:
    values = np.resize(values_of(dtype), shape)
    sent = tf.make_tensor_proto(values, dtype)
    answer = stub.Predict(request({"INPUT0": sent}, f"identity_{dtype.name}")).outputs["OUTPUT0"]
    assert tf.make_ndarray(answer).shape == shape
    assert np.array_equal(tf.make_ndarray(answer), values)
    again = stub.Predict(request({"INPUT0": answer}, f"identity_{dtype.name}")).outputs["OUTPUT0"]
    assert again == answer


@pytest.mark.parametrize("count", [4, 50_000])
def test_the_last_of_fewer_values_repeats(stub: Any, count: int) -> None:
    few = tensor(tensor_content=b"", float_val=[1.5, 2.5])
    few.tensor_shape.dim[0].size = count
    answer = stub.Predict(request({"INPUT0": few}, "identity_float32")).outputs["OUTPUT0"]
    assert tf.make_ndarray(answer).tolist() == [1.5] + [2.5] * (count - 1)
    none = tensor(dtype=tf.int64.as_datatype_enum, tensor_content=b"")
    none.tensor_shape.dim[0].size = count
    answer = stub.Predict(request({"INPUT0": none}, "identity_int64")).outputs["OUTPUT0"]
    assert tf.make_ndarray(answer).tolist() == [0] * count


def test_output_filter(stub: Any) -> None:
    inputs = {name: tf.make_tensor_proto(np.full([1, 16], value, np.int32)) for name, value in
              (("INPUT0", 5), ("INPUT1", 3))}  # fmt: skip
    both = stub.Predict(request(inputs, "simple")).outputs
    assert {name: tf.make_ndarray(value)[0, 0] for name, value in both.items()} == {"OUTPUT0": 8, "OUTPUT1": 2}
    assert stub.Predict(request(inputs, "simple", ["OUTPUT1"])).outputs.keys() == {"OUTPUT1"}
    assert stub.Predict(request(inputs, "simple", ["OUTPUT1", "OUTPUT0"])).outputs.keys() == {"OUTPUT0", "OUTPUT1"}
    assert refused(stub.Predict, request(inputs, "simple", ["OUTPUT1", "z"])) == (
        INVALID,
        "output tensor alias not found in signature: z Outputs expected to be in the set {OUTPUT0,OUTPUT1}.",
    )
    assert refused(stub.Predict, request(inputs, "simple", ["OUTPUT1", "OUTPUT1"])) == (
        INVALID, "duplicate output tensor alias: OUTPUT1",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("message", "code", "details"),
    [
        (predict_pb2.PredictRequest(inputs=HALF), INVALID, "Missing ModelSpec"),
        (request(HALF, ""), INVALID, "ModelSpec has no name specified."),
        (request(HALF, "none"), NOT_FOUND, "Servable not found for request: Latest(none)"),
        (request(HALF, "none/half_plus"), NOT_FOUND, "Servable not found for request: Latest(none/half_plus)"),
        (request(HALF, "no good/name"), NOT_FOUND, "Servable not found for request: Latest(no good/name)"),
        (request(HALF, version=2), NOT_FOUND, "Servable not found for request: Specific(half_plus, 2)"),
        (request(HALF, version=0), NOT_FOUND, "Servable not found for request: Specific(half_plus, 0)"),
        (request(HALF, version=-1), NOT_FOUND, "Servable not found for request: Specific(half_plus, -1)"),
        (request(HALF, "none", version=2), NOT_FOUND, "Servable not found for request: Specific(none, 2)"),
        (request(HALF, version_label="x"), INVALID, "Unrecognized servable version label: x"),
        (request(HALF, version_label=""), INVALID, "Unrecognized servable version label: "),
        (request(HALF, "none", version_label="stable"), INVALID, "Unrecognized servable version label: stable"),
        (
            request(HALF, signature_name="s"),
            grpc.StatusCode.FAILED_PRECONDITION,
            'Serving signature key "s" not found.',
        ),
        (
            request({}, "examples", signature_name="serving"),
            grpc.StatusCode.FAILED_PRECONDITION,
            'Serving signature key "serving" not found.',
        ),
        (
            request({}),
            INVALID,
            "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
        ),
        (
            request({**HALF, "z": HALF["x"], "y": HALF["x"]}),
            INVALID,
            "input size does not match signature: 3!=1 len({x,y,z}) != len({x}). Sent extra: {y,z}. "
            "Missing but required: {}.",
        ),
        (
            request({"z": HALF["x"]}),
            INVALID,
            "Signature input alias: x(feed name: serving_default_x:0) not found in request and no default value "
            "provided. Inputs expected to be in the request {z}, or default input alias set: ",
        ),
        (
            request({"x": tf.make_tensor_proto([1, 2], tf.int64)}),
            INVALID,
            "Expects arg[0] to be float but int64 is provided",
        ),
        (
            request(
                {"INPUT0": tf.make_tensor_proto([[1] * 16]), "INPUT1": tf.make_tensor_proto([["1"] * 16])}, "simple"
            ),
            INVALID,
            "Expects arg[1] to be int32 but string is provided",
        ),
    ],
)
def test_refusals(stub: Any, message: Any, code: grpc.StatusCode, details: str) -> None:
    assert refused(stub.Predict, message) == (code, details)


NEGATIVE, UNKNOWN = tf.make_tensor_proto([1.0]).tensor_shape, tf.TensorShape(None).as_proto()
NEGATIVE.dim[0].size = -1
HUGE = tf.make_tensor_proto([1.0]).tensor_shape
HUGE.dim[0].size = 1 << 60


@pytest.mark.parametrize(
    "broken",
    [
        tensor(dtype=0), tensor(dtype=tf.resource.as_datatype_enum), tensor(dtype=99), tensor(tensor_shape=NEGATIVE),
        tensor(tensor_shape=UNKNOWN), tensor(tensor_shape=HUGE), tensor(tensor_content=b"1234567"),
        tensor(tensor_content=bytes(20_000)),
    ],
    ids=lambda broken: str(broken).replace("\n", " ")[:40],
)  # fmt: skip
def test_tensors_that_cannot_be_read(stub: Any, broken: Any) -> None:
    assert refused(stub.Predict, request({"x": broken})) == (INVALID, "tensor parsing error: x")


def test_shapes_are_the_models_to_judge(stub: Any) -> None:
    square = tf.make_tensor_proto([[1.0], [2.0]])
    assert tf.make_ndarray(stub.Predict(request({"x": square})).outputs["y"]).tolist() == [[3.5], [4.0]]
    inputs = {"INPUT0": tf.make_tensor_proto([1, 2]), "INPUT1": tf.make_tensor_proto([1, 2, 3])}
    code, details = refused(stub.Predict, request(inputs, "simple"))
    assert code == INVALID
    assert "Incompatible shapes: [2] vs. [3]" in details


def test_bytes_that_are_no_message(channel: grpc.Channel) -> None:
    for rest in (b"", bytes(20_000)):
        raw = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        code, details = refused(raw, b"\x0a\xff\xff" + rest)
        assert code == INVALID
        assert "expected a tensorflow.serving.PredictRequest; got" in details


def test_names_of_any_length_fit_into_a_status(stub: Any) -> None:
    code, details = refused(stub.Predict, request(HALF, "n" * 100_000))
    assert code == NOT_FOUND
    assert details.endswith("...TRUNCATED")


def test_versions_that_failed_are_not_found(stub: Any, hosted: Any, tmp_path: Any) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"broken")
    with pytest.raises(AssertionError):
        hosted.load("broken@4", tmp_path, "--label", "stable")
    for spec, asked in (({}, "Latest(broken)"), ({"version": 4}, "Specific(broken, 4)")):
        assert refused(stub.Predict, request(HALF, "broken", **spec)) == (
            NOT_FOUND, f"Servable not found for request: {asked}",
        )  # fmt: skip
