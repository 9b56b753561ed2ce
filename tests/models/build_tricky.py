"""Builds SavedModels that converters refuse, spoil, or must not. Usage: python build_tricky.py DIRECTORY [NAME...]
(needs TensorFlow).

Each function builds one model into a directory of its own name; its docstring says what the model is for.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

BUILDERS: list[Callable[[str], None]] = []
v1 = tf.compat.v1


def model(build: Callable[[str], None]) -> Callable[[str], None]:
    """Registers a builder."""
    BUILDERS.append(build)
    return build


def spec(name: str, *shape: int | None, dtype: tf.DType = tf.float32) -> tf.TensorSpec:
    """An input."""
    return tf.TensorSpec(shape, dtype, name)


def save(path: str, function: Callable[..., object], *specs: tf.TensorSpec, **kept: object) -> None:
    """Saves a function as `serving_default`, with the variables and tables it uses."""
    module = tf.Module()
    for name, value in kept.items():
        setattr(module, name, value)
    module.run = tf.function(function, input_signature=specs)
    tf.saved_model.save(module, path, signatures=module.run)


def simple(
    function: Callable[..., tf.Tensor], *specs: tf.TensorSpec, name: str, about: str, **kept: Callable[[], object]
) -> None:
    """Registers a model of one output, `y`; what it keeps is made when it is built."""

    def build(path: str) -> None:
        things = {key: make() for key, make in kept.items()}
        save(path, lambda *inputs: {"y": function(*inputs, *things.values())}, *specs, **things)

    build.__name__, build.__doc__ = name, about
    BUILDERS.append(build)


def weights(*shape: int) -> Callable[[], tf.Variable]:
    """Makes a variable of reproducible noise."""
    return lambda: tf.Variable(np.random.default_rng(7).normal(size=shape).astype(np.float32), name="weights")


# Refused before anything is converted

simple(tf.strings.upper, spec("x", None, dtype=tf.string), name="strings", about="String tensors.")
simple(
    lambda x: tf.strings.to_hash_bucket_fast(tf.strings.as_string(x), 10),
    spec("x", None, dtype=tf.int32), name="strings_inside", about="Strings between numbers.",
)  # fmt: skip


@model
def int_table(path: str) -> None:
    """A lookup table without strings."""
    keys, values = tf.constant([1, 2], tf.int64), tf.constant([10, 20], tf.int64)
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), -1)
    save(path, lambda x: {"y": table.lookup(x)}, spec("x", None, dtype=tf.int64), table=table)


simple(lambda x: x + tf.random.normal(tf.shape(x)), spec("x", None), name="random", about="Draws random numbers.")
simple(
    lambda x, n: x + n.assign_add(1.0), spec("x", None), n=lambda: tf.Variable(0.0),
    name="counter", about="Changes a variable.",
)  # fmt: skip


@model
def hidden_counter(path: str) -> None:
    """Changes a variable that no output depends on."""
    n = tf.Variable(0.0)

    def run(x: tf.Tensor) -> dict[str, tf.Tensor]:
        n.assign_add(1.0)
        return {"y": x * 2}

    save(path, run, spec("x", None), n=n)


@model
def optional(path: str) -> None:
    """An input with a default value."""
    three = tf.constant(3.0)
    save(path, lambda x, scale=three: {"y": x * scale}, spec("x", None), spec("scale"))


simple(lambda x: tf.complex(x, x), spec("x", None), name="complex_output", about="Complex numbers.")
simple(lambda x: x * 2, tf.TensorSpec(None, tf.float32, "x"), name="unknown_rank", about="Any rank.")
simple(lambda x: x * 2, spec("x", None, dtype=tf.float64), name="float64", about="Double precision.")
simple(lambda: tf.constant([1.0, 2.0]), name="without_inputs", about="Always answers the same.")
simple(
    lambda x: tf.reshape(tf.py_function(lambda v: v * 2, [x], tf.float32), [2]),
    spec("x", 2), name="python_function", about="Calls Python.",
)  # fmt: skip


@model
def assertion(path: str) -> None:
    """Takes positive numbers only."""

    def run(x: tf.Tensor) -> dict[str, tf.Tensor]:
        tf.debugging.assert_positive(x)
        return {"y": tf.sqrt(x)}

    save(path, run, spec("x", None))


simple(
    lambda x: tf.debugging.check_numerics(tf.math.log(x), "no"), spec("x", None),
    name="check_numerics", about="Refuses to answer NaN.",
)  # fmt: skip


@model
def one_tensor_twice(path: str) -> None:
    """Two inputs that are one tensor of the graph."""
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], "x")
        y = x * 2
        info = v1.saved_model.utils.build_tensor_info
        definition = v1.saved_model.signature_def_utils.build_signature_def(
            {"a": info(x), "b": info(x)}, {"y": info(y)}, "predict"
        )
        builder = v1.saved_model.Builder(path)
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": definition})
        builder.save()


# What converters refuse or spoil

simple(tf.math.erfinv, spec("x", None, 4), name="erfinv", about="Inverse error function.")
simple(
    lambda x: tf.linalg.inv(x + 40 * tf.eye(3)), spec("x", None, 3, 3), name="inverse", about="Matrix inverse.",
)  # fmt: skip
simple(lambda x: tf.unique(x)[0], spec("x", None, dtype=tf.int32), name="unique", about="In order of appearance.")
simple(
    lambda a, b: tf.stack([a // (b * b + 1), tf.math.floormod(a, b * b + 1), tf.truncatemod(a, b * b + 1)]),
    spec("a", None, dtype=tf.int32), spec("b", None, dtype=tf.int32), name="division", about="Of negative integers.",
)  # fmt: skip
simple(lambda x: tf.round(x * 2) / 2, spec("x", None, 5), name="rounding", about="Half to even.")
simple(
    lambda x: tf.math.top_k(tf.round(x), 3).indices, spec("x", None, 8), name="top_k",
    about="The first of equals wins.",
)  # fmt: skip
simple(lambda x: tf.argmax(tf.round(x), 1), spec("x", None, 8), name="argmax", about="The first of equals wins.")
simple(
    lambda x, table: tf.gather(table, x), spec("x", None, dtype=tf.int32), table=weights(10, 4),
    name="embedding", about="Takes ids from 0 to 9.",
)  # fmt: skip
simple(
    lambda x, table: tf.gather(table, x), spec("x", None, None, dtype=tf.int64), table=weights(1200, 4),
    name="embedding_int64", about="Takes ids from 0 to 1199, in two open dimensions.",
)  # fmt: skip
simple(lambda x: x * 3 + 1, spec("x", None, dtype=tf.int64), name="int64", about="Numbers beyond 2**31.")
simple(lambda x: x * x * 7, spec("x", None, dtype=tf.int32), name="overflow", about="Integers that wrap around.")
simple(
    lambda x, s: tf.math.unsorted_segment_sum(x, s, 5), spec("x", None), spec("s", None, dtype=tf.int32),
    name="segments", about="Sums by segment; those outside are left out if negative, and refused if too large.",
)  # fmt: skip
simple(lambda x: tf.bitcast(x, tf.int32), spec("x", None), name="bitcast", about="Bits of floats.")
simple(
    lambda x: v1.image.resize_bilinear(x, [7, 5], align_corners=True), spec("x", None, 4, 6, 3),
    name="resize", about="With aligned corners.",
)  # fmt: skip
simple(
    lambda x: x + tf.random.stateless_uniform(tf.shape(x), [1, 2]), spec("x", None, 3),
    name="stateless_random", about="Noise that is always the same.",
)  # fmt: skip
simple(tf.math.log, spec("x", None, 3), name="nan", about="NaN for negative numbers, -infinity for zeros.")
simple(
    lambda x: tf.cast(x, tf.uint8), spec("x", None, 4), name="to_uint8", about="Floats beyond the range of bytes.",
)  # fmt: skip
simple(
    lambda x: tf.where(x > 0)[:, 0], spec("x", None), name="where", about="As many numbers as are positive.",
)  # fmt: skip
simple(
    lambda x: tf.nn.softmax(tf.cast(x, tf.float16)), spec("x", None, 5), name="half", about="Answers float16.",
)  # fmt: skip
simple(
    lambda x: tf.image.non_max_suppression(tf.abs(x), tf.abs(x[:, 0]), 4), spec("x", None, 4),
    name="boxes", about="Non-maximum suppression.",
)  # fmt: skip
simple(
    lambda x: tf.abs(tf.signal.stft(x, 16, 8)), spec("x", None, 64), name="stft", about="Complex numbers inside.",
)  # fmt: skip
simple(
    lambda x: tf.one_hot(x, 5), spec("x", None, dtype=tf.int32), name="one_hot", about="Nothing for numbers outside.",
)  # fmt: skip
simple(
    lambda x, s: tf.reverse_sequence(x, s, 1), spec("x", None, 6), spec("s", None, dtype=tf.int32),
    name="reverse_sequence", about="Refuses lengths beyond the sequence.",
)  # fmt: skip
simple(
    lambda x, i: tf.tensor_scatter_nd_add(x, i[:, None], x[0] + tf.zeros(tf.shape(i))),
    spec("x", 6), spec("i", None, dtype=tf.int32), name="scatter", about="Refuses indices outside.",
)  # fmt: skip
simple(lambda x: tf.math.rsqrt(tf.abs(x)), spec("x", None, 6), name="rsqrt", about="Infinity at zero.")
simple(lambda x: x ** tf.constant(3), spec("x", None, 3, dtype=tf.int32), name="power", about="Power of integers.")
simple(lambda x: x + x, spec("x", None, 3, dtype=tf.uint8), name="uint8", about="Bytes that wrap around.")


# What must pass

simple(lambda x: x * 2, spec("x", None), name="plain", about="Twice x.")
simple(
    lambda x, w: tf.sin(10 * (x @ w)), spec("x", None, 64), w=weights(64, 16),
    name="delicate", about="The larger x is, the more the order of additions says.",
)  # fmt: skip
simple(
    lambda x, w: tf.sin(1e5 * (x @ w)), spec("x", None, 64), w=weights(64, 16),
    name="chaotic", about="Whatever x is, the order of additions says nearly all.",
)  # fmt: skip


@model
def two_open(path: str) -> None:
    """Two inputs with the same two open dimensions."""
    w = weights(3, 4)()
    save(
        path, lambda a, b: {"y": tf.nn.relu(a @ w) + b, "rows": tf.shape(a, tf.int32)[0] * tf.ones([1], tf.int32)},
        spec("a", None, None, 3), spec("b", None, None, 4), w=w,
    )  # fmt: skip


@model
def square(path: str) -> None:
    """Open dimensions that agree across axes: a [n, m] by [m, n] product."""
    save(path, lambda a, b: {"y": a @ b}, spec("a", None, None), spec("b", None, None))


@model
def passes_on(path: str) -> None:
    """An output that is an input, one that is the other's twin, and an input that nothing uses."""
    save(
        path, lambda a, b, unused: {"a": b, "b": tf.identity(a), "sum": a + b, "twin": a + b},
        spec("a", None, 2), spec("b", None, 2), spec("unused", None),
    )  # fmt: skip


