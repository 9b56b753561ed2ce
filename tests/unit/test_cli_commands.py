"""Commands as their users see them: what they print, and how they end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from google.rpc import code_pb2
from modelhost import InvalidInputError
from modelhost.cli import plugins, render
from modelhost.cli.app import app
from support.service import CHANGED, SYNCED, Refused, Served, event
from typer.testing import CliRunner, Result


@pytest.fixture
def run(served: Served) -> Callable[..., Result]:
    """Runs a command against the service."""

    def run(*arguments: str, stdin: str | None = None, target: str = served.target) -> Result:
        result = CliRunner().invoke(app, list(arguments), input=stdin, env={"MODELHOST_TARGET": target})
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        return result

    return run


def test_load(run: Callable[..., Result], served: Served) -> None:
    result = run(
        "load", "team/half", "/half", "--version", "3", "--label", "a", "--label", "b", "--tag", "t", "--no-wait"
    )
    assert (result.exit_code, result.stdout) == (0, "team/half@3 is AVAILABLE\n")
    (request,) = served.service.seen("LoadModel")
    assert (request.version, list(request.labels), list(request.options.tags)) == (3, ["a", "b"], ["t"])
    assert (request.no_wait, request.keep_older) == (True, False)


def test_unload(run: Callable[..., Result], served: Served) -> None:
    assert run("unload", "half", "--missing-ok").stdout == "unloaded: 2, 1\n"
    assert json.loads(run("--json", "unload", "half@2").stdout) == {"versions": [2]}
    assert served.service.seen("UnloadModel")[0].allow_missing


def test_label(run: Callable[..., Result], served: Served) -> None:
    assert run("label", "team/half", "stable=2", "old-").stdout == "labels: stable=2\n"
    assert json.loads(run("--json", "label", "half", "old-").stdout) == {"labels": {"stable": 1}}
    assert run("label", "half", "old-", "stable-").stdout == "labels: none\n"
    request = served.service.seen("SetLabels")[0]
    assert (request.scope, dict(request.labels), request.remove) == ("team", {"stable": 2}, ["old"])


def test_ls_and_show(run: Callable[..., Result], served: Served) -> None:
    assert "MODEL" in run("ls").stdout
    assert [model["model"] for model in json.loads(run("--json", "ls").stdout)] == [f"m{i}" for i in range(6)]
    shown = run("show", "half@stable").stdout
    assert "default/half@1" in shown
    assert "default/half@2" not in shown
    assert "float32" in shown
    document = json.loads(run("--json", "show", "half").stdout)
    assert document["versions"][0]["signatures"]["serving_default"]["inputs"]["x"]["shape"] == [None]


def test_tables_are_not_folded_in_a_pipe(run: Callable[..., Result], served: Served) -> None:
    version = served.service.version()
    version.source = "/" + "long" * 100
    served.service.version = lambda number=1: version  # type: ignore[method-assign]
    assert version.source in run("show", "half").stdout


def test_predict(run: Callable[..., Result], tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.array([1, 2], np.float32))
    result = run("predict", "half", str(path))
    assert (result.exit_code, result.stdout) == (0, "y: float32 [2]\n[2.5, 3. ]\n")
    answer = {"version": 1, "outputs": {"y": [2.5, 3.0]}}
    assert json.loads(run("--json", "predict", "half", "-", stdin='{"inputs": [1, 2]}').stdout) == answer
    assert json.loads(run("--json", "predict", "half", "--input", f"x={path}").stdout) == answer
    output = tmp_path / "y.npz"
    assert run("predict", "half", str(path), "--output", str(output)).exit_code == 0
    with np.load(output) as saved:
        assert saved["y"].tolist() == [2.5, 3.0]


def test_scopes(run: Callable[..., Result], served: Served) -> None:
    assert "default" in run("scope", "ls").stdout
    created = json.loads(
        run("--json", "scope", "create", "a", "--memory-limit", "2MiB", "--load-order", "memory_first").stdout
    )
    assert (created["config"]["memory_limit_bytes"], created["config"]["load_order"]) == (2 << 20, "MEMORY_FIRST")
    assert run("scope", "update", "a", "--max-queue", "0", "--overrun-grace", "0").exit_code == 0
    (update,) = served.service.seen("UpdateScope")
    assert sorted(update.update_mask.paths) == ["max_queue", "overrun_grace"]
    assert run("scope", "delete", "a", "--force").exit_code == 0
    assert served.service.seen("DeleteScope")[0].force


def test_watch(run: Callable[..., Result], served: Served) -> None:
    stop = Refused(code_pb2.PERMISSION_DENIED, "PERMISSION_DENIED")
    served.service.watches = [[event(SYNCED, 7), event(CHANGED, 8), stop]] * 2
    result = run("--json", "watch", "team/half")
    assert [json.loads(line)["revision"] for line in result.stdout.splitlines()] == [7, 8]
    (request,) = served.service.seen("WatchModels")
    assert (request.scope, request.model) == ("team", "half")
    assert result.exit_code == 7
    assert "default/half@1" in run("watch").stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("show", "nope"), 4),
        (("show", "a/b/c"), 2),
        (("label", "half"), 2),
        (("label", "half", "stable"), 2),
        (("label", "half", "stable=x"), 2),
        (("label", "half", "stable=1", "stable=2"), 2),
        (("label", "half", "=1"), 2),
        (("label", "half", "-"), 2),
        (("predict", "half", "missing.npy"), 2),
        (("predict", "half"), 2),
        (("predict", "half", "-", "--output", "y.txt"), 2),
        (("predict", "half", "-"), 2),
        (("scope", "update", "a"), 2),
        (("scope", "create", "a", "--load-order", "sideways"), 2),
        (("scope", "create", "a", "--memory-limit", "lots"), 2),
        (("--tls-cert", "cert.pem", "ls"), 2),
        (("--tls-ca", "/no/such.pem", "ls"), 2),
        (("no-such-command",), 2),
        (("ls", "--no-such-option"), 2),
    ],
)
def test_exit_codes(run: Callable[..., Result], arguments: tuple[str, ...], code: int) -> None:
    result = run(*arguments, stdin='["text"]')
    assert result.exit_code == code
    assert result.stderr
    assert not result.stdout


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        (code_pb2.INTERNAL, "INTERNAL", 1),
        (code_pb2.FAILED_PRECONDITION, "VERSION_FAILED", 1),
        (code_pb2.INVALID_ARGUMENT, "SOURCE_INVALID", 2),
        (code_pb2.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", 5),
        (code_pb2.RESOURCE_EXHAUSTED, "MEMORY_LIMIT", 6),
        (code_pb2.UNAVAILABLE, "SERVER_DRAINING", 6),
        (code_pb2.UNAUTHENTICATED, "UNAUTHENTICATED", 7),
    ],
)
def test_exit_codes_of_the_server(
    run: Callable[..., Result], served: Served, status: int, reason: str, code: int
) -> None:
    served.service.refuse["LoadModel"] = Refused(status, reason)
    result = run("load", "half", "/half")
    assert (result.exit_code, result.stderr) == (code, f"error: {reason.lower()}\n")
    document = json.loads(run("--json", "load", "half", "/half").stderr)
    assert document["error"]["reason"] == reason


def test_no_server(run: Callable[..., Result]) -> None:
    result = run("ls", target="unix:/no/such/socket")
    assert result.exit_code == 3
    assert "start one with `modelhost serve`" in result.stderr


def test_help(run: Callable[..., Result]) -> None:
    result = run("--help")
    assert result.exit_code == 0
    words = (
        "load", "load-many", "unload", "label", "ls", "show", "predict", "predict-many", "optimize", "scope", "watch",
        "version", "serve", "Exit codes",
    )  # fmt: skip
    for word in words:
        assert word in result.stdout
    for command in (*([word] for word in words[:9]), ["watch"], ["scope", "create"]):
        assert "Example: " in run(*command, "--help").stdout, command


# Commands of other packages


greeter = typer.Typer()


@greeter.command()
def hello(name: str = "world") -> None:
    """Say hello."""
    typer.echo(f"hello {name}")


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """The entry points that other packages seem to have."""
    found: list[EntryPoint] = []
    monkeypatch.setattr(plugins, "entry_points", lambda **wanted: EntryPoints(found).select(**wanted))
    return found


def test_a_plugin_becomes_a_command(run: Callable[..., Result], entries: list[EntryPoint]) -> None:
    entries.append(EntryPoint("hello", f"{__name__}:greeter", "modelhost.commands"))
    assert run("hello", "--name", "you").stdout == "hello you\n"
    assert "Say hello." in run("--help").stdout


@pytest.mark.parametrize("value", [None, "no_such_module:serve"])
def test_serve_without_the_server(run: Callable[..., Result], entries: list[EntryPoint], value: str | None) -> None:
    if value is not None:
        entries.append(EntryPoint("serve", value, "modelhost.commands"))
    result = run("serve", "--port", "1")
    assert result.exit_code == 2
    assert "pip install 'modelhost[server]'" in result.stderr
    assert "modelhost[server]" in run("--help").stdout


def test_a_plugin_is_imported_only_when_wanted(run: Callable[..., Result], entries: list[EntryPoint]) -> None:
    entries.append(EntryPoint("antigravity", "antigravity:fly", "modelhost.commands"))
    assert run("ls").exit_code == 0
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_libraries(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from modelhost.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == "modelhost: the command line needs two more libraries: pip install 'modelhost[cli]'\n"


# Rendering


def test_what_json_cannot_say() -> None:
    assert render.jsonable(np.array([b"text", b"\xff"], dtype=object)) == ["text", {"b64": "/w=="}]
    assert render.jsonable(np.array([1 + 2j])) == [[1.0, 2.0]]
    error: Any = render.jsonable(InvalidInputError("wrong", reason="INPUT_MISSING"))
    assert (error["code"], error["reason"], error["message"]) == ("INVALID_ARGUMENT", "INPUT_MISSING", "wrong")


@pytest.mark.parametrize(
    ("count", "text"), [(0, ""), (4, "4 B"), (3 << 9, "1.5 KiB"), (1 << 20, "1.0 MiB"), (3 << 30, "3,072.0 MiB")]
)
def test_sizes(count: int, text: str) -> None:
    assert render.size(count) == text
