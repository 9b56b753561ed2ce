"""A short form of what `make fuzz` does to a server."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz.calls import fuzz_both
from fuzz.rest import fuzz_rest
from fuzz.sockets import fuzz_sockets
from fuzz.sources import fuzz_sources
from fuzz.tally import Tally, told

SEED = 20


def assert_none_failed(tallies: list[Tally]) -> None:
    assert any(tally.cases for tally in tallies)
    assert not any(tally.failures for tally in tallies), told(tallies)


def test_calls(models: Path, transport: str):
    assert_none_failed(fuzz_both(models, SEED, 400, (transport,)))


def test_rest(models: Path):
    assert_none_failed([fuzz_rest(models, SEED, 200)])


def test_sockets(models: Path, transport: str):
    assert_none_failed(fuzz_sockets(models, SEED, 60, (transport,)))


@pytest.mark.timeout(120)
def test_sources(models: Path):
    assert_none_failed(fuzz_sources(models, SEED, 25))
