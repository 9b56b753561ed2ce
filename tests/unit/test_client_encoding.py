"""Predictions as bytes: they are what protobuf reads and writes."""

from __future__ import annotations

from typing import Any

import modelhost
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelhost._encoding import Question, encode_many, encode_predict, encode_streamed, encode_timeout
from modelhost._names import ModelRef
from modelhost._tensors import from_message
from modelhost.v1.prediction_service_pb2 import PredictManyRequest, PredictRequest, PredictStreamRequest

REF = ModelRef("team-a", "ranker", 3)
DTYPES = ["float32", ">f8", "int8", "uint64", "bool", "complex64", "float16"]
ARRAYS: list[np.ndarray[Any, Any]] = [
    np.float32(1.5).reshape(()),
    np.zeros((0, 3), np.int64),
    np.arange(12, dtype=np.int16).reshape(3, 4).T,
    np.arange(100_000, dtype=np.float64),
    np.arange(100_000, dtype=">i4"),
    np.arange(90_000, dtype=np.uint8).reshape(300, 300)[:, ::2],
    np.array(["é", b"\xff\x00"], dtype=object),
]


def predict(arrays: dict[str, np.ndarray[Any, Any]], **changes: Any) -> PredictRequest:
    return PredictRequest.FromString(b"".join(encode_predict(Question(**{"ref": REF} | changes), arrays)))


def check(request: PredictRequest | PredictManyRequest, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    assert set(request.inputs) == set(arrays)
    for name, array in arrays.items():
        back = from_message(request.inputs[name])
        if array.dtype == object:
            assert back.tolist() == [x.encode() if isinstance(x, str) else x for x in array]
        else:
            assert back.dtype == array.dtype.newbyteorder("<")
            np.testing.assert_array_equal(back, array)


def test_every_kind_of_array_is_read_by_protobuf() -> None:
    arrays = {f"input {i} ñ": array for i, array in enumerate(ARRAYS)}
    check(predict(arrays), arrays)


@given(
    st.dictionaries(st.text(max_size=200), st.lists(st.integers(0, 20), max_size=4), max_size=4),
    st.sampled_from(DTYPES),
)
def test_any_shapes_and_names_are_read_by_protobuf(shapes: dict[str, list[int]], dtype: str) -> None:
    arrays = {name: np.ones(shape, dtype) for name, shape in shapes.items()}
    check(predict(arrays), arrays)


def test_a_request_says_what_to_run() -> None:
    request = predict({}, signature="scores", outputs=("a", "b"), priority=-2)
    assert (request.scope, request.model, request.version, request.label) == ("team-a", "ranker", 3, "")
    assert (request.signature, list(request.output_filter), request.priority) == ("scores", ["a", "b"], -2)
    labelled = predict({}, ref=ModelRef("default", "m", label="stable"))
    assert (labelled.WhichOneof("choice"), labelled.label) == ("label", "stable")


def test_a_request_for_many_models() -> None:
    arrays = {"x": ARRAYS[2], "s": ARRAYS[-1]}
    data = encode_many([REF, ModelRef("team-a", "other")], ["scores", ""], arrays, ["y"], "team-a")
    request = PredictManyRequest.FromString(data)
    check(request, arrays)
    assert [(target.model, target.version, target.signature) for target in request.targets] == [
        ("ranker", 3, "scores"),
        ("other", 0, ""),
    ]
    assert (request.scope, list(request.output_filter)) == ("team-a", ["y"])


@given(st.lists(st.integers(0, 2**64 - 1), max_size=5), st.integers(0, 300_000), st.none() | st.floats(0, 1e6))
def test_streamed_requests_one_after_another_are_one_message(ids: list[int], size: int, timeout: float | None) -> None:
    array = np.ones(size, np.int8)
    items = [
        encode_streamed(index, encode_timeout(timeout), encode_predict(Question(REF), {"x": array})) for index in ids
    ]
    message = PredictStreamRequest.FromString(b"".join(items))
    assert [request.id for request in message.requests] == ids
    for request in message.requests:
        check(request.request, {"x": array})
        assert request.HasField("timeout") == (timeout is not None)
        assert request.timeout.ToNanoseconds() == int((timeout or 0) * 1e9)


def test_an_array_of_times_cannot_travel() -> None:
    with pytest.raises(modelhost.InvalidInputError, match="datetime64"):
        encode_predict(Question(REF), {"x": np.zeros(1, "datetime64[s]")})
