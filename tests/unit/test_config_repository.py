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


@pytest.mark.parametrize(("value", "names"), [("a", ("a",)), ("a, scope/b", ("a", "scope/b"))])
def test_names_in_the_environment(monkeypatch: pytest.MonkeyPatch, value: str, names: tuple[str, ...]) -> None:
    monkeypatch.setenv("MODELHOST_LOAD_MODEL", value)
    assert read_config(None, **EXPLICIT).load_model == names


def test_addresses_in_the_environment_and_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "modelhost.toml"
    file.write_text('listen = ["[::1]:1", "unix:/a"]\nrest = "localhost:2"\n')
    assert read_config(file).listen == ("[::1]:1", "unix:/a")
    monkeypatch.setenv("MODELHOST_LISTEN", "127.0.0.1:3,unix:/b")
    assert (read_config(file).listen, read_config(file).rest) == (("127.0.0.1:3", "unix:/b"), "localhost:2")
    assert read_config(file, listen=["[::1]:4"]).listen == ("[::1]:4",)
