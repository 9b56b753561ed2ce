"""Builds the models that other servers' example programs and tests ask for, by their names there.

Run by `support.building.built`, which keeps them: python build_foreign.py OUT_DIRECTORY
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

Spec = tf.TensorSpec


def save(directory: Path, run: Callable[..., Mapping[str, Any]], *inputs: Spec) -> None:
    """Saves a model of one signature."""
    module = tf.Module()
    module.run = tf.function(run)
    signature = module.run.get_concrete_function(**{spec.name: spec for spec in inputs})
    tf.saved_model.save(module, str(directory), signatures={"serving_default": signature})


def sum_and_difference(INPUT0: Any, INPUT1: Any) -> Mapping[str, Any]:  # noqa: N803
    return {"OUTPUT0": INPUT0 + INPUT1, "OUTPUT1": INPUT0 - INPUT1}


def of_strings(INPUT0: Any, INPUT1: Any) -> Mapping[str, Any]:  # noqa: N803
    outputs = sum_and_difference(tf.strings.to_number(INPUT0, tf.int32), tf.strings.to_number(INPUT1, tf.int32))
    return {name: tf.strings.as_string(value) for name, value in outputs.items()}


def identity(INPUT0: Any) -> Mapping[str, Any]:  # noqa: N803
    return {"OUTPUT0": tf.identity(INPUT0)}


def triton(directory: Path) -> None:
    """The models of Triton's `fetch_models.sh` and of its clients' examples."""
    for name, dtype in (("simple", tf.int32), ("simple_int8", tf.int8)):
        save(directory / name, sum_and_difference, Spec([None, 16], dtype, "INPUT0"), Spec([None, 16], dtype, "INPUT1"))
    strings = [Spec([None, 16], tf.string, name) for name in ("INPUT0", "INPUT1")]
    save(directory / "simple_string", of_strings, *strings)
    save(directory / "simple_identity", identity, Spec([None, 16], tf.string, "INPUT0"))
    # An identity of each dtype that a signature can have.
    for dtype in (
        tf.bool, tf.uint8, tf.uint16, tf.uint32, tf.uint64, tf.int8, tf.int16, tf.int32, tf.int64, tf.float16,
        tf.float32, tf.float64, tf.bfloat16, tf.string,
    ):  # fmt: skip
        save(directory / f"identity_{dtype.name}", identity, Spec(None, dtype, "INPUT0"))


def pictures(directory: Path) -> None:
    """A classifier of pictures: which of ten colours is most like the average one."""
    colours = tf.constant([[i % 2, i // 2 % 2, i / 10] for i in range(10)], tf.float32)

    def classify(input: Any) -> Mapping[str, Any]:  # noqa: A002
        likeness = tf.matmul(tf.reduce_mean(input, [1, 2]), colours, transpose_b=True)
        return {"InceptionV3/Predictions/Softmax": tf.nn.softmax(likeness)}

    save(directory, classify, Spec([None, 299, 299, 3], tf.float32, "input"))


def example_parsers(directory: Path) -> None:
    """A classifier and a regressor that parse tf.Example, as an Estimator exports them, in the TensorFlow 1 way."""
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        serialized = v1.placeholder(tf.string, [None], "input_example_tensor")
        parsed = v1.io.parse_example(
            serialized,
            {"x": v1.io.FixedLenFeature([1], tf.float32), "x2": v1.io.FixedLenFeature([1], tf.float32, [0.0])},
        )
        x, x2 = parsed["x"], parsed["x2"]
        a, b = v1.Variable(0.5, name="a"), v1.Variable(2.0, name="b")
        y = a * x + b
        y2 = y + x2
        scores = tf.concat([tf.sigmoid(y), 1 - tf.sigmoid(y)], axis=1)
        classes = tf.tile(tf.constant([["yes", "no"]]), [tf.shape(x)[0], 1])
        session.run(v1.global_variables_initializer())
        signature = v1.saved_model.signature_def_utils
        info = v1.saved_model.utils.build_tensor_info
        predict = signature.predict_signature_def
        builder = v1.saved_model.Builder(str(directory))
        builder.add_meta_graph_and_variables(
            session, ["serve"],
            signature_def_map={
                "serving_default": predict({"x": x}, {"y": y}),
                "predict_examples": predict({"examples": serialized}, {"y": y, "y2": y2}),
                "regress_x_to_y": signature.regression_signature_def(serialized, y),
                "regress_x_to_y2": signature.regression_signature_def(serialized, y2),
                "classify_x_to_y": signature.classification_signature_def(serialized, classes, scores),
                "classify_scores_only": signature.build_signature_def(
                    {"inputs": info(serialized)}, {"scores": info(scores)}, "tensorflow/serving/classify"
                ),
                # What is not as clients expect it.
                "classify_flat": signature.build_signature_def(
                    {"inputs": info(serialized)}, {"scores": info(scores[:, 0])}, "tensorflow/serving/classify"
                ),
                "regress_pairs": signature.regression_signature_def(serialized, scores),
                "regress_floats": signature.build_signature_def(
                    {"inputs": info(x)}, {"outputs": info(y)}, "tensorflow/serving/regress"
                ),
                "classify_classes_only": signature.build_signature_def(
                    {"inputs": info(serialized)}, {"classes": info(classes)}, "tensorflow/serving/classify"
                ),
            },
        )  # fmt: skip
        builder.save()


def half_plus(directory: Path, b: float) -> None:
    """Half of x plus b: TensorFlow Serving's first model."""

    class HalfPlus(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.b = tf.Variable(b)

        @tf.function
        def run(self, x: Any) -> Mapping[str, Any]:
            return {"y": x * 0.5 + self.b}

    module = HalfPlus()
    signature = module.run.get_concrete_function(x=Spec([None], tf.float32, "x"))
    tf.saved_model.save(module, str(directory), signatures={"serving_default": signature})


def main(directory: Path) -> None:
    """Builds all."""
    triton(directory)
    pictures(directory / "densenet_onnx")
    example_parsers(directory / "examples")
    # A base path as TensorFlow Serving wants it: a directory a version.
    half_plus(directory / "half_plus_two" / "1", 2.0)
    half_plus(directory / "half_plus_two" / "2", 2.0)
    half_plus(directory / "half_plus_three" / "3", 3.0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
