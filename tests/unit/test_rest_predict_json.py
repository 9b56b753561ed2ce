"""TensorFlow Serving's JSON: what requests mean, and what is said of those that are wrong."""

import base64
import json
import math
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelhost_server.compat import serving_inference_pb2 as pb
from modelhost_server.errors import Code, ForeignError
from modelhost_server.rest.examples import fill_input
from modelhost_server.rest.predict_requests import read_object, signature_name, tensors
from modelhost_server.rest.predict_responses import (
    classifications,
    nested,
    outputs_document,
    predictions,
    regressions,
)
from modelhost_server.tensors import STRING, RawTensor, SignatureSpec, TensorSpec

FLOAT, INT32, UINT8, COMPLEX = 1, 3, 4, 8
ONE = {"x": FLOAT}
TWO = {"a": INT32, "b": STRING}


def read(body, inputs, optional=()):
    document = read_object(body if isinstance(body, bytes) else json.dumps(body).encode())
    specs = tuple(TensorSpec(name, dtype, None, name in optional) for name, dtype in sorted(inputs.items()))
    return tensors(document, SignatureSpec("s", specs, ()))


def refusal(body, inputs=ONE):
    with pytest.raises(ForeignError) as error:
        read(body, inputs)
    return error.value


def values(tensor):
    if tensor.dtype == STRING:
        return nested(tensor.data, tensor.shape)
    dtype = {FLOAT: "f4", INT32: "i4", UINT8: "u1"}[tensor.dtype]
    return np.frombuffer(tensor.data, dtype).reshape(tensor.shape).tolist()


@pytest.mark.parametrize(
    ("body", "inputs", "wanted", "as_rows"),
    [
        ({"instances": [1, 2.5]}, ONE, {"x": [1.0, 2.5]}, True),
        ({"instances": [[1], [2]]}, ONE, {"x": [[1.0], [2.0]]}, True),
        ({"instances": [{"x": [1]}, {"x": [2]}]}, ONE, {"x": [[1.0], [2.0]]}, True),
        ({"instances": [{"a": 1, "b": "y"}, {"b": {"b64": "/w=="}, "a": 2}]}, TWO,
         {"a": [1, 2], "b": [b"y", b"\xff"]}, True),
        ({"instances": [{"b64": "aGk="}, "ü"]}, {"s": STRING}, {"s": [b"hi", "ü".encode()]}, True),
        ({"inputs": 3}, ONE, {"x": 3.0}, False),
        ({"inputs": [[], []]}, ONE, {"x": [[], []]}, False),
        ({"inputs": {"b64": "aGk"}}, {"s": STRING}, {"s": b"hi"}, False),
        ({"inputs": {"a": [[1]], "b": ["y", "z"]}}, TWO, {"a": [[1]], "b": [b"y", b"z"]}, False),
        ({"inputs": {"x": [1], "more": [2]}}, ONE, {"x": [1.0]}, False),
    ],
)  # fmt: skip
def test_requests(body, inputs, wanted, as_rows):
    found, rows = read(body, inputs)
    assert {name: values(tensor) for name, tensor in found.items()} == wanted
    assert rows == as_rows


def test_inputs_with_defaults_may_be_left_out():
    found, _ = read({"instances": [{"a": 1}]}, TWO, optional=["b"])
    assert list(found) == ["a"]
    assert list(read({"inputs": {"a": [1]}}, TWO, optional=["b"])[0]) == ["a"]
    assert list(read({"inputs": [1]}, TWO, optional=["b"])[0]) == ["a"]


def test_numbers_that_json_has_no_words_for():
    found, _ = read(b'{"instances": [NaN, Infinity, -Infinity]}', ONE)
    nan, *infinite = values(found["x"])
    assert math.isnan(nan)
    assert infinite == [math.inf, -math.inf]


PARSING = "JSON Parse error: "
ELEMENT = "Failed to process element: "


