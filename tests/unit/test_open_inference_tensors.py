"""Tensors as Open Inference clients have them: strings, classes, parameters, checks."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelhost_server.errors import Code, ForeignError, ModelhostError, Reason
from modelhost_server.services.open_inference.byte_strings import IncompleteError, read_strings, string_parts
from modelhost_server.services.open_inference.checks import RequestChecks
from modelhost_server.services.open_inference.classification import classify
from modelhost_server.services.open_inference.errors import translate
from modelhost_server.services.open_inference.models import not_there, version_choice
from modelhost_server.services.open_inference.parameters import Options, options
from modelhost_server.tensors import DTYPE_NAME, STRING, RawTensor, SignatureSpec, TensorSpec

SPEC = SignatureSpec(
    "serving_default",
    (TensorSpec("a", 1, (-1, 2)), TensorSpec("b", STRING, None, optional=True)),
    (TensorSpec("x", 1, (-1,)), TensorSpec("y", 1, (-1,)), TensorSpec("z", 1, (-1,))),
)
A = RawTensor(1, (1, 2), bytes(8))


@given(st.lists(st.binary()))
def test_strings_are_read_as_they_are_written(strings):
    encoded = b"".join(string_parts(strings))
    assert read_strings(encoded) == strings
    assert read_strings(memoryview(encoded)) == strings


@given(st.lists(st.binary()), st.binary(), st.data())
def test_strings_that_end_early_are_incomplete(strings, last, data):
    whole = b"".join(string_parts(strings))
    cut = data.draw(st.integers(1, 3 + len(last)))
    with pytest.raises(IncompleteError) as caught:
        read_strings(whole + b"".join(string_parts([last]))[:cut])
    error = caught.value
    assert (error.length, error.available) == ((None, cut) if cut < 4 else (len(last), cut - 4))


@pytest.mark.parametrize(
    ("dtype", "form", "values", "expected"),
    [
        (1, "f", [0.5, 2.0, -1.0, 2.0], [b"2.000000:1", b"2.000000:3"]),
        (2, "d", [math.nan, -math.inf, 1.0, math.inf], [b"inf:3", b"1.000000:2"]),
        (3, "i", [-5, 3, 9, 9], [b"9:2", b"9:3"]),
        (4, "B", [0, 255, 7, 1], [b"255:1", b"7:2"]),
        (6, "b", [-1, -2, 3, 4], [b"4:3", b"3:2"]),
        (9, "q", [2**62, -(2**63), 0, 1], [b"4611686018427387904:0", b"1:3"]),
        (23, "Q", [2**64 - 1, 0, 2, 1], [b"18446744073709551615:0", b"2:2"]),
    ],
)
def test_the_largest_values_are_the_classes(dtype, form, values, expected):
    output = RawTensor(dtype, (4,), struct.pack(f"<4{form}", *values))
    assert classify(output, 2, is_batched=False) == RawTensor(STRING, (2,), expected)
    rows = RawTensor(dtype, (2, 2), output.data)
    of_rows = classify(rows, 1, is_batched=True)
    assert (of_rows.shape, len(of_rows.data)) == ((2, 1), 2)


def test_nothing_has_no_classes():
    assert classify(RawTensor(1, (0, 3), b""), 2, is_batched=True) == RawTensor(STRING, (0, 2), [])
    assert classify(RawTensor(1, (3, 0), b""), 2, is_batched=True) == RawTensor(STRING, (3, 0), [])
    assert classify(RawTensor(1, (2**60, 0), b""), 2, is_batched=True) == RawTensor(STRING, (2**60, 0), [])
    assert classify(RawTensor(1, (), struct.pack("<f", 1)), 2, is_batched=False).data == [b"1.000000:0"]


@pytest.mark.parametrize("dtype", sorted(DTYPE_NAME.keys() - {1, 2, 3, 4, 5, 6, 9, 17, 22, 23}))
def test_some_datatypes_have_no_classes(dtype):
    with pytest.raises(ForeignError, match="class result not available"):
        classify(RawTensor(dtype, (0,), b""), 1, is_batched=False)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, Options()),
        ({"priority": 0}, Options()),
        ({"priority": 1}, Options(priority=1)),
        ({"priority": 2}, Options()),
        ({"priority": 3}, Options(priority=-1)),
        ({"priority": 2**64 - 1}, Options(priority=-998)),
        ({"timeout": 1500}, Options(timeout=0.0015)),
        ({"timeout": 0}, Options()),
        ({"timeout": -1}, Options()),
        ({"signature": "s"}, Options(signature="s")),
        ({"signature_name": "s"}, Options(signature="s")),
        ({"sequence_id": 0, "sequence_start": False, "mine": None, "other": 1.5}, Options()),
        ({"triton_enable_empty_final_response": True}, Options()),
    ],
)
def test_parameters(parameters, expected):
    assert options(parameters) == expected


@pytest.mark.parametrize(
    "parameters",
    [
        {"priority": True}, {"priority": "1"}, {"timeout": 1.5}, {"signature": 1}, {"sequence_id": "a"},
        {"sequence_end": True}, {"sequence_start": 1}, {"triton_x": True}, {"triton_enable_empty_final_response": 1},
    ],
)  # fmt: skip
def test_parameters_that_are_refused(parameters):
    with pytest.raises(ForeignError) as caught:
        options(parameters)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_optional_inputs_are_counted():
    check = RequestChecks("m", "7").checks().check_inputs
    assert check(SPEC, {"a": A}) == [(0, A)]
    with_strings = check(SPEC, {"b": RawTensor(STRING, (1,), b"\1\0\0\0x"), "a": A})
    assert with_strings[1] == (1, RawTensor(STRING, (1,), [b"x"]))
    with pytest.raises(ForeignError) as caught:
        check(SPEC, {})
    assert caught.value.message == (
        "[request id: 7] expected number of inputs between 1 and 2 but got 0 inputs for model 'm'. Got input(s) [], "
        "but missing required input(s) ['a']. Please provide all required input(s)."
    )
    with pytest.raises(ForeignError, match="unexpected inference input 'c' for model 'm'"):
        check(SPEC, {"a": A, "c": A})


@pytest.mark.parametrize(
    "shape", [(-1, 2), (-1, -2), (1, 3), (2**62, 2**62), (1,) * 300, (1, 2, 1), (2**62,) * 100_000]
)
@pytest.mark.parametrize(("dtype", "data"), [(1, bytes(20)), (STRING, [b""] * 5)])
def test_no_shape_lets_other_bytes_pass(shape, dtype, data):
    check = RequestChecks("m", "").checks().check_inputs
    anything = SignatureSpec("s", (TensorSpec("a", dtype, None),), ())
    with pytest.raises(ForeignError) as caught:
        check(anything, {"a": RawTensor(dtype, shape, data)})
    assert len(caught.value.message) < 1000


def test_outputs_are_in_the_signatures_order_and_all_are_none():
    choose = RequestChecks("m", "").checks().choose_outputs
    assert choose(SPEC, ["z", "x", "z"]) == [0, 2]
    assert choose(SPEC, ["z", "y", "x"]) == choose(SPEC, []) == []
    with pytest.raises(ForeignError, match="unexpected inference output 'w' for model 'm'"):
        choose(SPEC, ["x", "w"])


def test_versions_are_numbers_or_labels():
    assert version_choice("m", "") == (0, "")
    assert version_choice("m", "007") == (7, "")
    assert version_choice("m", "stable") == (0, "stable")
    for version in ("-1", str(2**63), "9" * 5000):
        with pytest.raises(ForeignError) as caught:
            version_choice("m", version)
        assert caught.value.code is Code.INVALID_ARGUMENT
        assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    ("reason", "version", "code", "message"),
    [
        (Reason.SCOPE_NOT_FOUND, "", Code.NOT_FOUND, "'m' is not found"),
        (Reason.VERSION_NOT_FOUND, "3", Code.NOT_FOUND, "'m' version 3 is not found"),
        (Reason.VERSION_LOADING, "3", Code.UNAVAILABLE, "'m' version 3 is not at ready state"),
        (Reason.VERSION_FAILED, "3", Code.UNAVAILABLE, "'m' version 3 is not at ready state"),
        (Reason.VERSION_LOADING, "", Code.UNAVAILABLE, "'m' has no available versions"),
        (Reason.VERSION_FAILED, "", Code.NOT_FOUND, "'m' has no available versions"),
    ],
)
def test_why_a_model_is_not_there(reason, version, code, message):
    error = not_there(ModelhostError(reason, "ours"), "m", version)
    assert isinstance(error, ForeignError)
    assert (error.code, error.message) == (code, f"Request for unknown model: {message}")


def test_what_is_no_label_is_no_version():
    error = not_there(ModelhostError(Reason.INVALID_NAME, "ours", field="label"), "m", "a b")
    assert isinstance(error, ForeignError)
    assert (error.code, "version string 'a b'" in error.message) == (Code.INVALID_ARGUMENT, True)


def test_other_errors_keep_their_message():
    ours = ModelhostError(Reason.WORKER_DIED, "its worker died")
    assert not_there(ours, "m", "") is ours
    assert (translate(ours).code, translate(ours).message) == (Code.UNAVAILABLE, "its worker died")
    assert translate(ModelhostError(Reason.QUEUE_FULL, "ours")).message == "Exceeds maximum queue size"
