"""Builds the SavedModels that tests load. Usage: python build.py DIRECTORY (needs TensorFlow).

Each function builds one model into a directory of its own name; its docstring says what the model is for.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

BUILDERS: list[Callable[[str], None]] = []


def model(build: Callable[[str], None]) -> Callable[[str], None]:
    """Registers a builder."""
    BUILDERS.append(build)
    return build


def save(path: str, function: Callable[..., object], *specs: tf.TensorSpec, **variables: tf.Variable) -> None:
    """Saves a function as `serving_default`, with the variables it uses."""
    module = tf.Module()
    for name, variable in variables.items():
        setattr(module, name, variable)
    module.run = tf.function(function, input_signature=specs)
    tf.saved_model.save(module, path, signatures=module.run)


@model
def half_plus_two(path: str) -> None:
    """Y = 0.5 x + 2, TensorFlow Serving's own smallest model."""
    a, b = tf.Variable(0.5, name="a"), tf.Variable(2.0, name="b")
    save(path, lambda x: {"y": a * x + b}, tf.TensorSpec([None], tf.float32, "x"), a=a, b=b)


@model
def half_plus_three(path: str) -> None:
    """As half_plus_two, with variables of the same names and other values."""
    a, b = tf.Variable(0.5, name="a"), tf.Variable(3.0, name="b")
    save(path, lambda x: {"y": a * x + b}, tf.TensorSpec([None], tf.float32, "x"), a=a, b=b)


