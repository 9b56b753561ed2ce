"""Builds what the engines' own tests load: artifacts and `.tflite` files. Usage: python build_optimised.py DIRECTORY.

Each artifact is a directory NAME/ENGINE; NAME.npz holds calls and what TensorFlow answered.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from modelhost_server.engines.artifact import Artifact, ArtifactSignature
from modelhost_server.tensors import DTYPE_NAME, SignatureSpec, TensorSpec
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

NUMBER = {name: number for number, name in DTYPE_NAME.items()}
RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    """Random values."""
    return RANDOM.normal(size=shape).astype(np.float32)


def tensor_specs(side: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    """What a signature says of its inputs or outputs."""
    return tuple(
        TensorSpec(name, NUMBER[spec.dtype.name], tuple(-1 if d is None else d for d in spec.shape))
        for name, spec in sorted(side.items())
    )


def build(
    directory: Path,
    name: str,
    function: Callable[..., dict[str, tf.Tensor]],
    specs: Sequence[tf.TensorSpec],
    calls: Sequence[Mapping[str, Any]],
    engines: Sequence[str] = ("litert", "openvino"),
    unused: TensorSpec | None = None,
) -> None:
    """Converts a function for both engines and records calls of it. Nothing depends on the input `unused`."""
    concrete = tf.function(function, input_signature=specs).get_concrete_function()
    frozen = convert_variables_to_constants_v2(concrete)
    spec = SignatureSpec(
        "serving_default", tensor_specs({s.name: s for s in specs}), tensor_specs(concrete.structured_outputs)
    )
    if unused:
        spec = SignatureSpec(spec.name, (unused, *spec.inputs), spec.outputs)
    inputs = [i.name for i in spec.inputs]
    outputs = [tensor.name.removesuffix(":0") for tensor in frozen.outputs]
    for engine in engines:
        target = directory / name / engine
        target.mkdir(parents=True)
        file, ins, outs = {"litert": to_litert, "openvino": to_openvino}[engine](frozen, target)
        places = [ins.index(i) if i in ins else None for i in inputs]
        signatures = [ArtifactSignature(spec, file, tuple(places), tuple(outs.index(o) for o in outputs))]
        if name == "pair":
            # A second signature that shares the file, and gives its tensors other names.
            (a, b), swapped = signatures[0].spec.inputs, spec.outputs[::-1]
            turned = SignatureSpec(
                "turned",
                (TensorSpec("p", b.dtype, b.shape), TensorSpec("q", a.dtype, a.shape)),
                tuple(TensorSpec(n, o.dtype, o.shape) for n, o in zip("yz", swapped, strict=True)),
            )
            first = signatures[0]
            signatures.append(ArtifactSignature(turned, file, first.inputs[::-1], first.outputs[::-1]))
        Artifact(engine, "float32", tuple(signatures)).write(target)
    arrays = {}
    for number, call in enumerate(calls):
        answers = concrete(*(tf.constant(call[s.name]) for s in specs))
        for side, values in (("in", call), ("out", {k: v.numpy() for k, v in answers.items()})):
            for key, value in values.items():
                value = np.asarray(value)
                # numpy's format does not know bfloat16.
                arrays[f"{number}|{side}|{key}"] = value.view(np.uint16) if value.dtype == tf.bfloat16 else value
    np.savez(directory / f"{name}.npz", **arrays)


def to_litert(frozen: Any, target: Path) -> tuple[str, list[str], list[str]]:
    """The file's name, and the names of its inputs and outputs."""
    (target / "m.tflite").write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert())
    interpreter = Interpreter(str(target / "m.tflite"))
    ins, outs = interpreter.get_input_details(), interpreter.get_output_details()
    return "m.tflite", [i["name"] for i in ins], [o["name"] for o in outs]


def to_openvino(frozen: Any, target: Path) -> tuple[str, list[str], list[str]]:
    """The same for OpenVINO, which has several names for a tensor."""
    graph = target / "frozen.pb"
    graph.write_bytes(frozen.graph.as_graph_def().SerializeToString())
    model = ov.convert_model(graph)
    ov.save_model(model, target / "m.xml", compress_to_fp16=False)
    graph.unlink()
    names = {tensor.name for tensor in frozen.inputs}
    ins = [next(n for n in port.get_names() if n in names) for port in model.inputs]
    outs = [next((n for n in port.get_names() if n.startswith("Identity")), "") for port in model.outputs]
    return "m.xml", [i.removesuffix(":0") for i in ins], [o.removesuffix(":0") for o in outs]