@pytest.mark.parametrize(
    ("body", "inputs", "message"),
    [
        (b"", ONE, PARSING + "The document is empty"),
        (b"{", ONE, PARSING),
        (b'{"instances": [1]} x', ONE, PARSING),
        (b'{"instances": [\xff]}', ONE, PARSING),
        (b'{"instances": [1e999]}', ONE, PARSING),
        (b'{"instances": [NaN, 1e999, }', ONE, PARSING),
        (b'{"instances": [NaN, "\\udc00"]}', ONE, PARSING),
        (b'{"instances": ' + b"[" * 5000 + b"]" * 5000 + b"}", ONE, PARSING),
        (b'{"instances": NaN' + b"[" * 100000, ONE, PARSING),
        (b"[1]", ONE, "JSON Value: [1] Is not object"),
        ({}, ONE, "Missing 'inputs' or 'instances' key"),
        ({"instances": [1], "inputs": [1]}, ONE, "expecting only one of 'inputs' or 'instances' keys to exist "),
        ({"instances": 1}, ONE, "Excepting 'instances' to be an list/array"),
        ({"instances": []}, ONE, "No values in 'instances' array"),
        ({"instances": [1]}, {}, "Failed to get input map for signature: s"),
        ({"instances": [1]}, TWO, "instances is a plain list, but expecting list of objects as multiple input tensors"),
        ({"inputs": [1]}, TWO, "inputs is a plain value/list, but expecting an object as multiple input tensors"),
        ({"inputs": {"a": [1]}}, TWO, "Missing named input: b in 'inputs' object."),
        ({"instances": [{"x": 1}, 2]}, ONE, "Expecting object but got list at item 1 of input list"),
        ({"instances": [1, {"x": 1}]}, ONE, "Expecting value/list but got object at item 1 of input list"),
        ({"instances": [{"y": 1}]}, ONE,
         ELEMENT + "0 key: y of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does not have named input: y"),
        ({"instances": [{"a": 1}]}, TWO,
         ELEMENT + "0 of 'instances' list. JSON object: {\"a\": 1} must only have keys: a,b"),
        ({"instances": [{"a": 1, "b": "x"}, {"a": 1}]}, TWO, ELEMENT + "1 of 'instances' list. JSON object: "),
        ({"instances": [1, "z"]}, ONE,
         "Error: INVALID_ARGUMENT: JSON Value: \"z\" Type: String is not of expected type: float"),
        ({"instances": [[1, 2], [3]]}, ONE, "Expecting tensor size: 2 but got: 1"),
        ({"instances": [[[1, 2]], [[3], [4]]]}, ONE, "Expecting shape [1,2] but got: [2,1]"),
        ({"instances": [[1, [2]]]}, ONE, "Encountered list at unexpected level: 1 expected < 1"),
        ({"instances": [[[1], 2]]}, ONE,
         "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        ({"inputs": [[1], [2, 3]]}, ONE, "Encountered list at unexpected size: 2 at level: 1 expected size: 1"),
        ({"inputs": [None]}, ONE, "JSON Value: null Type: Null is not of expected type: float"),
        ({"inputs": [True]}, ONE, "JSON Value: true Type: True is not of expected type: float"),
        ({"inputs": [{"y": 1}]}, ONE, 'JSON Value: {"y": 1} Type: Object is not of expected type: float'),
        ({"inputs": [1.0]}, {"i": INT32}, "JSON Value: 1.0 Type: Number is not of expected type: int32"),
        ({"inputs": [256]}, {"i": UINT8}, "JSON Value: 256 Type: Number is not of expected type: uint8"),
        ({"inputs": [1e39]}, ONE, "Cannot convert JSON value: 1e+39 to float without loss of precision."),
        ({"inputs": [16777217]}, ONE, "Cannot convert JSON value: 16777217 to float without loss of precision."),
        ({"inputs": [1]}, {"s": STRING}, "JSON Value: 1 Type: Number is not of expected type: string"),
        ({"inputs": [{"b65": ""}]}, {"s": STRING}, 'JSON Value: {"b65": ""} not formatted correctly for base64 data'),
        ({"inputs": [{"b64": "*"}]}, {"s": STRING}, "Unable to base64 decode"),
        (b'{"inputs": ' + b"[" * 300 + b"1" + b"]" * 300 + b"}", ONE, "300 levels, expected at most 254"),
        (b'{"instances": ' + b"[" * 255 + b"1" + b"]" * 255 + b"}", ONE, "255 levels, expected at most 254"),
    ],
)  # fmt: skip
def test_requests_that_are_wrong(body, inputs, message):
    error = refusal(body, inputs)
    assert error.code is Code.INVALID_ARGUMENT
    assert message in error.message
    assert len(error.message) < 1000


@given(st.lists(st.booleans(), min_size=1), st.booleans())
def test_what_is_told_of_is_the_first_that_is_wrong(are_wrong, have_names):
    are_wrong[-1] = True
    values = [f"wrong {number}" if is_wrong else number for number, is_wrong in enumerate(are_wrong)]
    first = are_wrong.index(True)
    message = f'JSON Value: "wrong {first}" Type: String is not of expected type: float'
    rows = [{"x": value} for value in values] if have_names else values
    assert refusal({"instances": rows}).message.startswith(f"Failed to process element: {first} ")
    assert message in refusal({"instances": rows}).message
    assert refusal({"inputs": [[value] for value in values]}).message == message


def test_types_that_json_has_nothing_for():
    error = refusal({"inputs": [1]}, {"c": COMPLEX})
    assert (error.code, error.message) == (Code.UNIMPLEMENTED, "Conversion of JSON Value: 1 to type: complex64")


def test_the_signature_is_named():
    assert signature_name({}) == ""
    assert signature_name({"signature_name": "s"}) == "s"
    with pytest.raises(ForeignError, match="'signature_name' key must be a string value"):
        signature_name({"signature_name": 1})


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner) |
    st.dictionaries(st.sampled_from(["x", "a", "b", "b64", "?"]), inner), max_leaves=20,
)  # fmt: skip


