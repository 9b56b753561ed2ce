"""A short form of what `make fuzz` does where no server is needed."""

from __future__ import annotations

from pathlib import Path

from fuzz.journals import fuzz_journals
from fuzz.parsers import PARSERS, check_parsers
from fuzz.sources import fuzz_archives
from fuzz.tally import Tally, told

SEED = 20


def assert_none_failed(tally: Tally, cases: int) -> None:
    assert tally.cases == cases
    assert not tally.failures, told([tally])


def test_parsers():
    assert_none_failed(check_parsers(SEED, 20 * len(PARSERS)), 20 * len(PARSERS))


def test_journals():
    tally = fuzz_journals(SEED, 20)
    assert_none_failed(tally, 20)
    assert tally.answers["found corrupt"]


def test_archives(models: Path):
    tally = fuzz_archives(models, SEED, 40)
    assert_none_failed(tally, 40)
    assert {"unpacked", "UPLOAD_INVALID"} <= tally.answers.keys()