def artifacts(directory: Path) -> None:
    """Models that tests compare with TensorFlow."""
    spec = tf.TensorSpec
    weights, kernel, head = floats(4, 3), floats(3, 3, 3, 8), floats(8, 5)
    np.save(directory / "mlp-weights.npy", weights)
    build(
        directory, "mlp", lambda x: {"y": tf.nn.relu(x @ weights)}, [spec([None, 4], tf.float32, "x")],
        [{"x": floats(n, 4)} for n in (1, 3, 2000, 0, 2)],
    )  # fmt: skip
    build(
        directory, "pair", lambda b, a: {"b": a * 2.0, "a": tf.reduce_sum(a, 1) + tf.cast(b, tf.float32)},
        [spec([None], tf.int64, "b"), spec([None, None], tf.float32, "a")],
        [{"b": np.arange(n), "a": floats(n, m)} for n, m in ((1, 1), (4, 3), (3, 4), (2, 500), (3, 0), (0, 3))],
    )  # fmt: skip
    build(
        directory, "cnn",
        lambda image: {"p": tf.nn.softmax(tf.reduce_mean(tf.nn.conv2d(image, kernel, 2, "SAME"), [1, 2]) @ head)},
        [spec([None, None, None, 3], tf.float32, "image")],
        [{"image": floats(n, h, w, 3)} for n, h, w in ((1, 8, 8), (5, 16, 9), (1, 30, 31), (2, 8, 8))],
    )  # fmt: skip
    values = {
        "bool": [True, False],
        "uint8": [0, 255],
        "int8": [-128, 127],
        "int16": [-(2**15), 3],
        "uint16": [0, 65535],
    }
    values |= {
        "int32": [-(2**31), 1],
        "uint32": [2**31 - 1, 1],
        "int64": [-(2**31), 2**31 - 1],
        "uint64": [2**31 - 1, 2],
    }
    values |= {"float16": [-0.0, np.nan], "float32": [-0.0, np.inf], "float64": [np.pi, 1e-300], "complex64": [1j, 2]}
    values |= {"bfloat16": [1.5, -2]}
    # What an engine has no elements of, or (OpenVINO) computes as something less.
    without = {"litert": ["bfloat16"], "openvino": ["complex64", "float64"]}
    for engine, missing in without.items():
        names = sorted(set(values).difference(missing))
        build(
            directory, f"dtypes-{engine}",
            lambda *given: {f"out_{i}": tf.reshape(v, [-1, 1]) for i, v in enumerate(given)},
            [spec([None], name, f"in_{name}") for name in names],
            [{f"in_{n}": np.array(values[n], tf.as_dtype(n).as_numpy_dtype) for n in names}], [engine],
        )  # fmt: skip
    build(
        directory,
        "scalar",
        lambda x: {"y": x * 2},
        [spec([], tf.float32, "x")],
        [{"x": np.float32(v)} for v in (1, -3)],
    )
    build(
        directory, "dynamic", lambda x: {"kept": tf.boolean_mask(x, x > 0)}, [spec([None], tf.float32, "x")],
        [{"x": np.float32(v)} for v in ([1, -1, 2], [-1, -2], [1, 2, 3, 4], [5])],
    )  # fmt: skip
    build(
        directory, "unused", lambda x: {"z": x + 1}, [spec([None], tf.float32, "x")], [{"x": floats(2)}],
        unused=TensorSpec("a", NUMBER["string"], (-1,)),
    )  # fmt: skip
    build(
        directory, "square", lambda x, y: {"z": x @ y}, [spec([None, None], tf.float32, n) for n in ("x", "y")],
        [{"x": floats(2, 3), "y": floats(3, 4)}, {"x": floats(5, 1), "y": floats(1, 5)}],
    )  # fmt: skip
    large = tf.constant(floats(2048, 2048) / 45)
    build(
        directory, "large", lambda x: {"y": x @ large}, [spec([None, 2048], tf.float32, "x")], [{"x": floats(2, 2048)}]
    )


def files(directory: Path) -> None:
    """`.tflite` files as callers have them."""
    module = tf.Module()
    module.weights = tf.Variable(np.eye(4, 3, dtype=np.float32))
    module.count = tf.Variable(0.0)
    spec = tf.TensorSpec
    two = {
        "first": tf.function(
            lambda x: {"y": x @ module.weights, "same": x}, input_signature=[spec([None, 4], tf.float32, "x")]
        ),
        "second": tf.function(
            lambda b, a: {"sum": tf.reduce_sum(a, 1) + tf.cast(b, tf.float32)},
            input_signature=[spec([None], tf.int64, "b"), spec([None, None], tf.float32, "a")],
        ),
    }
    other = {
        "named": (lambda index: {"y": tf.gather([1.0, 2.0], index)}, spec([None], tf.int32, "index")),
        "strings": (lambda s: {"n": tf.reshape(s, [-1, 1])}, spec([None], tf.string, "s")),
        "flex": (lambda x: {"y": tf.linalg.cholesky(x)}, spec([2, 2], tf.float32, "x")),
        "counter": (lambda by: {"count": module.count.assign_add(by)}, spec([], tf.float32, "by")),
        "valid": (
            lambda x: {"y": tf.nn.conv2d(x, tf.ones([3, 3, 1, 1]), 1, "VALID")},
            spec([1, None, None, 1], tf.float32, "x"),
        ),
    }
    one = {name: {"serving_default": tf.function(f, input_signature=[s])} for name, (f, s) in other.items()}
    module.functions = {"two": two, **one}
    for name, functions in module.functions.items():
        saved = directory / f"{name}-saved"
        tf.saved_model.save(module, str(saved), signatures=functions)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=list(functions))
        converter.experimental_enable_resource_variables = True
        if name == "flex":
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
        (directory / f"{name}.tflite").write_bytes(converter.convert())


if __name__ == "__main__":
    artifacts(Path(sys.argv[1]))
    files(Path(sys.argv[1]))