@given(
    st.sampled_from(["instances", "inputs"]), JSON_VALUES, st.sampled_from([ONE, TWO, {"s": STRING}, {"c": COMPLEX}])
)
def test_whatever_is_sent_is_tensors_or_told_of(key, value, inputs):
    with suppress(ForeignError):
        assert read({key: value}, inputs)[0].keys() == inputs.keys()


@given(st.binary(max_size=60))
def test_bytes_that_are_no_request(body):
    assert refusal(body).code is Code.INVALID_ARGUMENT


def f32(values, shape):
    return RawTensor(FLOAT, shape, np.array(values, np.float32).tobytes())


@pytest.mark.parametrize(
    ("outputs", "rows", "columns"),
    [
        ({"y": f32([0.2, 2], [2])}, "[0.2,2.0]", "[0.2,2.0]"),
        ({"y": f32([1, 2], [2, 1]), "z": RawTensor(STRING, [2], [b"a", b"\xff"])},
         '[{"y":[1.0],"z":"a"},{"y":[2.0],"z":{"b64":"/w=="}}]', '{"y":[[1.0],[2.0]],"z":["a",{"b64":"/w=="}]}'),
        ({"image_bytes": RawTensor(STRING, [1], [b"a"])}, '[{"b64":"YQ=="}]', '[{"b64":"YQ=="}]'),
        ({"y": f32([math.nan, math.inf], [1, 2])}, "[[NaN,Infinity]]", "[[NaN,Infinity]]"),
    ],
)  # fmt: skip
def test_answers(outputs, rows, columns):
    assert predictions(outputs).decode() == f'{{"predictions":{rows}}}'
    assert outputs_document(outputs).decode() == f'{{"outputs":{columns}}}'


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"y": f32([1], [])}, "Tensor name: y has no shape information "),
        ({"y": f32([], [0])}, "Tensor name: y has invalid batch size: 0"),
        ({"y": f32([1], [1]), "z": f32([1, 2], [2])}, "Tensor name: z has inconsistent batch size: 2 expecting: 1"),
        ({"c": RawTensor(COMPLEX, [1], b"8" * 8)}, "Failed to write JSON value for tensor type: complex64"),
    ],
)
def test_answers_that_cannot_be_rows(outputs, message):
    with pytest.raises(ForeignError) as error:
        predictions(outputs)
    assert error.value.message == message


