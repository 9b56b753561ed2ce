"""PredictionService's Classify, Regress and MultiInference, by tensorflow-serving-api's stubs."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
import tensorflow as tf
from google.protobuf.wrappers_pb2 import Int64Value
from tensorflow_serving.apis import classification_pb2, inference_pb2, input_pb2, predict_pb2, regression_pb2
from tensorflow_serving.apis.model_pb2 import ModelSpec

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


def example(**features: float) -> tf.train.Example:
    feature = {name: tf.train.Feature(float_list=tf.train.FloatList(value=[v])) for name, v in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=feature))


TWO = input_pb2.Input(example_list=input_pb2.ExampleList(examples=[example(x=2), example(x=-4)]))


def spec(signature: str, name: str = "examples", **more: Any) -> ModelSpec:
    return ModelSpec(name=name, signature_name=signature, **more)


def classification(model_spec: ModelSpec | None, given: Any = TWO) -> classification_pb2.ClassificationRequest:
    return classification_pb2.ClassificationRequest(model_spec=model_spec, input=given)


def regression(model_spec: ModelSpec | None, given: Any = TWO) -> regression_pb2.RegressionRequest:
    return regression_pb2.RegressionRequest(model_spec=model_spec, input=given)


def tasks(*named: tuple[str, str], given: Any = TWO, name: str = "examples") -> inference_pb2.MultiInferenceRequest:
    return inference_pb2.MultiInferenceRequest(
        tasks=[
            inference_pb2.InferenceTask(model_spec=spec(signature, name), method_name=method)
            for signature, method in named
        ],
        input=given,
    )


def refused(call: Any, message: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(message)
    return caught.value.code(), caught.value.details()


def answered(signature: str) -> ModelSpec:
    return spec(signature, version=Int64Value(value=1))


def test_classify(stub: Any) -> None:
    answer = stub.Classify(classification(spec("classify_x_to_y")))
    assert answer.model_spec == answered("classify_x_to_y")
    first, second = answer.result.classifications
    assert [c.label for c in first.classes] == [c.label for c in second.classes] == ["yes", "no"]
    assert [c.score for c in first.classes] == pytest.approx([0.9525741, 0.0474259], rel=1e-5)
    assert [c.score for c in second.classes] == pytest.approx([0.5, 0.5])


def test_classify_with_scores_or_classes_only(stub: Any) -> None:
    only = stub.Classify(classification(spec("classify_scores_only"))).result.classifications[1]
    assert [(c.label, c.score) for c in only.classes] == [("", 0.5), ("", 0.5)]
    only = stub.Classify(classification(spec("classify_classes_only"))).result.classifications[0]
    assert [(c.label, c.score) for c in only.classes] == [("yes", 0), ("no", 0)]


def test_regress(stub: Any) -> None:
    answer = stub.Regress(regression(spec("regress_x_to_y")))
    assert answer.model_spec == answered("regress_x_to_y")
    assert [r.value for r in answer.result.regressions] == [3, 0]


def test_examples_have_their_context(stub: Any) -> None:
    given = input_pb2.Input(
        example_list_with_context=input_pb2.ExampleListWithContext(
            examples=[example(x=2), example(x=4)], context=example(x2=10)
        )
    )
    answer = stub.Regress(regression(spec("regress_x_to_y2"), given))
    assert [r.value for r in answer.result.regressions] == [13, 14]


def test_predict_takes_serialized_examples(stub: Any) -> None:
    serialized = tf.make_tensor_proto([example(x=2).SerializeToString()])
    request = predict_pb2.PredictRequest(model_spec=spec("predict_examples"), inputs={"examples": serialized})
    assert tf.make_ndarray(stub.Predict(request).outputs["y"]).tolist() == [[3]]


def test_multi_inference(stub: Any) -> None:
    answer = stub.MultiInference(tasks(("regress_x_to_y", REGRESS), ("classify_x_to_y", CLASSIFY)))
    values, classes = answer.results
    assert values.model_spec == answered("regress_x_to_y")
    assert [r.value for r in values.regression_result.regressions] == [3, 0]
    assert classes.model_spec == answered("classify_x_to_y")
    assert len(classes.classification_result.classifications) == 2


@pytest.mark.parametrize(
    ("message", "code", "details"),
    [
        (classification(None), INVALID, "Missing ModelSpec"),
        (classification(spec("x", "none")), NOT_FOUND, "Servable not found for request: Latest(none)"),
        (classification(spec("x", version_label="l")), INVALID, "Unrecognized servable version label: l"),
        (classification(spec("x")), INVALID, "No signature was found with the name: x"),
        (classification(spec("classify_x_to_y"), None), INVALID, "Input is empty."),
        (
            classification(spec("classify_x_to_y"), input_pb2.Input(example_list=input_pb2.ExampleList())),
            INVALID,
            "Input is empty.",
        ),
        (
            classification(spec("")),
            INVALID,
            "No classification inputs found in SignatureDef: serving_default(x) -> y",
        ),
        (
            classification(spec("regress_x_to_y")),
            INVALID,
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            "Signature was: regress_x_to_y(inputs) -> outputs",
        ),
        (
            classification(spec("classify_flat")),
            INVALID,
            "Expected Tensor shape: [batch_size num_classes] but got [2]",
        ),
        (classification(spec("", "simple")), INVALID, "Expected one input Tensor."),
        (regression(None), INVALID, "Missing ModelSpec"),
        (regression(spec("x")), INVALID, "No signature was found with the name: x"),
        (regression(spec("regress_x_to_y"), None), INVALID, "Input is empty."),
        (regression(spec("")), INVALID, "No regression inputs found in SignatureDef: serving_default(x) -> y"),
        (regression(spec("classify_x_to_y")), INVALID, "Expected one output Tensor."),
        (
            regression(spec("classify_scores_only")),
            INVALID,
            "No regression outputs found in SignatureDef: classify_scores_only(inputs) -> scores",
        ),
        (
            regression(spec("regress_pairs")),
            INVALID,
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [2,2]",
        ),
        (regression(spec("regress_floats")), INVALID, "Expects arg[0] to be float but string is provided"),
    ],
)
def test_refusals(stub: Any, message: Any, code: grpc.StatusCode, details: str) -> None:
    call = stub.Classify if isinstance(message, classification_pb2.ClassificationRequest) else stub.Regress
    assert refused(call, message) == (code, details)


@pytest.mark.parametrize(
    ("message", "code", "details"),
    [
        (tasks(), INVALID, "ModelSpec has no name specified."),
        (tasks(("x", REGRESS), name="none"), NOT_FOUND, "Servable not found for request: Latest(none)"),
        (
            tasks(("regress_x_to_y", REGRESS), ("regress_x_to_y", REGRESS)),
            INVALID,
            "Duplicate evaluation of signature: regress_x_to_y",
        ),
        (tasks(("x", REGRESS)), INVALID, "Requested signature not found in model graph: x"),
        (
            tasks(("regress_x_to_y", "tensorflow/serving/predict")),
            grpc.StatusCode.UNIMPLEMENTED,
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        (
            tasks(("regress_x_to_y", REGRESS), ("regress_floats", REGRESS)),
            INVALID,
            "Input tensor must be the same for all Signatures.",
        ),
        (tasks(("regress_x_to_y", REGRESS), given=None), INVALID, "Input is empty."),
    ],
)
def test_refusals_of_several_tasks(stub: Any, message: Any, code: grpc.StatusCode, details: str) -> None:
    assert refused(stub.MultiInference, message) == (code, details)


def test_tasks_are_of_one_model(stub: Any) -> None:
    message = tasks(("regress_x_to_y", REGRESS), ("classify_x_to_y", CLASSIFY))
    message.tasks[1].model_spec.name = "simple"
    assert refused(stub.MultiInference, message) == (
        INVALID, "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
    )  # fmt: skip
    message.tasks[1].model_spec.name = ""
    assert refused(stub.MultiInference, message) == (INVALID, "Found ModelSpec with an empty model name.")


def test_examples_that_the_model_cannot_parse(stub: Any) -> None:
    given = input_pb2.Input(example_list=input_pb2.ExampleList(examples=[example(other=1)]))
    code, details = refused(stub.Regress, regression(spec("regress_x_to_y"), given))
    assert code == INVALID
    assert "Feature: x (data type: float) is required but could not be found" in details
