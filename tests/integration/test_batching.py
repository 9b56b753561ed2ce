"""Predictions that wait for one another run together where that makes no difference, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from modelhost.v1 import model_pb2
from support.predict import error_of, load, predict
from support.queued import OFF, ON, VERIFYING, batching_models, batching_of, narrow_scope, options, queued, settled

MODE_ON, MODE_OFF = model_pb2.BATCHING_MODE_ON, model_pb2.BATCHING_MODE_OFF
noise = np.random.default_rng(5)


@pytest.fixture(scope="module")
def scope(stubs) -> Iterator[str]:
    """A scope in which one thing runs at a time."""
    with narrow_scope(stubs) as name:
        for model in ("together", "alone", "impure"):
            load(stubs, name, batching_models() / model)
        load(stubs, name, batching_models() / "together", "on", options=options(mode=MODE_ON, max_batch_size=64))
        yield name


def rows(count: int, *rest: int) -> np.ndarray:
    return noise.normal(size=(count, *rest)).astype(np.float32)


def separate(stubs, scope: str, model: str, signature: str, inputs: list[dict[str, Any]]) -> list[Any]:
    """What predictions are answered that wait for nobody."""
    return [predict(stubs, scope, model, signature, **each) for each in inputs]


def assert_equal(answers: list[Any], expected: list[Any]) -> None:
    assert len(answers) == len(expected)
    for answer, expects in zip(answers, expected, strict=True):
        assert isinstance(answer, dict), answer
        assert answer.keys() == expects.keys()
        for name, value in answer.items():
            assert value.shape == expects[name].shape
            assert value.dtype == expects[name].dtype
            if value.dtype.kind == "f":
                np.testing.assert_allclose(value, expects[name], rtol=1e-5, atol=1e-7)
            else:
                assert value.tolist() == expects[name].tolist()


def text(*values: str) -> np.ndarray:
    result = np.empty(len(values), object)
    result[:] = [value.encode() for value in values]
    return result


TOGETHER: dict[str, list[dict[str, Any]]] = {
    "dense": [{"x": rows(n, 16)} for n in (1, 2, 1, 3, 1, 1)],
    "two": [{"a": rows(n, 3), "b": rows(n)} for n in (1, 2, 1, 1, 5)],
    "text": [{"text": text(*words)} for words in (["a"], ["", "bc"], ["\u00e9" * 50], ["x\0y"], ["z"] * 7)],
    "outputs": [{"x": rows(n)} for n in (2, 1, 1, 1)],
    # In shared memory between server and worker.
    "large": [{"x": rows(n, 40_000)} for n in (1, 2, 1, 1)],
}


@pytest.mark.parametrize("signature", TOGETHER)
def test_each_gets_its_own_answer_found_out_by_the_server(stubs, scope, tmp_path, signature):
    inputs = TOGETHER[signature]
    expected = separate(stubs, scope, "together", signature, inputs)
    before = batching_of(stubs, scope, "together", signature)
    assert (before.state, before.max_batch_size) == (VERIFYING, 1)
    assert_equal(queued(stubs, scope, tmp_path, "together", inputs, signature=signature), expected)
    found = settled(stubs, scope, "together", signature)
    assert found.state == ON, found.explanation
    # Until larger batches have been tried: they are learnt one after the other.
    for _ in range(3):
        assert_equal(queued(stubs, scope, tmp_path, "together", inputs * 4, signature=signature), expected * 4)
    after = batching_of(stubs, scope, "together", signature)
    assert after.prediction_count - before.prediction_count == 13 * len(inputs)
    assert after.prediction_count > after.batch_count


@pytest.mark.parametrize("signature", TOGETHER)
def test_each_gets_its_own_answer_where_it_was_asked_for(stubs, scope, tmp_path, signature):
    inputs = TOGETHER[signature]
    expected = separate(stubs, scope, "on", signature, inputs)
    before = batching_of(stubs, scope, "on", signature)
    assert before.state == ON
    assert_equal(queued(stubs, scope, tmp_path, "on", inputs, signature=signature), expected)
    after = batching_of(stubs, scope, "on", signature)
    assert after.prediction_count - before.prediction_count == len(inputs)
    assert after.batch_count - before.batch_count == 1


ALONE: dict[str, list[dict[str, Any]]] = {
    "minus_mean": [{"x": rows(n, 3)} for n in (1, 2, 1, 3)],
    "cumsum": [{"x": rows(1, 3)} for _ in range(4)],
    "cummax": [{"x": rows(1, 3)} for _ in range(4)],
    "sorted": [{"x": rows(1, 3)} for _ in range(4)],
    "unique": [{"x": rows(1, 3)} for _ in range(4)],
    "concatenated": [{"x": rows(1, 3)} for _ in range(4)],
    "one_good_output": [{"x": rows(2, 3)} for _ in range(4)],
    "pairs": [{"a": rows(2, 3), "b": rows(2, 3)} for _ in range(4)],
    "words": [{"text": text(sentence)} for sentence in ("one two three", "four five six", "seven 8 9", "10 11 12")],
}
NEVER = {
    "loss": ALONE["minus_mean"],
    "one_row": ALONE["minus_mean"],
    "fixed_batch": ALONE["cumsum"],
    "any_rank": ALONE["minus_mean"],
}


@pytest.mark.parametrize("signature", ALONE)
def test_models_that_look_at_the_whole_batch_are_found_out(stubs, scope, tmp_path, signature):
    inputs = ALONE[signature]
    expected = separate(stubs, scope, "alone", signature, inputs)
    for _ in range(3):
        assert_equal(queued(stubs, scope, tmp_path, "alone", inputs, signature=signature), expected)
    found = settled(stubs, scope, "alone", signature)
    assert found.state == OFF
    assert "together" in found.explanation
    assert found.prediction_count == found.batch_count == 4 * len(inputs)


@pytest.mark.parametrize("signature", NEVER)
def test_models_whose_shapes_forbid_it_are_not_even_asked(stubs, scope, tmp_path, signature):
    inputs = NEVER[signature]
    found = batching_of(stubs, scope, "alone", signature)
    assert (found.state, found.max_batch_size) == (OFF, 1)
    assert "first dimension" in found.explanation
    expected = separate(stubs, scope, "alone", signature, inputs)
    assert_equal(queued(stubs, scope, tmp_path, "alone", inputs, signature=signature), expected)
    found = batching_of(stubs, scope, "alone", signature)
    assert found.prediction_count == found.batch_count == 2 * len(inputs)


def test_two_inputs_of_different_extents_are_right_whoever_waits_with_them(stubs, scope, tmp_path):
    inputs = [{"a": rows(n, 3), "b": rows(m, 3)} for n, m in ((1, 2), (2, 1), (2, 2), (3, 1), (1, 1))]
    expected = separate(stubs, scope, "alone", "pairs", inputs)
    assert_equal(queued(stubs, scope, tmp_path, "alone", inputs, signature="pairs"), expected)


def test_text_of_other_lengths_is_right_after_text_of_one_length_was(stubs, scope, tmp_path):
    inputs = [{"text": text(sentence)} for sentence in ("a b", "c d", "e f", "one two three four", "g")]
    expected = separate(stubs, scope, "alone", "words", inputs)
    for _ in range(2):
        assert_equal(queued(stubs, scope, tmp_path, "alone", inputs, signature="words"), expected)


@pytest.mark.parametrize("signature", ["counter", "random"])
def test_models_that_change_or_throw_dice_are_not_asked(stubs, scope, tmp_path, signature):
    found = batching_of(stubs, scope, "impure", signature)
    assert found.state == OFF
    assert "chance" in found.explanation
    answers = queued(stubs, scope, tmp_path, "impure", [{"x": np.zeros((1, 3), np.float32)}] * 5, signature=signature)
    if signature == "counter":
        assert sorted(answer["y"][0, 0] for answer in answers) == [1, 2, 3, 4, 5]
    else:
        assert len({answer["noise"].tobytes() for answer in answers}) == 5


def test_equal_predictions_do_not_hide_that_a_model_looks_at_the_batch(stubs, scope, tmp_path):
    load(stubs, scope, batching_models() / "minus_mean", "same")
    x = rows(2, 16)
    for _ in range(2):
        for answer in queued(stubs, scope, tmp_path, "same", [{"x": x}] * 4):
            np.testing.assert_allclose(answer["y"], x - x.mean(0), atol=1e-6)
    found = settled(stubs, scope, "same")
    assert found.state == OFF


def test_other_extents_never_share_a_batch(stubs, scope, tmp_path):
    inputs = [{"x": rows(1, width)} for width in (2, 3, 2, 5, 3, 2)]
    expected = separate(stubs, scope, "on", "twice", inputs)
    before = batching_of(stubs, scope, "on", "twice")
    assert_equal(queued(stubs, scope, tmp_path, "on", inputs, signature="twice"), expected)
    assert batching_of(stubs, scope, "on", "twice").batch_count - before.batch_count == 3


def test_other_extents_do_not_disturb_the_finding_out(stubs, scope, tmp_path):
    inputs = [{"x": rows(1, width)} for width in (2, 3, 4, 5, 2, 3, 2)]
    expected = separate(stubs, scope, "together", "twice", inputs)
    assert_equal(queued(stubs, scope, tmp_path, "together", inputs, signature="twice"), expected)
    assert settled(stubs, scope, "together", "twice").state == ON


def test_other_outputs_wanted_never_share_a_batch(stubs, scope, tmp_path):
    from support.queued import gate, outcome, start

    before = batching_of(stubs, scope, "on", "outputs")
    with gate(stubs, scope, tmp_path) as closed:
        calls = [
            start(stubs, scope, "on", {"x": np.float32([i])}, signature="outputs", output_filter=wanted)
            for i in range(2)
            for wanted in (["double"], ["square"], [])
        ]
        closed.wait_for(6)
        closed.open()
        answers = [{name: float(value[0]) for name, value in outcome(call).items()} for call in calls]
    both = [{"double": 2.0 * i, "square": 1.0 * i * i} for i in range(2)]
    assert answers == [{name: b[name] for name in w} for b in both for w in (["double"], ["square"], list(b))]
    assert batching_of(stubs, scope, "on", "outputs").batch_count - before.batch_count == 3


def test_it_is_found_out_though_callers_never_want_all_outputs(stubs, scope, tmp_path):
    load(stubs, scope, batching_models() / "together", "filtered")
    load(stubs, scope, batching_models() / "alone", "filtered_alone")
    inputs = [{"x": rows(1)} for _ in range(4)]
    queued(stubs, scope, tmp_path, "filtered", inputs, signature="outputs", output_filter=["double"])
    assert settled(stubs, scope, "filtered", "outputs").state == ON
    inputs = [{"x": rows(1, 3)} for _ in range(4)]
    queued(stubs, scope, tmp_path, "filtered_alone", inputs, signature="one_good_output", output_filter=["good"])
    assert settled(stubs, scope, "filtered_alone", "one_good_output").state == OFF


def test_narrow_inputs_are_filled_up_where_it_was_asked_for(stubs, scope, tmp_path):
    padded = options(mode=MODE_ON, max_batch_size=64, pad_variable_length=True)
    load(stubs, scope, batching_models() / "together", "padded", options=padded)
    inputs = [{"x": np.float32([[1, 2]])}, {"x": np.float32([[3], [4]])}, {"x": np.float32([[5, 6, 7]])}]
    answers = queued(stubs, scope, tmp_path, "padded", inputs, signature="twice")
    # Outputs that follow their inputs are as wide as the widest.
    assert [answer["y"].tolist() for answer in answers] == [[[2, 4, 0]], [[6, 0, 0], [8, 0, 0]], [[10, 12, 14]]]
    images = [{"x": np.full((1, h, w, 2), -1.0, np.float32)} for h, w in ((2, 3), (3, 2), (3, 3))]
    answers = queued(stubs, scope, tmp_path, "padded", images, signature="images")
    # What a model makes of the zeros is its own affair.
    assert [answer["y"].tolist() for answer in answers] == [[[0, 0]], [[0, 0]], [[-1, -1]]]
    found = batching_of(stubs, scope, "padded", "images")
    assert (found.batch_count, found.prediction_count) == (1, 3)


def test_batches_have_the_sizes_allowed(stubs, scope, tmp_path):
    sized = options(mode=MODE_ON, allowed_batch_sizes=[4, 8])
    load(stubs, scope, batching_models() / "together", "sized", options=sized)
    ask = [{"x": rows(n)} for n in (1, 1, 1)]
    answers = queued(stubs, scope, tmp_path, "sized", ask, signature="rows")
    assert [answer["y"].tolist() for answer in answers] == [[4]] * 3
    answers = queued(stubs, scope, tmp_path, "sized", [{"x": rows(n)} for n in (2, 3, 1)], signature="rows")
    assert [answer["y"].tolist() for answer in answers] == [[8] * 2, [8] * 3, [8]]
    # One alone, too; what is larger than all is as large as it is.
    assert predict(stubs, scope, "sized", "rows", x=rows(3))["y"].tolist() == [4] * 3
    assert predict(stubs, scope, "sized", "rows", x=rows(9))["y"].tolist() == [9] * 9
    assert batching_of(stubs, scope, "sized", "rows").max_batch_size == 8


def test_batches_are_no_larger_than_allowed(stubs, scope, tmp_path):
    load(stubs, scope, batching_models() / "together", "small", options=options(mode=MODE_ON, max_batch_size=3))
    answers = queued(stubs, scope, tmp_path, "small", [{"x": rows(1)}] * 8, signature="rows")
    assert sorted(answer["y"][0] for answer in answers) == [2, 2, 3, 3, 3, 3, 3, 3]
    answers = queued(stubs, scope, tmp_path, "small", [{"x": rows(2)}] * 3, signature="rows")
    assert sorted(answer["y"][0] for answer in answers) == [2, 2, 2]
    assert predict(stubs, scope, "small", "rows", x=rows(5))["y"].tolist() == [5] * 5


def test_a_batch_is_filled_while_nothing_else_runs_where_a_delay_was_asked_for(stubs, scope):
    from support.queued import outcome, start

    patient = options(mode=MODE_ON, max_batch_size=4, max_delay=3600)
    load(stubs, scope, batching_models() / "together", "patient", options=patient)
    calls = [start(stubs, scope, "patient", {"x": rows(1)}, signature="rows") for _ in range(4)]
    assert [outcome(call)["y"].tolist() for call in calls] == [[4]] * 4
    short = options(mode=MODE_ON, max_batch_size=4, max_delay=0.05)
    load(stubs, scope, batching_models() / "together", "short", options=short)
    assert predict(stubs, scope, "short", "rows", x=rows(1))["y"].tolist() == [1]


def test_nothing_runs_together_where_that_was_asked_for(stubs, scope, tmp_path):
    load(stubs, scope, batching_models() / "together", "off", options=options(mode=MODE_OFF))
    answers = queued(stubs, scope, tmp_path, "off", [{"x": rows(1)}] * 8, signature="rows")
    assert [answer["y"].tolist() for answer in answers] == [[1]] * 8
    found = batching_of(stubs, scope, "off", "rows")
    assert (found.state, found.explanation) == (OFF, "asked for")


def test_one_bad_prediction_of_a_batch_fails_alone(stubs, scope, tmp_path):
    values = [4, 9, -1, 16, 25]
    before = batching_of(stubs, scope, "on", "positive")
    ask = [{"x": np.float32([value])} for value in values]
    answers = queued(stubs, scope, tmp_path, "on", ask, signature="positive")
    assert [answers[i]["y"].tolist() for i in (0, 1, 3, 4)] == [[2], [3], [4], [5]]
    assert (answers[2].code, answers[2].reason) == ("INVALID_ARGUMENT", "MODEL_REJECTED_INPUT")
    assert "positive" in answers[2].message
    after = batching_of(stubs, scope, "on", "positive")
    assert after.state == ON
    assert after.prediction_count - before.prediction_count == 5


def test_options_are_told_and_nonsense_is_refused(stubs, scope):
    asked = options(mode=MODE_ON, max_batch_size=7, max_delay=0.0015, max_queue=9, queue_timeout=2)
    version = load(stubs, scope, batching_models() / "together", "told", options=asked)
    assert version.options.batching == asked.batching
    wrong = options(allowed_batch_sizes=[4, 2])
    refused = error_of(lambda: load(stubs, scope, batching_models() / "together", "told", options=wrong))
    assert (refused.code, refused.fields) == ("INVALID_ARGUMENT", ("options.batching.allowed_batch_sizes",))


@pytest.mark.parametrize(
    ("source", "engine", "state"),
    [
        ("dense.tflite", model_pb2.ENGINE_LITERT, ON),
        ("minus_mean.tflite", model_pb2.ENGINE_LITERT, OFF),
        ("dense", model_pb2.ENGINE_OPENVINO, ON),
    ],
)
def test_other_engines_answer_each_its_own(stubs, scope, tmp_path, source, engine, state):
    name = source.replace(".", "-") + f"-{engine}"
    load(stubs, scope, batching_models() / source, name, options=model_pb2.LoadOptions(engine=engine))
    inputs = [{"x": rows(n, 16)} for n in (1, 2, 1, 3, 1, 1)]
    expected = [predict(stubs, scope, name, **each) for each in inputs]
    assert_equal(queued(stubs, scope, tmp_path, name, inputs), expected)
    assert settled(stubs, scope, name).state == state
    for _ in range(3):
        assert_equal(queued(stubs, scope, tmp_path, name, inputs * 3), expected * 3)
    found = batching_of(stubs, scope, name)
    assert (found.prediction_count > found.batch_count) == (state == ON)
