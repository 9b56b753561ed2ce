"""Builds models whose weights are shared, or must not be. Usage: python build_weights.py DIRECTORY (needs TensorFlow).

Each has the signature `serving_default`; what TensorFlow itself answers is in `NAME.npz`, by the outputs' names.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

WIDE = 200  # WIDE * WIDE floats are 160 kB: a file of their own.


def save(path: Path, module: tf.Module, inputs: dict[str, np.ndarray]) -> None:
    """Saves `module.run`, and what it answers."""
    tf.saved_model.save(module, str(path), signatures=module.run)
    if inputs:
        outputs = tf.saved_model.load(str(path)).signatures["serving_default"](
            **{name: tf.constant(value) for name, value in inputs.items()}
        )
        np.savez(f"{path}.npz", **{name: value.numpy() for name, value in outputs.items()})


def tuned(directory: Path) -> None:
    """`tuned_0` and `tuned_1`: two dense layers, of which the second differs. Built again from scratch, so that the
    names of their functions differ, too. `tuned_taller` has one row of weights more.
    """
    random = np.random.default_rng(0)
    shared = random.normal(size=(WIDE, WIDE)).astype(np.float32)

    def build(name: str, first: np.ndarray) -> None:
        module = tf.Module()
        module.first = tf.Variable(first, name="first")
        module.second = tf.Variable(random.normal(size=(WIDE, WIDE)).astype(np.float32), name="second")
        module.bias = tf.Variable(random.normal(size=WIDE).astype(np.float32), name="bias")
        module.run = tf.function(
            lambda x: {"y": tf.nn.relu(x @ module.first) @ module.second + module.bias},
            input_signature=[tf.TensorSpec([None, len(first)], tf.float32, "x")],
        )
        save(directory / name, module, {"x": np.ones((2, len(first)), np.float32)})

    build("tuned_0", shared)
    build("tuned_1", shared)
    build("tuned_taller", random.normal(size=(WIDE + 1, WIDE)).astype(np.float32))


def embedding(directory: Path) -> None:
    """Reads rows of a variable."""
    module = tf.Module()
    module.table = tf.Variable(np.random.default_rng(1).normal(size=(1000, 40)).astype(np.float32))
    module.run = tf.function(
        lambda ids: {"rows": tf.nn.embedding_lookup(module.table, ids)},
        input_signature=[tf.TensorSpec([None, None], tf.int64, "ids")],
    )
    save(directory / "embedding", module, {"ids": np.int64([[0, 999, 5], [5, 6, 7]])})


def recurrent(directory: Path) -> None:
    """Variables that a loop captures."""
    network = keras.Sequential([keras.Input([None, 30], name="x"), keras.layers.GRU(150), keras.layers.Dense(3)])
    path = directory / "recurrent"
    network.export(str(path), verbose=False)
    x = np.random.default_rng(2).normal(size=(2, 7, 30)).astype(np.float32)
    np.savez(f"{path}.npz", x=x, output_0=network(x).numpy())


def dtypes(directory: Path) -> None:
    """Variables of every dtype, shape and size; each is an output of its own."""
    module, values = tf.Module(), {}
    names = (
        "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 bfloat16 complex64 complex128"
    )
    for name in [*names.split(), "string"]:
        dtype = tf.as_dtype(name)
        for kind, shape in (("scalar", ()), ("empty", (0, 3)), ("small", (3, 5)), ("large", (300, 301))):
            if name == "string" and kind == "large":
                continue
            size = int(np.prod(shape))
            if name == "string":
                value = tf.constant([b"a\0b", b"", b"\xff" * 100] * size, dtype, shape=None)[:size]
            else:
                value = tf.cast(tf.constant(np.arange(size) % 251 + 1), dtype)
            values[f"{name}_{kind}"] = tf.Variable(tf.reshape(value, shape))
    module.held = values
    module.run = tf.function(lambda: {key: tf.identity(value) for key, value in values.items()}, input_signature=[])
    path = directory / "dtypes"
    tf.saved_model.save(module, str(path), signatures=module.run)
    bits = {
        key: np.frombuffer(value.numpy().tobytes(), np.uint8) for key, value in values.items() if "string" not in key
    }
    np.savez(f"{path}.npz", **bits)


def changing(directory: Path) -> None:
    """Models that change a variable of 160 kB in each of the ways there are; all begin with the same value."""
    ones = np.ones((WIDE, WIDE), np.float32)

    def added(v: tf.Variable, x: tf.Tensor) -> tf.Tensor:
        return v.assign_add(tf.fill([WIDE, WIDE], x))

    def scattered(v: tf.Variable, x: tf.Tensor) -> tf.Tensor:
        return v.scatter_nd_add(tf.constant([[0, 0]]), tf.reshape(x, [1]))

    def sliced(v: tf.Variable, x: tf.Tensor) -> tf.Tensor:
        return v[0, 0].assign(v[0, 0] + x)

    def in_place(v: tf.Variable, x: tf.Tensor) -> tf.Tensor:
        # TensorFlow calls this op stateless, and yet it writes to its input's memory.
        row = tf.reshape(tf.fill([WIDE], x), [1, WIDE])
        return tf.raw_ops.InplaceAdd(x=v.read_value(), i=tf.constant([0]), v=row)

    def branched(v: tf.Variable, x: tf.Tensor) -> tf.Tensor:
        return tf.cond(x > 0, lambda: v.assign_add(tf.fill([WIDE, WIDE], x)), lambda: v.read_value())

    def build(change: Callable[[tf.Variable, tf.Tensor], tf.Tensor]) -> None:
        module = tf.Module()
        module.v = tf.Variable(ones)
        module.run = tf.function(
            lambda x: {"first": tf.identity(change(module.v, x))[0, 0]},
            input_signature=[tf.TensorSpec([], tf.float32, "x")],
        )
        save(directory / change.__name__, module, {})

    for change in (added, scattered, sliced, in_place, branched):
        build(change)
    module = tf.Module()
    module.v = tf.Variable(ones)
    module.run = tf.function(lambda: {"v": tf.identity(module.v)}, input_signature=[])
    save(directory / "reading", module, {})


def tellers(directory: Path) -> None:
    """`teller_0` to `teller_5`: each answers its number, by 6 MB of weights that all its runs read."""

    def build(number: int) -> None:
        module = tf.Module()
        module.weights = tf.Variable(np.full((1000, 1500), number / 1000, np.float32))
        module.run = tf.function(
            lambda x: {"y": x @ module.weights}, input_signature=[tf.TensorSpec([None, 1000], tf.float32, "x")]
        )
        save(directory / f"teller_{number}", module, {})

    for number in range(6):
        build(number)


def effects(directory: Path) -> None:
    """Models that leave a trace elsewhere than in variables, named `trace_...`, and some that leave none."""

    def one(name: str, run: object) -> None:
        module = tf.Module()
        module.run = tf.function(run, input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        save(directory / name, module, {})

    def printing(x: tf.Tensor) -> dict[str, tf.Tensor]:
        tf.print(x)
        return {"y": x + 1}

    def queueing(x: tf.Tensor) -> dict[str, tf.Tensor]:
        queue = tf.raw_ops.FIFOQueueV2(component_types=[tf.float32], shared_name="q")
        tf.raw_ops.QueueEnqueueV2(handle=queue, components=[x])
        return {"y": x + 1}

    def filling(x: tf.Tensor) -> dict[str, tf.Tensor]:
        table = tf.raw_ops.MutableHashTableV2(key_dtype=tf.int64, value_dtype=tf.float32, shared_name="t")
        tf.raw_ops.LookupTableInsertV2(table_handle=table, keys=tf.constant([1], tf.int64), values=x[:1])
        return {"y": x + 1}

    def asserting(x: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(x < 100), [x])]):
            return {"y": x + 1}

    def stateless(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x + tf.random.stateless_uniform([1], [1, 2])}

    one("trace_random", lambda x: {"y": x + tf.random.uniform([1])})
    one("trace_print", printing)
    one("trace_queue", queueing)
    one("trace_table", filling)
    one("assert", asserting)
    one("stateless_random", stateless)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    for build in (tuned, embedding, recurrent, dtypes, changing, effects, tellers):
        build(target)
