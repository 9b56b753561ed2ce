"""The server's options for a repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from modelhost_server.config import read_config
from pydantic import ValidationError

EXPLICIT = {"model_repository": Path("/models"), "model_control_mode": "explicit"}


@pytest.mark.parametrize(
    "options",
    [
        {"model_repository": Path("/models")},
        {**EXPLICIT, "load_model": ["a", "b"]},
        {**EXPLICIT, "load_model": ["*"]},
        {"model_repository": Path("/models"), "model_control_mode": "poll", "repository_poll_secs": 0.5},
    ],
)
def test_options_that_go_together(options: dict[str, Any]) -> None:
    assert read_config(None, **options).model_repository == Path("/models")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_control_mode": "poll"}, "model_control_mode: expected model_repository, too; got it alone"),
        ({"load_model": ["a"]}, "load_model: expected model_repository, too; got it alone"),
        ({"model_repository": "/models", "load_model": ["a"]}, "load_model: expected model_control_mode explicit"),
        ({**EXPLICIT, "load_model": ["a", "*"]}, "load_model: expected * alone, or names of models; got both"),
        ({"model_repository": "/models", "model_control_mode": "x"}, "Input should be 'none', 'poll' or 'explicit'"),
        ({"model_repository": "/models", "repository_poll_secs": 0}, "greater than 0"),
    ],
)  # fmt: skip
def test_options_that_do_not(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        read_config(None, **options)
    assert message in str(caught.value)
