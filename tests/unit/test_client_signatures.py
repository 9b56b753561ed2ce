"""Inputs made to fit a signature."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from modelhost import (
    InvalidInputError,
    ModelFailedError,
    ModelInfo,
    NotFoundError,
    SignatureInfo,
    TensorInfo,
    UnavailableError,
    VersionInfo,
)
from modelhost._messages import version_info
from modelhost._names import ModelRef
from modelhost._signatures import find_signature, needs_signature, to_arrays
from modelhost._tensors import from_message, to_message
from modelhost.v1 import model_pb2


def signature(*inputs: TensorInfo, name: str = "serving_default") -> SignatureInfo:
    return SignatureInfo(name, {info.name: info for info in inputs}, {})


def fitted(dtype: str, value: Any, shape: tuple[int | None, ...] | None = None) -> np.ndarray[Any, Any]:
    arrays = to_arrays({"x": value}, signature(TensorInfo("x", dtype, shape)))
    return from_message(to_message(arrays["x"], "x"))


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("float32", [1, 2.5]),
        ("float16", 1.5),
        ("bfloat16", [1.5, 2]),
        ("float64", (1, 2)),
        ("int8", [-128, 127]),
        ("uint8", [0, 255]),
        ("uint64", [2**64 - 1]),
        ("int64", -(2**63)),
        ("bool", [True, False]),
        ("complex64", [1, 2j]),
        ("float32", []),
        ("int32", [[], []]),
    ],
)
def test_lists_become_what_the_model_wants(dtype: str, value: Any) -> None:
    array = fitted(dtype, value)
    assert array.dtype.name == dtype
    assert array.tolist() == np.asarray(value).tolist()


def test_lists_of_strings_keep_every_byte() -> None:
    assert fitted("string", ["é", b"\xff\x00"]).tolist() == ["é".encode(), b"\xff\x00"]
    assert fitted("string", "scalar").tolist() == b"scalar"


@pytest.mark.parametrize(
    ("dtype", "value", "got"),
    [
        ("int32", [1.5], "float64 values"),
        ("int8", [128], r"outside -128\.\.127"),
        ("uint8", [-1], r"outside 0\.\.255"),
        ("int64", [2**63], "outside"),
        ("int64", [2**70], "huge"),
        ("float32", [1e39], "beyond the range"),
        ("float32", ["1.0"], "string values"),
        ("float32", [True], "bool values"),
        ("bool", [1], "int64 values"),
        ("float32", [1j], "complex128 values"),
        ("float32", [None], "mixed"),
        ("float32", [[1], [2, 3]], "unequal lengths"),
        ("string", [1], "int"),
    ],
)
def test_lists_that_would_lose_something(dtype: str, value: Any, got: str) -> None:
    with pytest.raises(InvalidInputError, match=f"input 'x': .*{got}"):
        fitted(dtype, value)


@pytest.mark.parametrize("got", ["float64", "float16", "int32"])
def test_arrays_are_never_cast(got: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"expected float32 \[\?\]; got {got} \[2\]; .*astype\('float32'\)"):
        fitted("float32", np.zeros(2, got), (None,))


def test_big_endian_arrays_have_the_right_dtype() -> None:
    assert fitted("int32", np.array([1, 2], ">i4")).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("shape", "got", "fits"),
    [
        (None, (1, 2, 3), True),
        ((), (), True),
        ((), (1,), False),
        ((None,), (0,), True),
        ((None, 3), (7, 3), True),
        ((None, 3), (7, 4), False),
        ((None, 3), (3,), False),
    ],
)
def test_shapes(shape: tuple[int | None, ...] | None, got: tuple[int, ...], fits: bool) -> None:
    array = np.zeros(got, np.float32)
    if fits:
        assert fitted("float32", array, shape).shape == got
    else:
        with pytest.raises(InvalidInputError) as caught:
            fitted("float32", array, shape)
        assert caught.value.reason == "INPUT_SHAPE_MISMATCH"


A, B = TensorInfo("a", "float32", (None,)), TensorInfo("b", "float32", (None,), optional=True)


def test_a_bare_array_is_the_only_required_input() -> None:
    assert set(to_arrays([1.0], signature(A))) == {"a"}
    assert set(to_arrays([1.0], signature(A, B))) == {"a"}
    assert set(to_arrays([1.0], signature(B))) == {"b"}
    with pytest.raises(InvalidInputError, match=r"by name .*inputs a \(float32 \[\?\]\), c"):
        to_arrays([1.0], signature(A, replace(A, name="c")))


def test_names_are_checked() -> None:
    assert set(to_arrays({"a": [1.0], "b": [2.0]}, signature(A, B))) == {"a", "b"}
    with pytest.raises(InvalidInputError, match=r"no input 'z'; it has: a \(float32 \[\?\]\)"):
        to_arrays({"a": [1.0], "z": [1.0]}, signature(A))
    with pytest.raises(InvalidInputError, match=r"'a' is missing: expected float32"):
        to_arrays({"b": [1.0]}, signature(A, B))


@pytest.mark.parametrize(
    ("inputs", "needed"),
    [
        ({"x": np.zeros(1)}, False),
        ({"x": np.float32(1)}, False),
        ({}, False),
        ({"x": np.zeros(1), "y": [1]}, True),
        ({"x": 1}, True),
        (np.zeros(1), True),
        ([1], True),
    ],
)
def test_when_the_signature_is_needed(inputs: Any, needed: bool) -> None:
    assert needs_signature(inputs) is needed


def version(number: int, state: int, *signatures: str) -> VersionInfo:
    message = model_pb2.Version(version=number, state=state)  # type: ignore[arg-type]
    for name in signatures:
        message.signatures.add(name=name)
    return version_info("default", "m", message)


LOADING, AVAILABLE, FAILED = 1, 2, 5
REF = ModelRef("default", "m")


def test_which_signature_is_meant() -> None:
    info = ModelInfo(
        "default",
        "m",
        (version(3, LOADING), version(2, AVAILABLE, "serving_default", "b"), version(1, AVAILABLE, "a")),
        {"old": 1},
    )
    assert find_signature(info, REF, "").name == "serving_default"
    assert find_signature(info, REF, "b").name == "b"
    assert find_signature(info, REF._replace(version=1), "").name == "a"
    assert find_signature(info, REF._replace(label="old"), "").name == "a"
    with pytest.raises(NotFoundError, match=r"no signature 'c'; it has: serving_default, b"):
        find_signature(info, REF, "c")
    with pytest.raises(NotFoundError, match="version 9"):
        find_signature(info, REF._replace(version=9), "")
    with pytest.raises(NotFoundError, match="no label 'new'; it has: old"):
        find_signature(info, REF._replace(label="new"), "")
    with pytest.raises(UnavailableError, match="version 3 is LOADING"):
        find_signature(info, REF._replace(version=3), "")


def test_a_model_that_failed_says_why() -> None:
    failed = version(1, FAILED)
    with pytest.raises(ModelFailedError, match="failed to load"):
        find_signature(ModelInfo("default", "m", (failed,), {}), REF, "")
    why = ModelFailedError("out of paper", reason="VERSION_FAILED")
    with pytest.raises(ModelFailedError, match="out of paper"):
        find_signature(ModelInfo("default", "m", (replace(failed, error=why),), {}), REF, "")


def test_several_signatures_and_none_is_the_default() -> None:
    info = ModelInfo("default", "m", (version(1, AVAILABLE, "a", "b"),), {})
    with pytest.raises(NotFoundError, match="no signature 'serving_default'"):
        find_signature(info, REF, "")
