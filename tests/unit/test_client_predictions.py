"""Predictions of both clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import modelhost
import numpy as np
import pytest
from google.rpc import code_pb2
from support.service import FLOAT32, FLOAT64, NUMPY, Refused, Served

X = np.array([1, 2, 5], np.float32)


def test_arrays_by_name_cost_one_call(client: Any, served: Served) -> None:
    answer = client.predict("half@3", {"x": X})
    np.testing.assert_array_equal(answer["y"], [2.5, 3, 4.5])
    assert answer.version == 3
    assert [name for name, _, _ in served.service.calls] == ["Predict"]


@pytest.mark.parametrize("inputs", [X, [1.0, 2, 5], {"x": [1, 2, 5]}])
def test_the_signature_is_learnt_once(client: Any, served: Served, inputs: Any) -> None:
    for _ in range(3):
        np.testing.assert_array_equal(client.predict("half", inputs)["y"], [2.5, 3, 4.5])
    assert [name for name, _, _ in served.service.calls] == ["GetModel", "Predict", "Predict", "Predict"]
    assert served.service.seen("Predict")[0].inputs["x"].dtype == FLOAT32


def test_inputs_that_do_not_fit_are_not_sent(client: Any, served: Served) -> None:
    for inputs, reason in (
        ([[1.0]], "INPUT_SHAPE_MISMATCH"),
        (X.astype(np.float64), "INPUT_DTYPE_MISMATCH"),
        ({"z": [1.0]}, "INPUT_UNKNOWN"),
    ):
        with pytest.raises(modelhost.InvalidInputError) as caught:
            client.predict("half", inputs)
        assert caught.value.reason == reason
    assert not served.service.seen("Predict")


@pytest.mark.parametrize(("name", "dtype"), [("z", FLOAT32), ("x", FLOAT64), ("z", FLOAT64)])
def test_a_model_that_changed_is_learnt_again(client: Any, served: Served, name: str, dtype: int) -> None:
    client.predict("half", [1.0])
    served.service.input, served.service.dtype = name, dtype
    answer = client.predict("half", [1.0])
    assert answer["y"].dtype == NUMPY[dtype]
    assert len(served.service.seen("GetModel")) == 2
    # What fits the new model only is found to fit before it is sent.
    client.predict("half", {name: np.ones(1, NUMPY[dtype])})
    assert len(served.service.seen("GetModel")) == 2


def test_a_refusal_of_unchecked_inputs_stands(client: Any, served: Served) -> None:
    with pytest.raises(modelhost.InvalidInputError, match="input_dtype_mismatch"):
        client.predict("half", {"x": X.astype(np.float64)})
    assert [name for name, _, _ in served.service.calls] == ["Predict"]


def test_what_the_model_itself_refuses_is_not_sent_again(client: Any, served: Served) -> None:
    client.predict("half", [1.0])
    served.service.refuse["Predict"] = Refused(code_pb2.INVALID_ARGUMENT, "MODEL_REJECTED_INPUT")
    with pytest.raises(modelhost.InvalidInputError, match="model_rejected_input"):
        client.predict("half", [1.0])
    assert len(served.service.seen("GetModel")) == 1
    assert len(served.service.seen("Predict")) == 2


def test_what_a_prediction_says(connect: Callable[..., Any], served: Served) -> None:
    client = connect(served.target, token="secret")
    client.predict("half@stable", {"x": X}, signature="other", outputs=["y"])
    _, request, metadata = served.service.calls[0]
    assert (request.scope, request.model, request.label, request.signature) == ("default", "half", "stable", "other")
    assert request.output_filter == ["y"]
    assert metadata["modelhost-scope"] == "default"
    assert metadata["modelhost-model"] == "half"
    assert metadata["authorization"] == "Bearer secret"
