"""The openvino engine's own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import openvino
import pytest
from modelhost_server.engines.base import EngineFailure
from modelhost_server.engines.openvino import OpenvinoEngine
from modelhost_server.errors import ModelhostError, Reason
from support.optimised import built, check, load, options, recorded, run


def test_numbers_are_computed_as_float32():
    # In bfloat16, which OpenVINO would take where the processor has it, they would be a hundredth off.
    model = load(OpenvinoEngine(options()), built() / "large" / "openvino")
    ((inputs, outputs),) = recorded("large")
    got = run(model, inputs)["y"]
    assert np.abs(got - outputs["y"]).max() < 1e-5 * np.abs(outputs["y"]).max()


def test_what_was_prepared_is_found_again(tmp_path):
    answers = []
    for _ in range(2):
        model = load(OpenvinoEngine(options(cache_dir=tmp_path)), built() / "cnn" / "openvino")
        answers.append([run(model, inputs) for inputs, _ in recorded("cnn")])
        model.close()
        prepared = {file: (tmp_path / file).stat().st_mtime_ns for file in os.listdir(tmp_path)}
        assert len(prepared) == 1
    for got, again, (_, outputs) in zip(*answers, recorded("cnn"), strict=True):
        check(got, outputs)
        check(again, outputs)


@pytest.mark.parametrize("kept", [0, 10, 0.5])
def test_a_spoilt_cache_is_no_reason_to_fail(tmp_path, kept):
    load(OpenvinoEngine(options(cache_dir=tmp_path)), built() / "mlp" / "openvino").close()
    (blob,) = tmp_path.iterdir()
    content = blob.read_bytes()
    blob.unlink()
    blob.write_bytes(content[: int(kept * len(content)) if kept < 1 else kept])
    model = load(OpenvinoEngine(options(cache_dir=tmp_path)), built() / "mlp" / "openvino")
    inputs, outputs = recorded("mlp")[1]
    check(run(model, inputs), outputs)


def test_a_message_says_what_was_wrong_and_not_where_in_openvino():
    model = load(OpenvinoEngine(options()), built() / "square" / "openvino")
    with pytest.raises(EngineFailure, match="MatMul") as caught:
        run(model, {"x": np.ones([2, 3], np.float32), "y": np.ones([4, 5], np.float32)})
    assert "Exception from" not in str(caught.value)


def test_weights_that_are_missing_are_refused(tmp_path):
    for name in ("artifact.json", "m.xml"):
        (tmp_path / name).write_bytes((built() / "large" / "openvino" / name).read_bytes())
    with pytest.raises(ModelhostError, match=r"m\.xml") as caught:
        load(OpenvinoEngine(options()), tmp_path)
    assert caught.value.reason == Reason.SOURCE_INVALID


def test_nothing_is_written_beside_the_model(tmp_path):
    before = sorted(Path(built() / "mlp" / "openvino").iterdir())
    load(OpenvinoEngine(options(cache_dir=tmp_path)), built() / "mlp" / "openvino").close()
    assert sorted(Path(built() / "mlp" / "openvino").iterdir()) == before


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**62])
def test_integers_that_would_be_cut_are_not_computed(value):
    # OpenVINO computes with int32 whatever the model says.
    model = load(OpenvinoEngine(options()), built() / "pair" / "openvino")
    inputs, outputs = recorded("pair")[1]
    with pytest.raises(EngineFailure, match="int32"):
        run(model, {**inputs, "b": inputs["b"] * 0 + value})
    check(run(model, inputs), outputs)


def test_float64_is_refused_because_it_would_be_computed_as_float32(tmp_path):
    described = (built() / "scalar" / "openvino" / "artifact.json").read_text()
    (tmp_path / "artifact.json").write_text(described.replace('"dtype": 1', '"dtype": 2'))
    core = openvino.Core()
    model = core.read_model(built() / "scalar" / "openvino" / "m.xml")
    processed = openvino.preprocess.PrePostProcessor(model)
    processed.input(0).tensor().set_element_type(openvino.Type.f64)
    processed.output(0).tensor().set_element_type(openvino.Type.f64)
    openvino.save_model(processed.build(), tmp_path / "m.xml", compress_to_fp16=False)
    with pytest.raises(ModelhostError, match="float64") as caught:
        load(OpenvinoEngine(options()), tmp_path)
    assert caught.value.reason == Reason.SOURCE_INVALID
