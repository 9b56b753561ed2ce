"""Fixtures of tests against real servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.access import Team, serve_team


@pytest.fixture(scope="session")
def team(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Team]:
    """A server that knows its callers; the tests of what they may do share it."""
    options = ("--transport", "grpcio", "--rest", "127.0.0.1:0", "--log-level", "debug")
    yield from serve_team(tmp_path_factory.mktemp("access"), models, *options)
