"""Builds the models of the tests about batching. Usage: python build_batching.py DIRECTORY (needs TensorFlow).

Each has signatures for one question: may predictions run together, and if so, is each answered what it asked?
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

Function = Callable[..., tf.Tensor | dict[str, tf.Tensor]]


def floats(name: str, *rest: int | None) -> tf.TensorSpec:
    """An input of rows of floats."""
    return tf.TensorSpec([None, *rest], tf.float32, name)


def save(path: Path, signatures: dict[str, tuple[Function, list[tf.TensorSpec]]], **kept: tf.Variable) -> None:
    """Saves functions as signatures; one that answers a tensor has an output `y`."""
    module = tf.Module()
    for name, variable in kept.items():
        setattr(module, name, variable)

    def concrete(function: Function, specs: list[tf.TensorSpec]) -> tf.types.experimental.ConcreteFunction:
        def named(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            result = function(*inputs)
            return result if isinstance(result, dict) else {"y": result}

        return tf.function(named, input_signature=specs).get_concrete_function()

    functions = {name: concrete(*what) for name, what in signatures.items()}
    module.functions = functions
    tf.saved_model.save(module, str(path), signatures=functions)


def gate(root: Path) -> None:
    """Runs until there is a file of the name that it is given (without a name, it does not wait): whatever comes after
    it waits for that. `batch` waits for its first row's.
    """

    def run(path: tf.Tensor) -> tf.Tensor:
        def is_closed(i: tf.Tensor) -> tf.Tensor:
            # Of the count, so that nobody takes it out of the loop.
            nothing = tf.strings.substr(tf.strings.as_string(i), 0, 0)
            is_there = tf.size(tf.io.matching_files(tf.strings.join([path, nothing]))) > 0
            return tf.logical_not(is_there | (tf.strings.length(path) == 0))

        return tf.while_loop(is_closed, lambda i: [i + 1], [tf.constant(0)])[0]

    def batch(paths: tf.Tensor) -> tf.Tensor:
        # Rows of a warm-up, or of nobody, have no names.
        return tf.fill([tf.size(paths)], run(tf.strings.reduce_join(paths[:1])))

    save(root / "gate", {
        "serving_default": (run, [tf.TensorSpec([], tf.string, "path")]),
        "batch": (batch, [tf.TensorSpec([None], tf.string, "path")]),
    })  # fmt: skip


def alone(root: Path) -> None:
    """Signatures that look at more than a row at a time, or cannot tell their rows apart."""
    x = [floats("x", 3)]
    count = tf.Variable(0.0)
    save(
        root / "alone",
        {
            "minus_mean": (lambda x: x - tf.reduce_mean(x, 0, keepdims=True), x),
            "cumsum": (lambda x: tf.cumsum(x, 0), x),
            "cummax": (lambda x: tf.scan(tf.maximum, x), x),
            "sorted": (lambda x: tf.sort(x, 0), x),
            "unique": (lambda x: tf.unique(tf.reshape(x, [-1]))[0], x),
            "loss": (lambda x: tf.reduce_sum(x), x),
            "one_row": (lambda x: tf.reduce_mean(x, 0, keepdims=True), x),
            "fixed_batch": (lambda x: x * 2, [tf.TensorSpec([1, 3], tf.float32, "x")]),
            "pairs": (
                lambda a, b: {"y": tf.reduce_sum(a, 1)[:, None] * tf.reduce_sum(b, 1)[None]},
                [floats("a", 3), floats("b", 3)],
            ),
            "concatenated": (lambda x: tf.concat([x, x], 0), x),
            "any_rank": (lambda x: x - tf.reduce_mean(x), [tf.TensorSpec(None, tf.float32, "x")]),
            "one_good_output": (lambda x: {"good": x * 2, "bad": x - tf.reduce_mean(x)}, x),
            # Shaped by the longest of the batch.
            "words": (
                lambda text: tf.strings.length(tf.strings.split(text).to_tensor()),
                [tf.TensorSpec([None], tf.string, "text")],
            ),
        },
    )
    save(root / "impure", {
        "counter": (lambda x: x + count.assign_add(1.0), x),
        "random": (lambda x: {"y": x, "noise": tf.random.uniform(tf.shape(x))}, x),
    }, count=count)  # fmt: skip


def together(root: Path) -> None:
    """Signatures whose rows are answered one by one."""
    noise = np.random.default_rng(3)
    w = tf.Variable(noise.normal(size=(16, 16)).astype(np.float32))
    save(root / "together", {
        "dense": (lambda x: tf.nn.softmax(tf.matmul(tf.nn.relu(tf.matmul(x, w)), w)), [floats("x", 16)]),
        "two": (lambda a, b: {"sum": a + b[:, None], "b": b * 2}, [floats("a", 3), floats("b")]),
        "text": (
            lambda text: {"upper": tf.strings.upper(text), "length": tf.strings.length(text)},
            [tf.TensorSpec([None], tf.string, "text")],
        ),
        "twice": (lambda x: x * 2, [floats("x", None)]),
        "images": (lambda x: tf.reduce_max(x, [1, 2]), [floats("x", None, None, 2)]),
        "outputs": (lambda x: {"double": x * 2, "square": x * x}, [floats("x")]),
        "positive": (_positive, [floats("x")]),
        "rows": (lambda x: tf.fill([tf.shape(x)[0]], tf.shape(x)[0]), [floats("x")]),
        "large": (lambda x: x + 1.0, [floats("x", 40_000)]),
    }, w=w)  # fmt: skip


def of_one_signature(root: Path) -> None:
    """A model that may be batched and one that may not, for other engines, too."""
    w = np.random.default_rng(3).normal(size=(16, 16)).astype(np.float32)
    functions: dict[str, Function] = {
        "dense": lambda x: tf.nn.softmax(tf.matmul(tf.nn.relu(tf.matmul(x, w)), w)),
        "minus_mean": lambda x: x - tf.reduce_mean(x, 0, keepdims=True),
    }
    for name, function in functions.items():
        save(root / name, {"serving_default": (function, [floats("x", 16)])})
        (root / f"{name}.tflite").write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(root / name)).convert())


def _positive(x: tf.Tensor) -> tf.Tensor:
    with tf.control_dependencies([tf.debugging.assert_positive(x, message="x must be positive")]):
        return tf.sqrt(x)


def versions(root: Path) -> None:
    """A model in three versions: the first adds 1, the second 2, to be told apart by their answers."""
    for number in (1, 2, 3):
        save(root / f"plus_{number}", {"serving_default": (lambda x, n=number: x + float(n), [floats("x")])})


def counters(root: Path) -> None:
    """Counts its runs: how many there were before this one."""
    count = tf.Variable(0)

    def run(x: tf.Tensor) -> dict[str, tf.Tensor]:
        before = count.read_value()
        with tf.control_dependencies([before]):
            after = count.assign_add(1)
        return {"before": tf.fill([tf.shape(x)[0]], after - 1), "x": tf.identity(x)}

    save(root / "counter", {"serving_default": (run, [floats("x")])}, count=count)


def main(root: Path) -> None:
    """Builds all."""
    root.mkdir(parents=True, exist_ok=True)
    for build in (gate, alone, together, of_one_signature, versions, counters):
        build(root)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
