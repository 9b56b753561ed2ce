"""The short form of `make chaos`: each kind of harm is done to a server under mixed load once."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos.run import Chaos

SECONDS = 10


@pytest.mark.timeout(240)
def test_nothing_acknowledged_is_lost_and_no_answer_is_wrong(transport: str, tmp_path: Path) -> None:
    chaos = Chaos(tmp_path, 1, ["--transport", transport, "--no-tuning"], is_short=True)
    judge = chaos.run(SECONDS)
    assert not judge.violations, chaos.report()
    assert judge.counts["predict", "OK"] > 0
    assert chaos.server.starts > 1