@model
def slow(path: str) -> None:
    """Counts to `steps` in a loop of matrix products (some ten microseconds a step), then answers `steps`."""

    def run(steps: tf.Tensor) -> dict[str, tf.Tensor]:
        noise = tf.random.stateless_uniform([64, 64], [1, 2])

        def body(i: tf.Tensor, m: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return i + 1, tf.linalg.l2_normalize(m @ noise)

        i, m = tf.while_loop(lambda i, m: i < steps, body, [tf.constant(0), noise])
        return {"steps": i + tf.cast(tf.reduce_sum(m) * 0, tf.int32)}

    save(path, run, tf.TensorSpec([], tf.int32, "steps"))


@model
def crasher(path: str) -> None:
    """Answers `n`; for n = 2**31 - 1 TensorFlow 2.21 aborts the process (an uncaught std::bad_alloc)."""

    def run(n: tf.Tensor) -> dict[str, tf.Tensor]:
        handle = tf.raw_ops.TensorListReserve(element_shape=tf.constant([-1]), num_elements=n, element_dtype=tf.float32)
        return {"n": tf.raw_ops.TensorListLength(input_handle=handle)}

    save(path, run, tf.TensorSpec([], tf.int32, "n"))


def record(path: str, *calls: tuple[str, dict[str, object], dict[str, object]]) -> None:
    """Stores calls beside the SavedModel: signature, inputs and what TensorFlow made of them."""
    arrays = {}
    for number, (signature, inputs, outputs) in enumerate(calls):
        for side, values in (("in", inputs), ("out", outputs)):
            for name, value in values.items():
                array = value.numpy() if hasattr(value, "numpy") else np.asarray(value)
                array = array if isinstance(array, np.ndarray) or hasattr(array, "dtype") else np.array(array, object)
                dtype = array.dtype.name
                key = json.dumps([number, signature, side, name, dtype]).replace("/", "|")
                # numpy's format does not know bfloat16.
                arrays[key] = np.asarray(array).view(np.uint16) if dtype == "bfloat16" else array
    np.savez(f"{path}.npz", **arrays)


def record_calls(path: str, *calls: tuple[str, dict[str, object]]) -> None:
    """Stores what the SavedModel's signatures answer, run by TensorFlow's own loader."""
    signatures = tf.saved_model.load(path).signatures
    results = []
    for signature, inputs in calls:
        fed = {name: tf.constant(value) for name, value in inputs.items()}
        results.append((signature, inputs, signatures[signature](**fed)))
    record(path, *results)


def record_variables(path: str, variables: Iterable[object]) -> None:
    """Stores dtype and shape of the variables that a model's signatures use."""
    listed = [[tf.as_dtype(v.dtype).name, list(v.shape)] for v in variables]
    Path(f"{path}.variables").write_text(json.dumps(listed))


def save_signatures(
    path: str, module: tf.Module, functions: dict[str, tf.types.experimental.PolymorphicFunction]
) -> None:
    """Saves a module with several signatures."""
    module.functions = functions
    tf.saved_model.save(module, path, signatures=functions)


DTYPES = [
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
    "bfloat16",
    "complex64",
    "complex128",
    "string",
]


def sample(name: str) -> np.ndarray:
    """Values of a dtype that are easily spoilt: extremes, signed zeros, NaN, strings with NUL and no UTF-8."""
    if name == "string":
        values = np.empty(5, object)
        values[:] = [b"", b"a\0b", b"\xff\xfe", "h\u00e9".encode(), b"x" * 1000]
        return values
    dtype = np.dtype(tf.as_dtype(name).as_numpy_dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.array([limits.min, limits.max, 0, 1, 7], dtype)
    if name == "bool":
        return np.array([True, False, False, True, True])
    values = np.array([-0.0, np.inf, -np.inf, np.nan, 1.0 / 3], np.float64)
    if dtype.kind == "c":
        return np.stack([values, values[::-1]], 1).view(np.complex128).reshape(-1).astype(dtype)
    return values.astype(dtype)


@model
def dtypes(path: str) -> None:
    """A signature for every dtype, of its name, that turns a vector by one place; and `all`, with all of them."""
    module = tf.Module()

    def turn(x: tf.Tensor) -> tf.Tensor:
        return tf.concat([x[1:], x[:1]], 0)

    functions = {
        name: tf.function(lambda x: {"y": turn(x)}, input_signature=[tf.TensorSpec([None], name, "x")])
        for name in DTYPES
    }
    functions["all"] = tf.function(
        lambda **inputs: {name.replace("in_", "out_"): turn(x) for name, x in inputs.items()}
    ).get_concrete_function(**{f"in_{name}": tf.TensorSpec([None], name, f"in_{name}") for name in DTYPES})
    save_signatures(path, module, functions)
    record_calls(
        path,
        *((name, {"x": sample(name)}) for name in DTYPES),
        *((name, {"x": sample(name)[:0]}) for name in DTYPES),
        ("all", {f"in_{name}": sample(name) for name in DTYPES}),
    )


@model
def shapes(path: str) -> None:
    """Signatures that differ in what they say of shapes."""
    module = tf.Module()

    def of(shape: list[int | None] | None) -> tf.types.experimental.PolymorphicFunction:
        return tf.function(
            lambda x: {"doubled": x * 2, "shape": tf.shape(x, tf.int64), "total": tf.reduce_sum(x)},
            input_signature=[tf.TensorSpec(shape, tf.float32, "x")],
        )

    functions = {
        "scalar": of([]),
        "fixed": of([2, 3]),
        "rows": of([None, 3]),
        "open": of([None, 3, None]),
        "unknown": of(None),
    }
    save_signatures(path, module, functions)
    arange = lambda *shape: np.arange(np.prod(shape), dtype=np.float32).reshape(shape)  # noqa: E731
    record_calls(
        path,
        ("scalar", {"x": np.float32(3.5)}),
        ("fixed", {"x": arange(2, 3)}),
        ("rows", {"x": arange(0, 3)}),
        ("rows", {"x": arange(1, 3)}),
        ("rows", {"x": arange(50, 3)}),
        ("open", {"x": arange(2, 3, 4)}),
        ("open", {"x": arange(2, 3, 0)}),
        ("unknown", {"x": np.float32(1)}),
        ("unknown", {"x": arange(0)}),
        ("unknown", {"x": arange(2, 1, 0, 3)}),
        ("unknown", {"x": arange(1, 2, 1, 2, 1, 2)}),
    )


@model
def several(path: str) -> None:
    """Several inputs and outputs of several dtypes; two outputs have names of inputs, one the other's."""
    specs = [
        tf.TensorSpec([None, 2], tf.float32, "a"),
        tf.TensorSpec([], tf.int64, "b"),
        tf.TensorSpec([None], tf.string, "words"),
    ]

    def run(a: tf.Tensor, b: tf.Tensor, words: tf.Tensor) -> dict[str, tf.Tensor]:
        scaled = a * tf.cast(b, tf.float32)
        return {
            "a": tf.cast(b, tf.float32) + 1,
            "b": scaled,
            "upper": tf.strings.upper(words),
            "count": tf.size(words),
            "same": tf.identity(words),
        }

    save(path, run, *specs)
    words = np.array([b"ab", b"c"], object)
    record_calls(
        path,
        ("serving_default", {"a": np.float32([[1, 2], [3, 4]]), "b": np.int64(3), "words": words}),
        ("serving_default", {"a": np.zeros([0, 2], np.float32), "b": np.int64(-1), "words": words[:0]}),
    )


@model
def identity(path: str) -> None:
    """Answers what it is given: floats, and in another signature strings."""
    functions = {
        "serving_default": tf.function(
            lambda x: {"y": tf.identity(x)}, input_signature=[tf.TensorSpec(None, tf.float32, "x")]
        ),
        "strings": tf.function(
            lambda x: {"y": tf.identity(x)}, input_signature=[tf.TensorSpec(None, tf.string, "x")]
        ),
    }  # fmt: skip
    save_signatures(path, tf.Module(), functions)


@model
def control_flow(path: str) -> None:
    """Steps of the Collatz sequence from n to 1: a loop around a branch; and the largest number on the way."""

    def run(n: tf.Tensor) -> dict[str, tf.Tensor]:
        def body(i: tf.Tensor, n: tf.Tensor, top: tf.Tensor) -> tuple[tf.Tensor, ...]:
            n = tf.cond(n % 2 == 0, lambda: n // 2, lambda: 3 * n + 1)
            return i + 1, n, tf.maximum(top, n)

        zero = tf.constant(0, tf.int64)
        i, _, top = tf.while_loop(lambda i, n, top: n > 1, body, [zero, n, n])
        return {"steps": i, "top": top}

    save(path, run, tf.TensorSpec([], tf.int64, "n"))
    record_calls(path, *(("serving_default", {"n": np.int64(n)}) for n in (1, 2, 7, 27)))


_THREE, _ONE_TWO = tf.constant(3.0), tf.constant([1.0, 2.0])


@model
def defaults(path: str) -> None:
    """Y = scale x + offset, where scale is 3 and offset is [1, 2] unless given."""

    def run(x: tf.Tensor, scale: tf.Tensor = _THREE, offset: tf.Tensor = _ONE_TWO) -> dict[str, tf.Tensor]:
        return {"y": x * scale + offset}

    specs = tf.TensorSpec([None, 2], name="x"), tf.TensorSpec([], name="scale"), tf.TensorSpec([2], name="offset")
    save(path, run, *specs)


@model
def defaults_complete(path: str) -> None:
    """As defaults, with a table that only the complete loader fills."""
    table = tf.lookup.experimental.MutableHashTable(tf.string, tf.float32, -1.0)
    table.insert(tf.constant(["a", "b"]), tf.constant([10.0, 20.0]))

    def run(word: tf.Tensor, scale: tf.Tensor = _THREE) -> dict[str, tf.Tensor]:
        return {"y": table.lookup(word) * scale}

    save(path, run, tf.TensorSpec([None], tf.string, "word"), tf.TensorSpec([], name="scale"), table=table)
    record_calls(path, ("serving_default", {"word": np.array([b"a", b"b", b"c"], object), "scale": np.float32(2)}))


def _asset_table(path: str, words: list[str]) -> None:
    vocabulary = Path(f"{path}.words")
    vocabulary.write_text("\n".join(words))
    initialiser = tf.lookup.TextFileInitializer(
        str(vocabulary), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
    )
    table = tf.lookup.StaticHashTable(initialiser, -1, name="words")
    save(
        path, lambda word: {"id": table.lookup(word)}, tf.TensorSpec([None], tf.string, "word"),
        table=table, asset=tf.saved_model.Asset(str(vocabulary)),
    )  # fmt: skip
    record_calls(path, ("serving_default", {"word": np.array([b"apple", b"pear", b"fig", b"nothing"], object)}))
    # The model has its own copy: nobody may look here any more.
    vocabulary.write_text("wrong\nfile")


@model
def table(path: str) -> None:
    """Numbers of words, by a table that is filled from an asset."""
    _asset_table(path, ["apple", "pear", "fig"])


@model
def table_turned(path: str) -> None:
    """As table, under the same names, with other numbers."""
    _asset_table(path, ["fig", "apple", "pear"])


@model
def counter(path: str) -> None:
    """Adds `by` to a variable that outlives the call, and answers its value."""
    n = tf.Variable(0, dtype=tf.int64, name="counter")
    save(path, lambda by: {"n": n.assign_add(by, use_locking=True)}, tf.TensorSpec([], tf.int64, "by"), n=n)


@model
def retain(path: str) -> None:
    """`swap` keeps its input and answers the one before; `add` adds to what is kept; `swap_or_fail` keeps its input
    and then fails if told to.
    """
    kept = tf.Variable(tf.zeros([0]), shape=tf.TensorShape([None]), name="kept")
    spec = tf.TensorSpec([None], tf.float32, "x")

    def swap(x: tf.Tensor) -> dict[str, tf.Tensor]:
        before = tf.identity(kept.read_value())
        with tf.control_dependencies([before]):
            kept.assign(x)
        return {"before": before}

    def swap_or_fail(x: tf.Tensor, fail: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.control_dependencies([kept.assign(x)]):
            tf.debugging.Assert(tf.logical_not(fail), ["told to fail"])
        return {"size": tf.size(x)}

    module = tf.Module()
    module.kept = kept
    functions = {
        "swap": tf.function(swap, input_signature=[spec]),
        "add": tf.function(
            lambda by: {"kept": kept.assign_add(by)}, input_signature=[tf.TensorSpec([None], name="by")]
        ),
        "read": tf.function(lambda: {"kept": tf.identity(kept)}, input_signature=[]),
        "swap_or_fail": tf.function(swap_or_fail, input_signature=[spec, tf.TensorSpec([], tf.bool, "fail")]),
    }
    save_signatures(path, module, functions)


@model
def hungry(path: str) -> None:
    """`take` has `n` random numbers in memory while it runs, and answers their sum; `keep` keeps a tensor of `n`
    numbers for good, and answers how many tensors it has.
    """

    def keep(n: tf.Tensor) -> dict[str, tf.Tensor]:
        queue = tf.raw_ops.FIFOQueueV2(component_types=[tf.float32], shared_name="kept")
        with tf.control_dependencies([tf.raw_ops.QueueEnqueueV2(handle=queue, components=[tf.ones([n])])]):
            return {"kept": tf.raw_ops.QueueSizeV2(handle=queue)}

    functions = {"take": lambda n: {"sum": tf.reduce_sum(tf.random.uniform([n]))}, "keep": keep}
    spec = [tf.TensorSpec([], tf.int32, "n")]
    save_signatures(path, tf.Module(), {name: tf.function(f, input_signature=spec) for name, f in functions.items()})


def _resources(path: str, step: int) -> None:
    def run(x: tf.Tensor) -> dict[str, tf.Tensor]:
        handle = tf.raw_ops.VarHandleOp(dtype=tf.int64, shape=[], shared_name="counter")
        there = tf.raw_ops.VarIsInitializedOp(resource=handle)
        start = tf.cond(
            there, lambda: tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.int64), lambda: tf.constant(0, tf.int64)
        )
        with tf.control_dependencies([start]):
            assign = tf.raw_ops.AssignVariableOp(resource=handle, value=start + step)
        with tf.control_dependencies([assign]):
            counted = tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.int64)
        table = tf.raw_ops.MutableHashTableV2(key_dtype=tf.int64, value_dtype=tf.int64, shared_name="seen")
        insert = tf.raw_ops.LookupTableInsertV2(table_handle=table, keys=x, values=x * step)
        with tf.control_dependencies([insert]):
            size = tf.raw_ops.LookupTableSizeV2(table_handle=table)
        with tf.control_dependencies([insert]):
            found = tf.raw_ops.LookupTableFindV2(table_handle=table, keys=x, default_value=tf.constant(-1, tf.int64))
        queue = tf.raw_ops.FIFOQueueV2(component_types=[tf.int64], shared_name="queue", capacity=1000)
        put = tf.raw_ops.QueueEnqueueV2(handle=queue, components=[x])
        with tf.control_dependencies([put]):
            queued = tf.raw_ops.QueueSizeV2(handle=queue)
        return {"counted": counted, "seen": size, "found": found, "queued": queued}

    save(path, run, tf.TensorSpec([None], tf.int64, "x"))


@model
def resources(path: str) -> None:
    """A variable, a table and a queue that live in the session's resources under fixed names; counts by 1."""
    _resources(path, 1)


@model
def resources_too(path: str) -> None:
    """As resources, under the same names; counts by 100."""
    _resources(path, 100)


@model
def equal_names(path: str) -> None:
    """Three variables of one name within a model."""
    a, b, c = (tf.Variable([float(i)], name="v") for i in (1, 10, 100))
    save(path, lambda x: {"y": a * x * x + b * x + c}, tf.TensorSpec([], tf.float32, "x"), a=a, b=b, c=c)
    record_calls(path, ("serving_default", {"x": np.float32(2)}))
    record_variables(path, [a, b, c])


@model
def refusing(path: str) -> None:
    """Signatures whose graphs refuse some inputs, or fail for reasons of their own."""

    def checked(x: tf.Tensor) -> dict[str, tf.Tensor]:
        message = "x must be positive"
        with tf.control_dependencies([tf.debugging.assert_positive(x, message=message)]):
            return {"y": tf.identity(x)}

    def loud(x: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(x > 0), ["\u7121\u7406" * 3000])]):
            return {"y": tf.identity(x)}

    floats, integers = tf.TensorSpec([None], tf.float32, "x"), tf.TensorSpec([None], tf.int32, "x")
    save_signatures(path, tf.Module(), {
        "assert": tf.function(checked, input_signature=[floats]),
        "loud": tf.function(loud, input_signature=[floats]),
        "reshape": tf.function(lambda x: {"y": tf.reshape(x, [2, 3])}, input_signature=[floats]),
        "gather": tf.function(lambda x: {"y": tf.gather([1.0, 2.0], x)}, input_signature=[integers]),
        "divide": tf.function(lambda x: {"y": 1 // x}, input_signature=[integers]),
        "file": tf.function(
            lambda x: {"y": tf.io.read_file("/nowhere/at/all"), "x": tf.identity(x)}, input_signature=[floats]
        ),
    })  # fmt: skip


@model
def wide(path: str) -> None:
    """400 inputs and 400 outputs with long names, as tabular models have."""
    names = [f"feature_with_a_rather_long_name_{i:03d}" for i in range(400)]
    specs = {name: tf.TensorSpec([None], tf.float32, name) for name in names}
    run = tf.function(lambda **x: {f"{name}_scaled": x[name] * i for i, name in enumerate(names)})
    module = tf.Module()
    module.run = run
    tf.saved_model.save(module, path, signatures=run.get_concrete_function(**specs))


@model
def many_signatures(path: str) -> None:
    """300 signatures with long names."""
    module = tf.Module()
    module.run = tf.function(lambda x: {"y": x}, input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    functions = {f"signature_with_a_rather_long_name_{i:03d}": module.run for i in range(300)}
    tf.saved_model.save(module, path, signatures=functions)


@model
def without_signatures(path: str) -> None:
    """A SavedModel that nobody can call."""
    module = tf.Module()
    module.v = tf.Variable(1.0)
    tf.saved_model.save(module, path)


@model
def float8(path: str) -> None:
    """A dtype that numpy does not share."""
    save(path, lambda x: {"y": tf.cast(x, tf.dtypes.experimental.float8_e5m2)}, tf.TensorSpec([None], tf.float32, "x"))


# Keras


def _keras_model() -> keras.Model:
    """Two inputs, two outputs, a weight of every usual kind, and an optimizer with slots."""
    image, side = keras.Input([8, 8, 3], name="image"), keras.Input([4], name="side")
    x = keras.layers.Conv2D(4, 3, activation="relu")(image)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Concatenate()([x, keras.layers.Dense(4)(side)])
    x = keras.layers.Dense(64, activation="gelu")(x)
    recurrent = keras.layers.GRU(5)(keras.layers.Reshape([8, 8])(x))
    outputs = {"classes": keras.layers.Dense(3, activation="softmax", name="classes")(x), "state": recurrent}
    network = keras.Model({"image": image, "side": side}, outputs)
    network.compile("adam", loss={"classes": "mse", "state": "mse"})
    network.fit(*_keras_batch(4), verbose=0)
    return network


def _keras_batch(rows: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    random = np.random.default_rng(rows)
    inputs = {"image": random.normal(size=[rows, 8, 8, 3]), "side": random.normal(size=[rows, 4])}
    outputs = {"classes": random.uniform(size=[rows, 3]), "state": random.uniform(size=[rows, 5])}
    return tuple({k: v.astype(np.float32) for k, v in side.items()} for side in (inputs, outputs))


def _record_keras(path: str, network: keras.Model, signature: str = "serving_default") -> None:
    record(path, *((signature, b, network(b, training=False)) for b in (_keras_batch(rows)[0] for rows in (1, 5))))
    record_variables(path, [v for v in network.variables if "seed" not in v.path])


@model
def keras_export(path: str) -> None:
    """`model.export` of a trained Keras model: stores every weight twice."""
    network = _keras_model()
    network.export(path, verbose=False)
    _record_keras(path, network)


@model
def keras_saved(path: str) -> None:
    """`tf.saved_model.save` of a trained Keras model, which TensorFlow's Session loader refuses."""
    network = _keras_model()
    tf.saved_model.save(network, path)
    _record_keras(path, network)
    # Keras names the inputs itself here.
    batches = [_keras_batch(rows)[0] for rows in (1, 5)]
    record_calls(path, *(("serving_default", {"inputs": b["image"], "inputs_1": b["side"]}) for b in batches))


@model
def keras_file(path: str) -> None:
    """A `.keras` file."""
    network = _keras_model()
    network.save(f"{path}.keras")
    _record_keras(path, network)


@model
def keras_words(path: str) -> None:
    """Keras layers that hold tables: StringLookup and TextVectorization."""
    words = keras.Input([1], dtype="string", name="word")
    text = keras.Input([], dtype="string", name="text")
    lookup = keras.layers.StringLookup(vocabulary=["red", "green", "blue"], num_oov_indices=1)
    vectorize = keras.layers.TextVectorization(output_mode="int", output_sequence_length=6)
    vectorize.adapt(["the quick brown fox", "the lazy dog", "the end"])
    outputs = {"word_id": lookup(words), "text_ids": vectorize(text)}
    network = keras.Model({"word": words, "text": text}, outputs)
    network.export(path, verbose=False)
    inputs = {
        "word": np.array([[b"green"], [b"pink"]], object),
        "text": np.array([b"The quick, lazy end!", b"what dog"], object),
    }
    outputs = network({name: tf.constant(value) for name, value in inputs.items()})
    record(path, ("serving_default", inputs, outputs))


# TensorFlow 1

v1 = tf.compat.v1


def save_v1(
    path: str,
    build: Callable[[v1.Session], dict[str, tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]]],
    calls: list[tuple[str, dict[str, object]]],
    tags: tuple[tuple[str, ...], ...] = (("serve",),),
    resource_variables: bool = False,
) -> None:
    """Saves a graph of TensorFlow 1's as it used to be done, and records what a session answers."""
    with v1.Graph().as_default(), v1.Session() as session:
        with v1.variable_scope("", use_resource=resource_variables):
            signatures = build(session)
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        definitions = {
            name: v1.saved_model.signature_def_utils.build_signature_def(
                {key: v1.saved_model.utils.build_tensor_info(value) for key, value in inputs.items()},
                {key: v1.saved_model.utils.build_tensor_info(value) for key, value in outputs.items()},
                "tensorflow/serving/predict",
            )
            for name, (inputs, outputs) in signatures.items()
        }
        builder = v1.saved_model.Builder(path)
        assets = v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS) or None
        builder.add_meta_graph_and_variables(
            session, list(tags[0]), definitions, assets_collection=assets, main_op=v1.tables_initializer()
        )
        for more in tags[1:]:
            builder.add_meta_graph(list(more), dict(list(definitions.items())[:1]), assets_collection=assets)
        builder.save()
        results = []
        for name, fed in calls:
            inputs, outputs = signatures[name]
            feeds = {inputs[key]: value for key, value in fed.items()}
            results.append((name, fed, session.run(outputs, feeds)))
    if calls:
        record(path, *results)


def _linear_v1(session: v1.Session) -> dict[str, tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]]:
    x = v1.placeholder(tf.float32, [None, 2], "x")
    w = v1.get_variable("w", initializer=tf.constant([[1.0, 2.0], [3.0, 4.0]]))
    b = v1.get_variable("b", initializer=tf.constant([0.5, -0.5]))
    y = tf.matmul(x, w) + b
    return {
        "serving_default": ({"x": x}, {"y": y}),
        "weights": ({}, {"w": w, "b": b}),
        "classify": ({"inputs": x}, {"best": tf.argmax(y, 1), "scores": tf.nn.softmax(y)}),
    }


@model
def v1_reference(path: str) -> None:
    """Reference variables, three signatures (one of them reads the variables), three sets of tags."""
    batch = np.float32([[1, 1], [-1, 2]])
    calls = [("serving_default", {"x": batch}), ("weights", {}), ("classify", {"inputs": batch})]
    save_v1(path, _linear_v1, calls, tags=(("serve",), ("serve", "gpu"), ("train",)))
    Path(f"{path}.variables").write_text(json.dumps([["float32", [2, 2]], ["float32", [2]]]))


@model
def v1_resource(path: str) -> None:
    """As v1_reference, with resource variables."""
    save_v1(path, _linear_v1, [("serving_default", {"x": np.float32([[1, 1]])})], resource_variables=True)


@model
def v1_words(path: str) -> None:
    """A table filled from an asset by the main op."""
    vocabulary = Path(f"{path}.words")
    vocabulary.write_text("apple\npear\nfig")

    def build(session: v1.Session) -> dict[str, tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]]:
        asset = tf.constant(str(vocabulary))
        index = tf.lookup.TextFileIndex
        initialiser = tf.lookup.TextFileInitializer(asset, tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER)
        words = v1.placeholder(tf.string, [None], "words")
        return {"serving_default": ({"words": words}, {"id": tf.lookup.StaticHashTable(initialiser, -1).lookup(words)})}

    save_v1(path, build, [("serving_default", {"words": np.array([b"fig", b"apple", b"?"], object)})])
    vocabulary.write_text("wrong\nfile")


