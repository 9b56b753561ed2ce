"""What was found out about engines is remembered, and only for what it was found out about."""

from dataclasses import replace

import pytest
from modelhost_server.hosting.tuning import _with_winner, explanation
from modelhost_server.hosting.verdicts import TENSORFLOW, Verdict, Verdicts
from modelhost_server.store.records import Candidate, EngineChoice, LoadOptions, Outcome, Version

REFUSED = Candidate("openvino", Outcome.REFUSED, "it has strings")


def right(engine: str, speedup: float, timings=((1, 300, 100),)) -> Candidate:
    return Candidate(engine, Outcome.SLOWER, "", speedup, 1e-6, timings)


def version(**changes: object) -> Version:
    made = Version("s", "m", 1, 1, "/m", "/m", LoadOptions(), digest="abc")
    for name, value in changes.items():
        setattr(made, name, value)
    return made


@pytest.fixture
def verdicts(tmp_path):
    return Verdicts(tmp_path)


@pytest.fixture
def remembered(verdicts):
    verdict = Verdict(_with_winner([right("litert", 3.0), REFUSED]))
    verdicts.artifact(version(), "litert").mkdir(parents=True)
    verdicts.remember(version(), 2, verdict)
    return verdict


def test_what_was_found_out_is_recalled(verdicts, remembered):
    assert verdicts.recall(version(), 2) == remembered
    artifact = str(verdicts.artifact(version(), "litert"))
    assert verdicts.choice(version(), remembered) == EngineChoice("litert", artifact)


@pytest.mark.parametrize(
    "other",
    [
        {"digest": "def"},
        {"options": LoadOptions(tolerance=1e-6)},
        {"options": LoadOptions(tags=("gpu",))},
        {"samples_file": "/cache/samples/1234"},
    ],
    ids=str,
)
@pytest.mark.usefixtures("remembered")
def test_it_is_not_believed_of_anything_else(verdicts, other):
    assert verdicts.recall(version(**other), 2) is None


@pytest.mark.usefixtures("remembered")
def test_timings_are_not_believed_for_other_threads(verdicts):
    assert verdicts.recall(version(), 1) is None


@pytest.mark.usefixtures("remembered")
def test_a_winner_whose_artifact_is_gone_is_looked_for_again(verdicts):
    verdicts.artifact(version(), "litert").rmdir()
    assert verdicts.recall(version(), 2) is None


@pytest.mark.parametrize("content", ["", "{", "[1]", '[{"engine": "litert"}]'])
@pytest.mark.usefixtures("remembered")
def test_a_damaged_memory_is_none(verdicts, content):
    (file,) = verdicts.folder(version()).glob("verdict-*.json")
    file.write_text(content)
    assert verdicts.recall(version(), 2) is None


def test_the_fastest_wins_if_it_is_worth_a_change():
    litert, openvino = _with_winner([right("litert", 3.0), right("openvino", 4.0)])
    assert (litert.outcome, openvino.outcome) == (Outcome.SLOWER, Outcome.CHOSEN)
    assert Verdict((litert, openvino)).chosen is openvino


@pytest.mark.parametrize(
    ("candidate", "word"),
    [
        (right("litert", 1.19), "1.2 times"),
        (right("litert", 1.9, ((1, 900, 100), (8, 100, 101))), "slower than tensorflow at some batch sizes"),
        (REFUSED, "strings"),
        (replace(right("litert", 9.0), outcome=Outcome.DIFFERENT, reason="other values"), "other values"),
    ],
)
def test_what_is_not_worth_a_change_or_not_right_leaves_tensorflow(verdicts, candidate, word):
    verdict = Verdict(_with_winner([candidate]))
    assert verdict.chosen is None
    assert word in explanation(verdict.candidates)
    assert verdicts.choice(version(), verdict) == TENSORFLOW