@model
def many_outputs(path: str) -> None:
    """Twelve outputs of one shape, each another."""
    save(path, lambda x: {f"y{i}": x * (i + 1.0) + i for i in range(12)}, spec("x", None, 2))


@model
def two_signatures(path: str) -> None:
    """`same` computes what `serving_default` does, `other` something else."""
    module = tf.Module()
    module.w = weights(3, 3)()
    specs = [spec("x", None, 3)]
    module.run = tf.function(lambda x: {"y": tf.nn.relu(x @ module.w)}, input_signature=specs)
    module.again = tf.function(lambda x: {"y": tf.nn.relu(x @ module.w)}, input_signature=specs)
    module.other = tf.function(lambda x: {"y": tf.nn.relu(x @ module.w + 1.0)}, input_signature=specs)
    signatures = {"serving_default": module.run, "same": module.again, "other": module.other}
    tf.saved_model.save(module, path, signatures=signatures)


@model
def constant_output(path: str) -> None:
    """An output that made-up inputs never change: it needs a sum beyond a million."""
    save(path, lambda x: {"y": tf.nn.relu(tf.reduce_sum(x, 1) - 1e6)}, spec("x", None, 3))


@model
def picky(path: str) -> None:
    """Accepts 37 columns only, though the signature leaves them open."""
    w = weights(37, 2)()
    save(path, lambda x: {"y": x @ w}, spec("x", None, None), w=w)


