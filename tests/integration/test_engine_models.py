"""Models of every kind, asked for what TensorFlow itself answered when they were built."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from modelhost.v1 import model_pb2, tensor_pb2
from support.predict import (
    describe,
    error_of,
    expected,
    expected_variables,
    load,
    new_scope,
    numpy_dtype,
    predict,
    tensor,
)
from support.server import Stubs

RECORDED = [
    "control_flow",
    "defaults_complete",
    "dtypes",
    "equal_names",
    "keras_export",
    "keras_saved",
    "keras_file",
    "keras_words",
    "plumbing",
    "several",
    "shapes",
    "table",
    "table_turned",
    "v1_plumbing",
    "v1_reference",
    "v1_resource",
    "v1_words",
]
REACHABLE, COMPLETE = "reachable variables", "complete graph"
WITH_VARIABLES = ["equal_names", "keras_export", "keras_saved", "keras_file", "v1_reference"]


@pytest.fixture(scope="module")
def scope(stubs: Stubs) -> Iterator[str]:
    with new_scope(stubs, "engine-models") as name:
        yield name


@pytest.fixture(scope="module")
def hosted(models: Path, stubs: Stubs, scope: str) -> dict[str, model_pb2.Version]:
    sources = {name: models / name for name in [*RECORDED, "defaults", "identity", "half_plus_two"]}
    sources["keras_file"] = models / "keras_file.keras"
    return {name: load(stubs, scope, source, name) for name, source in sources.items()}


@pytest.mark.parametrize("model", RECORDED)
def test_a_model_answers_as_in_tensorflow(models, stubs, scope, hosted, model):
    cases = expected(models, model)
    assert cases
    for case in cases:
        outputs = predict(stubs, scope, model, case.signature, given=case.inputs)
        assert outputs.keys() == case.outputs.keys()
        for name, want in case.outputs.items():
            got = outputs[name]
            assert (got.shape, got.dtype) == (want.shape, want.dtype), name
            if want.dtype.kind in "fc" and model.startswith("keras"):
                np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
            elif want.dtype == object:
                assert got.tolist() == want.tolist()
            else:
                # Bit by bit: what only moves through the server must not change, NaN and signed zeros included.
                assert got.tobytes() == np.ascontiguousarray(want).tobytes(), name


@pytest.mark.parametrize("model", RECORDED)
def test_a_signature_is_described_as_it_behaves(models, stubs, scope, hosted, model):
    signatures = {signature.name: signature for signature in describe(stubs, scope, model).signatures}
    assert list(signatures) == sorted(signatures)
    for case in expected(models, model):
        described = signatures[case.signature]
        assert [spec.name for spec in described.inputs] == sorted(spec.name for spec in described.inputs)
        assert {spec.name for spec in described.inputs if not spec.optional} <= case.inputs.keys()
        assert [spec.name for spec in described.outputs] == sorted(case.outputs)
        values = {**{("in", k): v for k, v in case.inputs.items()}, **{("out", k): v for k, v in case.outputs.items()}}
        for side, specs in (("in", described.inputs), ("out", described.outputs)):
            for spec in specs:
                value = values.get((side, spec.name))
                if value is None:
                    assert spec.optional
                    continue
                assert numpy_dtype(spec.dtype) == value.dtype
                if not spec.unknown_rank:
                    assert len(spec.shape) == value.ndim
                    assert all(want in (-1, got) for want, got in zip(spec.shape, value.shape, strict=True))


@pytest.mark.parametrize(
    ("model", "loader"),
    [
        ("keras_export", REACHABLE),
        ("keras_saved", REACHABLE),
        ("keras_file", REACHABLE),
        ("dtypes", REACHABLE),
        ("table", REACHABLE),
        ("keras_words", REACHABLE),
        ("v1_words", REACHABLE),
        ("v1_reference", COMPLETE),
        ("v1_resource", COMPLETE),
        ("defaults_complete", COMPLETE),
        ("v1_plumbing", COMPLETE),
        ("plumbing", REACHABLE),
    ],
)
def test_the_loader_that_served_is_told(hosted, model, loader):
    assert (hosted[model].engine.engine, hosted[model].engine.loader) == (model_pb2.ENGINE_TENSORFLOW, loader)


@pytest.mark.parametrize("model", WITH_VARIABLES)
def test_only_one_copy_of_each_variable_is_loaded(models, stubs, scope, hosted, model):
    want = expected_variables(models, model)
    version = describe(stubs, scope, model)
    sizes = [numpy_dtype(dtype_number(dtype)).itemsize * int(np.prod(shape)) for dtype, shape in want]
    assert version.memory.variable_bytes == sum(sizes)
    assert sorted(variable.byte_size for variable in version.variables) == sorted(sizes)


@pytest.mark.parametrize("model", WITH_VARIABLES)
def test_every_variable_is_listed_once_with_dtype_and_shape(models, stubs, scope, hosted, model):
    variables = describe(stubs, scope, model).variables
    names = [variable.name for variable in variables]
    assert names == sorted(set(names))
    assert all(names)
    got = sorted((numpy_dtype(v.dtype).name, tuple(v.shape)) for v in variables)
    assert got == expected_variables(models, model)


def dtype_number(name: str) -> int:
    return tensor_pb2.DataType.Value(f"DATA_TYPE_{name.upper()}")


def test_variables_are_listed_only_when_asked_for(hosted):
    assert hosted["keras_export"].signatures
    assert not hosted["keras_export"].variables


def test_the_method_name_of_a_signature_is_kept(hosted):
    assert {signature.method_name for signature in hosted["v1_reference"].signatures} == {"tensorflow/serving/predict"}


DEFAULTS = {
    "none given": ({}, [[4, 8], [10, 14]]),
    "the first given": ({"scale": np.float32(1)}, [[2, 4], [4, 6]]),
    "the last given": ({"offset": np.float32([0, 0])}, [[3, 6], [9, 12]]),
    "all given": ({"scale": np.float32(1), "offset": np.float32([0, 0])}, [[1, 2], [3, 4]]),
}


@pytest.mark.parametrize(("given", "want"), DEFAULTS.values(), ids=DEFAULTS)
def test_an_input_with_a_default_may_be_left_out(stubs, scope, hosted, given, want):
    x = np.float32([[1, 2], [3, 4]])
    for _ in range(2):
        assert predict(stubs, scope, "defaults", x=x, **given)["y"].tolist() == want


def test_defaults_are_told_from_needs(hosted):
    (signature,) = hosted["defaults"].signatures
    assert {spec.name: spec.optional for spec in signature.inputs} == {"x": False, "scale": True, "offset": True}


def test_a_default_is_used_in_a_model_that_only_the_complete_loader_takes(stubs, scope, hosted):
    assert predict(stubs, scope, "defaults_complete", word=[b"b", b"zzz"])["y"].tolist() == [60.0, -3.0]


@pytest.mark.parametrize("wanted", [["upper"], ["b", "a"], ["count", "same", "a"], ["b", "b"]])
def test_only_the_outputs_asked_for_are_answered(models, stubs, scope, hosted, wanted):
    case = expected(models, "several")[0]
    outputs = predict(stubs, scope, "several", output_filter=wanted, given=case.inputs)
    assert outputs.keys() == set(wanted)
    for name in wanted:
        assert outputs[name].tolist() == case.outputs[name].tolist()


def test_the_only_signature_needs_no_name(models, stubs, scope):
    load(stubs, scope, models / "equal_names", "only")
    assert predict(stubs, scope, "only", x=np.float32(2))["y"].shape == (1,)


def test_a_signature_without_inputs_is_run_without_inputs(stubs, scope, hosted):
    assert predict(stubs, scope, "v1_plumbing", "constant")["answer"].tolist() == [42]


def test_two_inputs_that_are_one_tensor_must_be_equal(stubs, scope, hosted):
    for model in ("plumbing", "v1_plumbing"):
        inputs = {"a": np.float32([1, 2]), "b": np.float32([1, 3])}
        failure = error_of(lambda model=model, inputs=inputs: predict(stubs, scope, model, "two_names", given=inputs))
        assert (failure.code, failure.reason) == ("INVALID_ARGUMENT", "MODEL_REJECTED_INPUT")
        assert "'a'" in failure.message
        assert "'b'" in failure.message


@pytest.mark.parametrize(
    ("tags", "signatures"),
    [
        (["serve"], {"serving_default", "weights", "classify"}),
        (["serve", "gpu"], {"serving_default"}),
        (["gpu", "serve"], {"serving_default"}),
        (["train"], {"serving_default"}),
    ],
)
def test_the_meta_graph_with_the_tags_asked_for_is_loaded(models, stubs, scope, tags, signatures):
    name = "tags-" + "-".join(tags)
    version = load(stubs, scope, models / "v1_reference", name, options=model_pb2.LoadOptions(tags=tags))
    assert {signature.name for signature in version.signatures} == signatures
    assert list(version.options.tags) == tags
    assert predict(stubs, scope, name, x=np.float32([[1, 1]]))["y"].tolist() == [[4.5, 5.5]]


LARGE = {
    "10 MB of floats": (2_621_440,),
    "just large enough for shared memory": (16_384,),
    "just too small for it": (16_383,),
    "a page and a bit": (17_000,),
    "many dimensions": (64, 32, 16, 80),
}


@pytest.mark.parametrize("shape", LARGE.values(), ids=LARGE)
def test_a_large_tensor_comes_back_bit_by_bit(stubs, scope, hosted, shape):
    random = np.random.default_rng(1)
    for _ in range(3):
        # Any bits, so NaNs of all kinds, too.
        x = random.integers(0, 2**32, shape, np.uint32).view(np.float32)
        y = predict(stubs, scope, "identity", x=x)["y"]
        assert y.shape == x.shape
        assert y.tobytes() == x.tobytes()


@pytest.mark.parametrize("shape", [(10_000,), (100, 10), (0,), (3, 0), ()], ids=str)
def test_string_tensors_come_back_byte_by_byte(stubs, scope, hosted, shape):
    random = np.random.default_rng(2)
    x = np.empty(shape, object)
    x[...] = [b""] if x.ndim and x.size == 0 else b""
    for i in range(x.size):
        x.flat[i] = random.bytes(int(random.integers(0, 500)))
    y = predict(stubs, scope, "identity", "strings", x=tensor(x))["y"]
    assert y.shape == shape
    assert y.tolist() == x.tolist()


def test_a_string_of_10_mb_comes_back_byte_by_byte(stubs, scope, hosted):
    x = np.random.default_rng(3).bytes(10 << 20)
    assert predict(stubs, scope, "identity", "strings", x=[x, b"", x[:100]])["y"].tolist() == [x, b"", x[:100]]
