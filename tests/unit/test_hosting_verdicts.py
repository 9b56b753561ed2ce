"""What was found out about engines is remembered, and only for what it was found out about."""

from dataclasses import replace

import pytest
from modelhost_server.hosting.findings import explanation, judged, with_winner
from modelhost_server.hosting.verdicts import TENSORFLOW, Concurrency, Verdict, Verdicts
from modelhost_server.store.records import Candidate, EngineChoice, LoadOptions, Outcome, Version

TWO = Concurrency(2, 4, 4)
REFUSED = Candidate("openvino", Outcome.REFUSED, "it has strings")


def right(engine: str, speedup: float, timings=((1, 300, 100),), side_by_side: float = 0.0) -> Candidate:
    return Candidate(engine, Outcome.SLOWER, "", speedup, side_by_side, 1e-6, timings)


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
    verdict = Verdict(with_winner([replace(right("litert", 3.0), alone_threads=4), REFUSED]))
    verdicts.artifact(version(), "litert").mkdir(parents=True)
    verdicts.remember(version(), TWO, verdict)
    return verdict


def test_what_was_found_out_is_recalled(verdicts, remembered):
    assert verdicts.recall(version(), TWO) == remembered
    artifact = str(verdicts.artifact(version(), "litert"))
    assert verdicts.choice(version(), remembered) == EngineChoice("litert", artifact, 4)


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
    assert verdicts.recall(version(**other), TWO) is None


@pytest.mark.parametrize("other", [Concurrency(1, 4, 4), Concurrency(2, 2, 4), Concurrency(2, 4, 2)])
@pytest.mark.usefixtures("remembered")
def test_timings_are_not_believed_for_other_threads_or_lanes(verdicts, other):
    assert verdicts.recall(version(), other) is None


@pytest.mark.usefixtures("remembered")
def test_a_winner_whose_artifact_is_gone_is_looked_for_again(verdicts):
    verdicts.artifact(version(), "litert").rmdir()
    assert verdicts.recall(version(), TWO) is None


@pytest.mark.parametrize("content", ["", "{", "[1]", '[{"engine": "litert"}]'])
@pytest.mark.usefixtures("remembered")
def test_a_damaged_memory_is_none(verdicts, content):
    (file,) = verdicts.folder(version()).glob("verdict-*.json")
    file.write_text(content)
    assert verdicts.recall(version(), TWO) is None


def test_the_fastest_wins_if_it_is_worth_a_change():
    litert, openvino = with_winner([right("litert", 3.0), right("openvino", 4.0)])
    assert (litert.outcome, openvino.outcome) == (Outcome.SLOWER, Outcome.CHOSEN)
    assert Verdict((litert, openvino)).chosen is openvino


def test_calls_alone_and_side_by_side_count_alike():
    litert, openvino = with_winner([right("litert", 3.0, side_by_side=1.0), right("openvino", 2.0, side_by_side=2.0)])
    assert (litert.outcome, openvino.outcome) == (Outcome.SLOWER, Outcome.CHOSEN)
    assert "2.0 times as fast as tensorflow, 2.00 times with calls side by side" in openvino.reason


@pytest.mark.parametrize(
    ("candidate", "word"),
    [
        (right("litert", 1.19), "1.2 times"),
        (right("litert", 1.9, ((1, 900, 100), (8, 100, 101))), "slower than tensorflow at some batch sizes"),
        (right("litert", 1.9, side_by_side=0.94), "slower than tensorflow when the scope has as many calls"),
        (REFUSED, "strings"),
        (replace(right("litert", 9.0), outcome=Outcome.DIFFERENT, reason="other values"), "other values"),
    ],
)
def test_what_is_not_worth_a_change_or_not_right_leaves_tensorflow(verdicts, candidate, word):
    verdict = Verdict(with_winner([candidate]))
    assert verdict.chosen is None
    assert word in explanation(verdict.candidates)
    assert verdicts.choice(version(), verdict) == TENSORFLOW


@pytest.mark.parametrize(
    ("gain", "nanoseconds", "threads"),
    [(0.0, 2_000_000, 0), (1.19, 2_000_000, 0), (1.2, 2_000_000, 4), (1.9, 900_000, 0)],
)
def test_calls_that_come_alone_get_more_threads_where_it_gains(gain, nanoseconds, threads):
    found = {"accepted": True, "timings": [(1, 9_000_000, nanoseconds)], "max_relative_difference": 0.0, "speedup": 3.0,
             "side_by_side_speedup": 1.0, "alone_gain": gain}  # fmt: skip
    (candidate,) = with_winner([judged("litert", found, 4)])
    assert (candidate.outcome, candidate.alone_threads) == (Outcome.CHOSEN, threads)
    assert ("4 threads" in candidate.reason) == bool(threads)