@pytest.mark.parametrize("tensor", [f32([1], [1] * 65), f32([], [0, 2**62]), RawTensor(STRING, [1] * 65, [b"a"])])
def test_answers_of_too_many_dimensions(tensor):
    with pytest.raises(ForeignError, match="Failed to write JSON value for shape: "):
        outputs_document({"y": tensor})


def test_scalars_are_columns():
    assert outputs_document({"y": f32([1.5], [])}) == b'{"outputs":1.5}'
    assert outputs_document({"s": RawTensor(STRING, [], [b"a"])}) == b'{"outputs":"a"}'
    assert outputs_document({"s": RawTensor(STRING, [2, 0], [])}) == b'{"outputs":[[],[]]}'


def test_classes_and_values():
    assert classifications([[("a", 0.2), ("b", math.nan)]]) == b'{"results":[[["a",0.2],["b",NaN]]]}'
    assert regressions([np.float32(0.1).item(), 2]) == b'{"results":[0.1,2.0]}'
    for write in (classifications, regressions):
        with pytest.raises(ForeignError, match="Cannot convert empty"):
            write([])


def test_examples():
    document = {"examples": [{"i": [1, True], "f": 0.5, "s": ["a", {"b64": "/w=="}], "none": []}], "context": {"c": 1}}
    found = pb.Input()
    fill_input(document, found)
    assert found.WhichOneof("kind") == "example_list_with_context"
    (example,) = found.example_list_with_context.examples
    feature = example.features.feature
    assert list(feature["i"].int64_list.value) == [1, 1]
    assert list(feature["f"].float_list.value) == [0.5]
    assert list(feature["s"].bytes_list.value) == [b"a", base64.b64decode("/w==")]
    assert feature["none"].WhichOneof("kind") is None
    assert found.example_list_with_context.context.features.feature["c"].int64_list.value == [1]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "When method is classify, key 'examples' is expected and was not found"),
        ({"examples": {}}, "Expecting 'examples' value to be an list/array"),
        ({"examples": []}, "'examples' value is an empty array"),
        ({"examples": [1]}, "Example must be JSON object but got JSON Number"),
        ({"examples": [{}], "context": []}, "Example must be JSON object but got JSON Array"),
        ({"examples": [{"x": None}]}, "Feature: x has element with unexpected JSON type: Null"),
        ({"examples": [{"x": [[1]]}]}, "Feature: x has element with unexpected JSON type: Array"),
        ({"examples": [{"x": {"y": 1}}]}, "Feature: x has element with unexpected JSON type: Object"),
        ({"examples": [{"x": [1, 0.5]}]}, "Unexpected element type in feature: x expecting type: int64"),
        ({"examples": [{"x": ["a", 1]}]}, "Unexpected element type in feature: x expecting type: bytes"),
        ({"examples": [{"x": 2**63}]}, "Feature: x has uint64 element. Only int64 is supported."),
        ({"examples": [{"x": 1e300}]}, "Cannot convert JSON value: 1e+300 to float without loss of precision."),
    ],
)
def test_examples_that_are_wrong(document, message):
    with pytest.raises(ForeignError) as error:
        fill_input(document, pb.Input())
    assert message in error.value.message
