"""Addresses that others can reach, and where callers' paths may lead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from modelhost_server.config import ServerConfig
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.sources.roots import ModelRoots
from pydantic import ValidationError

TLS = {"tls_certificate": Path("server.pem"), "tls_key": Path("server.key")}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "without TLS and without authentication"),
        (TLS, "without authentication"),
        ({"access": Path("access.toml")}, "without TLS"),
        ({**TLS, "access": Path("access.toml")}, ""),
        ({**TLS, "tls_client_ca": Path("ca.pem")}, ""),
        ({"insecure": True}, ""),
    ],
)
@pytest.mark.parametrize("place", [{"listen": ("127.0.0.1:0", "0.0.0.0:8500")}, {"rest": "[::]:8501"}])
def test_what_others_can_reach_is_secured(options: dict[str, Any], said: str, place: dict[str, Any]) -> None:
    if not said:
        assert ServerConfig(**place, **options).insecure == ("insecure" in options)
        return
    with pytest.raises(ValidationError, match=f"from other machines, {said}: .*insecure"):
        ServerConfig(**place, **options)


def test_loopback_and_unix_sockets_need_nothing() -> None:
    assert ServerConfig(listen=("localhost:0", "[::1]:1", "unix:/run/m"), rest="127.0.0.1:0").tls_certificate is None


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a model, and links that lead out of it and into it."""
    root = tmp_path / "root"
    (root / "model").mkdir(parents=True)
    (tmp_path / "root-of-others").mkdir()
    (root / "out").symlink_to(tmp_path / "root-of-others")
    (tmp_path / "in").symlink_to(root)
    return root


@pytest.mark.parametrize("path", ["root", "root/model", "root/model/../model", "in/model", "root/not/there"])
def test_paths_that_lead_below_a_root_are_right(root: Path, path: str) -> None:
    ModelRoots([root]).check(root.parent / path)


@pytest.mark.parametrize("path", ["", "root-of-others", "root/..", "root/out", "root/out/x", "in/out", "not/there"])
def test_others_are_refused_whatever_is_there(root: Path, path: str) -> None:
    with pytest.raises(ModelhostError, match="below its --model-root") as refused:
        ModelRoots([root]).check(root.parent / path)
    assert refused.value.reason is Reason.SOURCE_FORBIDDEN


def test_without_a_root_all_paths_are_right_or_none(root: Path) -> None:
    ModelRoots([]).check("/etc")
    with pytest.raises(ModelhostError, match="it has no --model-root"):
        ModelRoots([], anywhere=False).check(root)


def test_what_models_may_read_follows(tmp_path: Path) -> None:
    place = str(tmp_path)
    assert ServerConfig().rights.readable is None
    assert ServerConfig(model_root=(tmp_path,)).rights.readable == (place,)
    # The models it names itself are the operator's.
    assert ServerConfig(access=tmp_path, model_base_path=tmp_path).rights.readable == (place,)
    assert ServerConfig(access=tmp_path, model_config_file=tmp_path).rights.readable is None
    # What callers brought, and not what the server has written about it.
    brought = ServerConfig(model_root=(tmp_path,), data_dir=tmp_path / "data").rights.readable
    assert brought == (place, *(f"{place}/data/{name}" for name in ("models", "overrides", "samples", "uploads")))
    assert not ServerConfig(sandbox="off").rights.sandboxed