@model
def loop(path: str) -> None:
    """Halves x until it is small: a loop whose count depends on the values."""

    def run(x: tf.Tensor) -> dict[str, tf.Tensor]:
        x = tf.clip_by_value(tf.abs(x), 0.0, 1e6)
        steps, y = tf.while_loop(
            lambda i, x: tf.reduce_max(x) > 1.0, lambda i, x: (i + 1, x / 2), [tf.constant(0), x]
        )  # fmt: skip
        return {"y": y, "steps": steps}

    save(path, run, spec("x", None, 3))


@model
def branch(path: str) -> None:
    """Two ways, chosen by the values."""
    save(
        path, lambda x: {"y": tf.cond(tf.reduce_sum(x) > 0, lambda: tf.sin(x), lambda: x * x)}, spec("x", None, 3)
    )  # fmt: skip


@model
def v1_loop(path: str) -> None:
    """A loop of TensorFlow 1, with a reference variable."""
    v1.disable_control_flow_v2()
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 3], "x")
        w = v1.get_variable("w", initializer=tf.constant([[0.5, 0, 0], [0, 0.5, 0], [0.1, 0, 0.5]]), use_resource=False)
        _, y = v1.while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, tf.matmul(v, w)), [tf.constant(0), x])
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, path, {"x": x}, {"y": y})
    v1.enable_control_flow_v2()