def _plumbing(session: v1.Session) -> dict[str, tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]]:
    x, z = v1.placeholder(tf.float32, [None], "x"), v1.placeholder(tf.float32, [None], "z")
    rate = v1.placeholder_with_default(tf.constant(0.25), [], "rate")
    bias = v1.get_variable("bias", initializer=tf.constant(1.0))
    y = x * rate + bias
    return {
        "identity": ({"x": x}, {"x": x}),
        "crossed": ({"x": x, "z": z}, {"x": z, "z": x, "sum": x + z}),
        "optional": ({"x": x, "rate": rate}, {"y": y, "rate": rate}),
        "twice": ({"x": x}, {"y": y, "y_again": y, "x": x}),
        "constant": ({}, {"answer": tf.constant([42])}),
        "two_names": ({"a": x, "b": x}, {"y": y}),
    }


_PLUMBING_CALLS: list[tuple[str, dict[str, object]]] = [
    ("identity", {"x": np.float32([1, 2])}),
    ("crossed", {"x": np.float32([1, 2]), "z": np.float32([3, 4])}),
    ("optional", {"x": np.float32([1, 2])}),
    ("optional", {"x": np.float32([1, 2]), "rate": np.float32(2)}),
    ("twice", {"x": np.float32([1, 2])}),
    ("constant", {}),
    ("two_names", {"a": np.float32([1, 2]), "b": np.float32([1, 2])}),
]


