"""Inputs of a prediction, read from files."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modelhost.cli.inputs import read_inputs


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.arange(3, dtype=np.float32))
    np.savez("xy.npz", x=np.zeros(2), y=np.ones(2))
    np.save("objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    Path("bare.json").write_text("[1.0, 2.0]")
    Path("broken.json").write_text("[1.0,")
    Path("broken.npy").write_text("no array")
    Path("empty.npy").write_bytes(b"")
    Path("deep.json").write_text("[" * 100_000)
    Path("other.txt").write_text("")
    return tmp_path


@pytest.mark.usefixtures("directory")
def test_numpy_files() -> None:
    array: Any = read_inputs("x.npy", [])
    assert array.dtype == np.float32
    assert array.tolist() == [0, 1, 2]
    named: Any = read_inputs("xy.npz", [])
    assert {name: value.tolist() for name, value in named.items()} == {"x": [0, 0], "y": [1, 1]}


@pytest.mark.usefixtures("directory")
def test_named_files() -> None:
    inputs: Any = read_inputs(None, ["a=x.npy", "b=bare.json"])
    assert inputs["a"].tolist() == [0, 1, 2]
    assert inputs["b"] == [1.0, 2.0]
    more: Any = read_inputs("xy.npz", ["z=x.npy"])
    assert set(more) == {"x", "y", "z"}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ([[1, 2]], [[1, 2]]),
        (3.5, 3.5),
        ({"x": [1], "y": [2]}, {"x": [1], "y": [2]}),
        ({"inputs": {"x": [1]}}, {"x": [1]}),
        ({"inputs": [1, 2]}, [1, 2]),
        ({"inputs": [1], "x": [2]}, {"inputs": [1], "x": [2]}),
        ({"instances": [1.0, 2.0]}, [1.0, 2.0]),
        ({"instances": [{"x": 1, "y": [2]}, {"x": 3, "y": [4]}]}, {"x": [1, 3], "y": [[2], [4]]}),
        ({"x": {"b64": "/wA="}}, {"x": b"\xff\x00"}),
        ([{"b64": "aGk="}, "hi"], [b"hi", "hi"]),
    ],
)
def test_json(document: Any, expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "inputs.JSON"
    path.write_text(json.dumps(document))
    assert read_inputs(str(path), []) == expected
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(document)))
    assert read_inputs("-", []) == expected


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize(
    ("source", "named", "message"),
    [
        (None, [], "expected a file of inputs"),
        ("missing.npy", [], "missing.npy: No such file"),
        ("missing.json", [], "missing.json: No such file"),
        (".", [], "expected a .npy"),
        ("other.txt", [], "other.txt: expected a .npy"),
        ("broken.json", [], "broken.json: Expecting value"),
        ("deep.json", [], "deep.json: "),
        ("broken.npy", [], "broken.npy: "),
        ("empty.npy", [], "empty.npy: "),
        ("objects.npy", [], "objects.npy: Object arrays cannot be loaded"),
        (None, ["x.npy"], "expected name=file.npy; got 'x.npy'"),
        (None, ["=x.npy"], "expected name=file.npy"),
        (None, ["a=xy.npz"], "xy.npz: expected one array for input 'a'"),
        ("x.npy", ["a=x.npy"], "x.npy: expected inputs by name"),
    ],
)
def test_files_that_make_no_sense(source: str | None, named: list[str], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_inputs(source, named)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("document", "message"),
    [({"x": {"b64": "?"}}, "b64"), ({"x": {"b64": 1}}, "b64"), ({"instances": [{"x": 1}, {"y": 1}]}, "same names")],
)
def test_json_that_makes_no_sense(document: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "inputs.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=message):
        read_inputs(str(path), [])
