"""Predictions that are asked for wrongly: each is refused in words that name what was expected and what came."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from modelhost.v1 import prediction_service_pb2 as pb
from modelhost.v1 import tensor_pb2
from support.predict import (
    STRING,
    Failure,
    array,
    assert_serves,
    error_of,
    load,
    new_scope,
    predict,
    request,
    stream_error_of,
    streamed,
    tensor,
)  # fmt: skip
from support.server import Stubs

FLOAT32, FLOAT64, BOOL = tensor_pb2.DATA_TYPE_FLOAT32, tensor_pb2.DATA_TYPE_FLOAT64, tensor_pb2.DATA_TYPE_BOOL
# Statuses travel in HTTP headers, of which gRPC takes 8 kB; a message is in there three times.
LONGEST_MESSAGE = 1200


@pytest.fixture(scope="module")
def scope(models: Path, stubs: Stubs) -> Iterator[str]:
    with new_scope(stubs, "bad-input") as name:
        load(stubs, name, models / "half_plus_two", "half", labels=["stable"])
        for model in ("dtypes", "identity", "many_signatures", "refusing", "shapes", "wide"):
            load(stubs, name, models / model)
        yield name


@pytest.fixture(autouse=True)
def still_serves(stubs: Stubs, scope: str) -> Iterator[None]:
    yield
    assert_serves(stubs, scope, "half")


@pytest.fixture(params=["Predict", "PredictStream"])
def fail(request: pytest.FixtureRequest, stubs: Stubs) -> Callable[[pb.PredictRequest], Failure]:
    """Sends a request that is to fail, alone or on a stream."""
    if request.param == "Predict":
        return lambda message: error_of(lambda: stubs.predictions.Predict(message, timeout=60))
    return lambda message: stream_error_of(stubs, message)


X = tensor(np.float32([1, 2]))


def t(*shape: int, dtype: int = FLOAT32, **content: Any) -> tensor_pb2.Tensor:
    return tensor_pb2.Tensor(dtype=dtype, shape=shape, **content)


def strings(*values: bytes) -> tensor_pb2.StringValues:
    return tensor_pb2.StringValues(values=values)


class Bad(NamedTuple):
    """What is wrong with a request, and what is to be said of it."""

    code: str
    reason: str
    words: tuple[str, ...]
    model: str = "half"
    inputs: dict[str, tensor_pb2.Tensor] = {"x": X}
    fields: dict[str, Any] = {}
    scope: str = ""


def inputs(reason: str, *words: str, model: str = "half", signature: str = "", **tensors: tensor_pb2.Tensor) -> Bad:
    return Bad("INVALID_ARGUMENT", reason, words, model, tensors, {"signature": signature})


def shaped(reason: str, signature: str, shape: list[int], *words: str, raw: bytes = b"") -> Bad:
    return inputs(reason, "'x'", *words, model="shapes", signature=signature, x=t(*shape, raw=raw))


HUGE = 2**62
CASES = {
    "an unknown scope": Bad("NOT_FOUND", "SCOPE_NOT_FOUND", ("'nowhere'",), scope="nowhere"),
    "an unknown model": Bad("NOT_FOUND", "MODEL_NOT_FOUND", ("'nothing'", "bad-input"), model="nothing"),
    "an unknown version": Bad("NOT_FOUND", "VERSION_NOT_FOUND", ("no version 7", "it has: 1"), fields={"version": 7}),
    "a negative version": Bad("INVALID_ARGUMENT", "INVALID_REQUEST", ("greater than 0", "-1"), fields={"version": -1}),
    "version 0": Bad("INVALID_ARGUMENT", "INVALID_REQUEST", ("greater than 0", "got 0"), fields={"version": 0}),
    "an unknown label": Bad("NOT_FOUND", "LABEL_NOT_FOUND", ("'canary'", "stable"), fields={"label": "canary"}),
    "an unknown signature": Bad(
        "NOT_FOUND", "SIGNATURE_NOT_FOUND", ("'predict'", "serving_default"), fields={"signature": "predict"}
    ),
    "no signature where there are several": Bad(
        "NOT_FOUND", "SIGNATURE_NOT_FOUND", ("serving_default", "bfloat16", "float32"), model="dtypes"
    ),
    "an unknown signature of very many": Bad(
        "NOT_FOUND",
        "SIGNATURE_NOT_FOUND",
        ("serving_default", "signature_with_a_rather_long_name_000", "300"),
        model="many_signatures",
    ),
    "an unknown output": Bad(
        "INVALID_ARGUMENT", "OUTPUT_UNKNOWN", ("'z'", "it has: y"), fields={"output_filter": ["y", "z"]}
    ),
    "an unknown output of very many": Bad(
        "INVALID_ARGUMENT",
        "OUTPUT_UNKNOWN",
        ("'z'", "feature_with_a_rather_long_name_000", "400"),
        model="wide",
        inputs={f"feature_with_a_rather_long_name_{i:03d}": X for i in range(400)},
        fields={"output_filter": ["z"]},
    ),
    "no inputs": inputs("INPUT_MISSING", "'x'", "float32 [?]", "got: none"),
    "a misnamed input": inputs("INPUT_MISSING", "'x'", "float32 [?]", "got: 'X'", X=X),
    "an extra input": inputs("INPUT_UNKNOWN", "'z'", "it has: x", x=X, z=X),
    "an input of very many missing": inputs(
        "INPUT_MISSING",
        "'feature_with_a_rather_long_name_399'",
        "float32 [?]",
        model="wide",
        **{f"feature_with_a_rather_long_name_{i:03d}": X for i in range(399)},
    ),
    "an extra input of very many": inputs(
        "INPUT_UNKNOWN",
        "'z'",
        "feature_with_a_rather_long_name_000",
        "400",
        model="wide",
        z=X,
        **{f"feature_with_a_rather_long_name_{i:03d}": X for i in range(400)},
    ),
    "another float": inputs("INPUT_DTYPE_MISMATCH", "'x'", "float32", "float64", x=tensor(np.float64([1]))),
    "an integer of the same size": inputs("INPUT_DTYPE_MISMATCH", "float32", "int32", x=tensor(np.int32([1]))),
    "strings for numbers": inputs("INPUT_DTYPE_MISMATCH", "float32", "string", x=tensor([b"1"])),
    "numbers for strings": inputs(
        "INPUT_DTYPE_MISMATCH", "string", "float32", model="identity", signature="strings", x=X
    ),
    "no dtype": inputs("INPUT_DTYPE_MISMATCH", "float32", "0", x=t(2, dtype=0, raw=X.raw)),
    "a dtype that does not exist": inputs("INPUT_DTYPE_MISMATCH", "float32", "99", x=t(2, dtype=99, raw=X.raw)),
    "a negative dtype": inputs("INPUT_DTYPE_MISMATCH", "float32", "-1", x=t(2, dtype=-1, raw=X.raw)),
    "too few dimensions": inputs("INPUT_SHAPE_MISMATCH", "float32 [?]", "got shape []", x=t(raw=X.raw[:4])),
    "too many dimensions": inputs("INPUT_SHAPE_MISMATCH", "float32 [?]", "got shape [2, 1]", x=t(2, 1, raw=X.raw)),
    "a wrong fixed extent": shaped("INPUT_SHAPE_MISMATCH", "fixed", [3, 2], "[2, 3]", "[3, 2]", raw=bytes(24)),
    "a wrong extent among open ones": shaped("INPUT_SHAPE_MISMATCH", "open", [1, 4, 1], "[?, 3, ?]", "[1, 4, 1]"),
    "rank 300 where the rank is fixed": shaped("INPUT_SHAPE_MISMATCH", "rows", [1] * 300, "[?, 3]", "300 dimensions"),
    "a byte too few": inputs("INPUT_MALFORMED", "'x'", "[2] of float32", "8 bytes", "got 7", x=t(2, raw=X.raw[:7])),
    "a byte too many": inputs("INPUT_MALFORMED", "8 bytes", "got 9", x=t(2, raw=X.raw + b"\0")),
    "no content": inputs("INPUT_MALFORMED", "8 bytes", "got 0", x=t(2)),
    "content for an empty tensor": inputs("INPUT_MALFORMED", "0 bytes", "got 8", x=t(0, raw=X.raw)),
    "a string too few": inputs(
        "INPUT_MALFORMED",
        "[3] of string",
        "3 elements",
        "got 2",
        model="identity",
        signature="strings",
        x=t(3, dtype=STRING, strings=strings(b"a", b"b")),
    ),
    "a negative extent": inputs("INPUT_MALFORMED", "negative", "[-1]", x=t(-1)),
    "two negative extents": shaped("INPUT_MALFORMED", "unknown", [-2, -1], "negative", "[-2, -1]", raw=bytes(8)),
    "a negative extent of an empty tensor": shaped("INPUT_MALFORMED", "unknown", [0, -1], "negative", "[0, -1]"),
    "the least extent": inputs("INPUT_MALFORMED", "negative", f"{-(2**63)}", x=t(-(2**63))),
    "an extent that overflows": inputs("INPUT_MALFORMED", f"[{2**63 - 1}]", "got 8", x=t(2**63 - 1, raw=X.raw)),
    "extents that overflow": shaped("INPUT_MALFORMED", "unknown", [HUGE, HUGE], "too large", f"[{HUGE}, {HUGE}]"),
    "extents that overflow to nothing": shaped("INPUT_MALFORMED", "unknown", [2**32, 2**32], "too large"),
    "extents that overflow before a 0": shaped("INPUT_MALFORMED", "unknown", [HUGE, HUGE, 0], "too large", "0]"),
    "extents that overflow after a 0": shaped("INPUT_MALFORMED", "unknown", [0, HUGE, HUGE], "too large", "[0"),
    "rank 300": shaped("INPUT_MALFORMED", "unknown", [1] * 300, "too large", "300 dimensions", raw=bytes(4)),
    "rank 300 of an empty tensor": shaped("INPUT_MALFORMED", "unknown", [0] * 300, "too large", "300 dimensions"),
    "numbers in `strings`": inputs("INPUT_MALFORMED", "`raw`", "`strings`", x=t(2, strings=strings(X.raw))),
    "strings in `raw`": inputs(
        "INPUT_MALFORMED", "`strings`", "`raw`", model="identity", signature="strings", x=t(1, dtype=STRING, raw=b"a")
    ),
    "a bool that is neither 0 nor 1": inputs(
        "INPUT_MALFORMED", "'x'", "0 or 1", "got 2", model="dtypes", signature="bool", x=t(3, dtype=BOOL, raw=b"\0\1\2")
    ),
    "shared memory": Bad(
        "NOT_FOUND",
        "REGION_NOT_FOUND",
        ("'r'", "register"),
        inputs={"x": t(2, shared_memory=tensor_pb2.SharedMemoryReference(region="r", byte_size=8))},
    ),
    "an assertion of the model's": inputs(
        "MODEL_REJECTED_INPUT", "x must be positive", model="refusing", signature="assert", x=tensor(np.float32([-1]))
    ),
    "an assertion that says much, not in ASCII": inputs(
        "MODEL_REJECTED_INPUT", "\u7121\u7406", model="refusing", signature="loud", x=tensor(np.float32([-1]))
    ),
    "a shape that the model cannot use": inputs(
        "MODEL_REJECTED_INPUT", "2 values", "6", model="refusing", signature="reshape", x=X
    ),
    "an index that the model does not have": inputs(
        "MODEL_REJECTED_INPUT", "7 is not in [0, 2)", model="refusing", signature="gather", x=tensor(np.int32([7]))
    ),
    "a division by zero": inputs(
        "MODEL_REJECTED_INPUT", "division by zero", model="refusing", signature="divide", x=tensor(np.int32([0]))
    ),
    "an error of the model's own": Bad(
        "FAILED_PRECONDITION",
        "MODEL_EXECUTION_FAILED",
        ("the model failed", "No such file"),
        "refusing",
        fields={"signature": "file"},
    ),
}


@pytest.mark.parametrize("bad", CASES.values(), ids=CASES)
def test_a_bad_prediction_is_refused(scope, fail, bad):
    failure = fail(request(bad.scope or scope, bad.model, bad.inputs, **bad.fields))
    assert (failure.code, failure.reason) == (bad.code, bad.reason), failure.message
    for word in bad.words:
        assert word in failure.message
    assert len(failure.message) <= LONGEST_MESSAGE


INPUT_FAULTS = {name: bad for name, bad in CASES.items() if bad.reason.startswith("INPUT_")}


@pytest.mark.parametrize("bad", INPUT_FAULTS.values(), ids=INPUT_FAULTS)
def test_an_input_at_fault_is_named_for_programs(stubs, scope, bad):
    failure = error_of(lambda: stubs.predictions.Predict(request(scope, bad.model, bad.inputs, **bad.fields)))
    (field,) = failure.fields
    assert field.startswith("inputs[")
    assert failure.metadata["input"].strip("'") in field


ODD_NAMES = {
    "a slash": "a/b",
    "dots": "..",
    "NUL": "a\0b",
    "a line break": "a\nb",
    "not ASCII": "\u00fcn\u00ef\u7121",
    "10 kB": "n" * 10_000,
    "10 kB, not ASCII": "\u7121" * 3_333,
}
PLACES = {
    "scope": ("NOT_FOUND", "SCOPE_NOT_FOUND"),
    "model": ("INVALID_ARGUMENT", "INVALID_NAME"),
    "label": ("INVALID_ARGUMENT", "INVALID_NAME"),
    "signature": ("NOT_FOUND", "SIGNATURE_NOT_FOUND"),
    "input": ("INVALID_ARGUMENT", "INPUT_UNKNOWN"),
    "only input": ("INVALID_ARGUMENT", "INPUT_MISSING"),
    "output": ("INVALID_ARGUMENT", "OUTPUT_UNKNOWN"),
}


@pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES)
@pytest.mark.parametrize("place", PLACES)
def test_an_odd_name_is_refused_in_few_words(scope, fail, place, name):
    message = request(scope, "half", {"x": X})
    match place:
        case "input" | "only input":
            message.inputs[name].CopyFrom(X)
            if place == "only input":
                del message.inputs["x"]
        case "output":
            message.output_filter.append(name)
        case _:
            setattr(message, place, name)
    failure = fail(message)
    assert (failure.code, failure.reason) == PLACES[place]
    assert repr(name)[:20].rstrip("'") in failure.message
    assert len(failure.message) < 400
    assert failure.message.isprintable()


def test_a_model_without_a_name_is_refused(scope, fail):
    failure = fail(request(scope, "", {"x": X}))
    assert (failure.code, failure.reason) == ("INVALID_ARGUMENT", "INVALID_NAME")
    assert "got nothing" in failure.message


def test_an_empty_label_is_refused(scope, fail):
    failure = fail(request(scope, "half", {"x": X}, label=""))
    assert (failure.code, failure.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")


@pytest.mark.parametrize("extents", [[2**40, 0], [0, 2**63 - 1], [HUGE, 0, 1], [0] * 254], ids=lambda e: str(e)[:30])
def test_an_empty_tensor_of_great_extent_harms_nobody(stubs, scope, extents):
    y = stubs.predictions.Predict(request(scope, "identity", {"x": t(*extents)}, signature="serving_default"))
    assert list(y.outputs["y"].shape) == extents


@pytest.mark.parametrize("seconds", [2**40, 315_576_000_000, 2**63 - 1])
def test_a_timeout_beyond_all_time_is_none(stubs, scope, seconds):
    item = pb.StreamedRequest(id=1, request=request(scope, "half", {"x": X}), timeout=Duration(seconds=seconds))
    (answer,) = streamed(stubs, [item])
    assert array(answer.response.outputs["y"]).tolist() == [2.5, 3.0]


@pytest.mark.parametrize("timeout", [Duration(seconds=-1), Duration(seconds=-(2**63)), Duration(nanos=-1), Duration()])
def test_a_timeout_that_has_passed_is_said_so(stubs, scope, timeout):
    failure = stream_error_of(stubs, request(scope, "half", {"x": X}), timeout=timeout)
    assert (failure.code, failure.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")


def test_failed_predictions_do_not_disturb_the_good_ones_of_a_stream(stubs, scope):
    good, bad = request(scope, "half", {"x": X}), request(scope, "half", {"x": t(3, raw=b"")})
    items = [pb.StreamedRequest(id=i, request=bad if i % 3 == 0 else good) for i in range(60)]
    answers = {answer.id: answer for answer in streamed(stubs, items)}
    assert sorted(answers) == list(range(60))
    assert {i for i, answer in answers.items() if answer.WhichOneof("outcome") == "error"} == set(range(0, 60, 3))


def test_failures_and_successes_are_counted(models, stubs, scope):
    load(stubs, scope, models / "refusing", "counted")
    for value in (1.0, -1.0, 2.0):
        try:
            predict(stubs, scope, "counted", "assert", x=np.float32([value]))
        except Exception:
            assert value < 0
    version = load(stubs, scope, models / "refusing", "counted", version=1)
    assert (version.statistics.success_count, version.statistics.failure_count) == (2, 1)