@model
def asserts_constants(path: str) -> None:
    """An assertion that holds whatever is asked, and a message to the log."""

    def run(x: tf.Tensor) -> dict[str, tf.Tensor]:
        tf.debugging.Assert(tf.reduce_all(tf.constant([1, 2]) < 3), ["never", tf.constant("said")])
        tf.print("asked for", tf.shape(x))
        return {"y": x * 2}

    save(path, run, spec("x", None, 2))


def _image_classifier() -> keras.Model:
    keras.utils.set_random_seed(3)
    network = keras.Sequential([
        keras.Input([8, 8, 3], name="image"), keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.BatchNormalization(), keras.layers.Dropout(0.5), keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(5, activation="softmax"),
    ])  # fmt: skip
    network.compile("adam", "sparse_categorical_crossentropy")
    random = np.random.default_rng(0)
    network.fit(random.normal(size=[64, 8, 8, 3]), random.integers(0, 5, 64), epochs=3, verbose=0)
    return network


@model
def keras_export(path: str) -> None:
    """A trained classifier with batch normalisation and dropout, by `model.export`: signatures `serve` and another."""
    _image_classifier().export(path, verbose=False)


@model
def keras_saved(path: str) -> None:
    """The same by `tf.saved_model.save`, which TensorFlow's Session loader refuses."""
    tf.saved_model.save(_image_classifier(), path)


@model
def lstm(path: str) -> None:
    """A recurrent network over sequences of any length."""
    keras.utils.set_random_seed(4)
    network = keras.Sequential([keras.Input([None, 6], name="x"), keras.layers.LSTM(8), keras.layers.Dense(2)])
    network.export(path, verbose=False)


@model
def transformer(path: str) -> None:
    """Embedding, attention with a mask, and layer normalisation; batch and length are open."""
    keras.utils.set_random_seed(5)
    ids = keras.Input([None], dtype="int32", name="ids")
    mask = keras.Input([None], name="mask")
    x = keras.layers.Embedding(2000, 16)(ids)
    attended = keras.layers.MultiHeadAttention(2, 8)(x, x) * keras.ops.expand_dims(mask, -1)
    x = keras.layers.LayerNormalization()(x + attended)
    x = keras.layers.Dense(16, activation="gelu")(x)
    scores = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling1D()(x))
    keras.Model({"ids": ids, "mask": mask}, {"scores": scores}).export(path, verbose=False)


@model
def images_of_any_size(path: str) -> None:
    """A convolutional network with open height and width."""
    keras.utils.set_random_seed(6)
    network = keras.Sequential([
        keras.Input([None, None, 3], name="image"), keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
        keras.layers.MaxPooling2D(), keras.layers.Conv2D(8, 3, padding="same"), keras.layers.GlobalMaxPooling2D(),
        keras.layers.Dense(4),
    ])  # fmt: skip
    network.export(path, verbose=False)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for build in BUILDERS:
        if len(sys.argv) < 3 or build.__name__ in sys.argv[2:]:
            build(str(target / build.__name__))