@model
def v1_plumbing(path: str) -> None:
    """Signatures that a session does not take literally: inputs that are outputs, outputs and inputs of two names."""
    save_v1(path, _plumbing, _PLUMBING_CALLS)


@model
def v1_sparse(path: str) -> None:
    """A signature with a sparse input."""

    def build(session: v1.Session) -> dict[str, tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]]:
        sparse = v1.sparse_placeholder(tf.float32, [None, 3], "sparse")
        v1.get_variable("unused", initializer=tf.constant(1.0))
        return {"serving_default": ({"sparse": sparse}, {"sum": tf.sparse.reduce_sum(sparse)})}

    save_v1(path, build, [])


@model
def plumbing(path: str) -> None:
    """The same without variables, which is loaded the other way."""

    def build(session: v1.Session) -> dict[str, tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]]:
        signatures = _plumbing(session)
        x = signatures["identity"][0]["x"]
        return {name: s for name, s in signatures.items() if name in ("identity", "crossed", "constant")} | {
            "two_names": ({"a": x, "b": x}, {"y": x * 2, "also_y": tf.identity(x)})
        }

    save_v1(path, build, [call for call in _PLUMBING_CALLS if call[0] not in ("optional", "twice")])


def main(directory: Path) -> None:
    """Builds all."""
    directory.mkdir(parents=True, exist_ok=True)
    np.random.seed(0)
    keras.utils.set_random_seed(0)
    for build in BUILDERS:
        shutil.rmtree(directory / build.__name__, ignore_errors=True)
        build(str(directory / build.__name__))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
