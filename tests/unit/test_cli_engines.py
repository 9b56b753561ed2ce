"""Commands about engines, batches and optimizations, as their users see them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
from modelhost import LoadProgress, LoadUpdate
from modelhost.cli import progress
from modelhost.cli.app import app
from modelhost.cli.sizes import parse_size
from modelhost.v1 import model_pb2
from modelhost.v1 import optimization_service_pb2 as optimization_pb2
from support.engine_service import EngineServed
from support.service import EXISTING, event
from typer.testing import CliRunner, Result

Run = Callable[..., Result]


@pytest.fixture
def served() -> Iterator[EngineServed]:
    served = EngineServed()
    yield served
    served.stop()


@pytest.fixture
def run(served: EngineServed) -> Run:
    """Runs a command against the service."""

    def run(*arguments: str, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(app, list(arguments), input=stdin, env={"MODELHOST_TARGET": served.target})
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


@pytest.fixture
def arrays(tmp_path: Path) -> str:
    """A file of three examples with their classes."""
    path = tmp_path / "x.npz"
    np.savez(path, x=np.array([1, 2, 5], np.float32), labels=np.array([0, 2, 1]))
    return str(path)


@pytest.fixture
def inputs(tmp_path: Path) -> str:
    """A file of inputs."""
    path = tmp_path / "inputs.npz"
    np.savez(path, x=np.array([1, 2, 5], np.float32))
    return str(path)


# load


def test_load_on_an_engine(run: Run, served: EngineServed, inputs: str) -> None:
    result = run(
        "load", "half", "/half", "--engine", "LiteRT", "--tolerance", "0.01", "--require-warmup",
        "--warmup-file", inputs, "--warmup-file", inputs,
    )  # fmt: skip
    assert (result.exit_code, result.stdout) == (0, "default/half@1 is AVAILABLE\n")
    (request,) = served.service.seen("LoadModel")
    assert request.options.engine == model_pb2.ENGINE_LITERT
    assert (request.options.tolerance, request.options.require_warmup) == (0.01, True)
    assert [list(sample.inputs["x"].shape) for sample in request.warmup] == [[3], [3]]


def test_load_and_wait_for_the_engine(run: Run, served: EngineServed) -> None:
    existing = event(EXISTING, 0)
    existing.version.CopyFrom(served.service.version())
    served.service.watches = [[existing]] * 2
    result = run("load", "half", "/half", "--wait-tuned")
    assert result.stdout == "default/half@1 is AVAILABLE on litert, 6.1 times as fast as tensorflow\n"
    assert json.loads(run("--json", "load", "half", "/half", "--wait-tuned").stdout)["engine"]["tuning"] == "DONE"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("load", "half", "/half", "--engine", "abacus"), "openvino"),
        (("load", "half", "/half", "--tolerance", "0"), "above 0"),
        (("load", "half", "/half", "--warmup-file", "x.npy"), "--warmup-file: x.npy: expected an .npz file"),
        (("load", "half", "/half", "--warmup-file", "missing.npz"), "missing.npz: No such file"),
        (("load", "half", "/half", "--no-wait", "--wait-tuned"), "contradict"),
        (("load-many", "half"), "expected MODEL=SOURCE, e.g. ranker=/models/ranker; got 'half'"),
        (("load-many", "=/half"), "got '=/half'"),
        (("load-many",), "MODEL=SOURCE"),
        (("optimize", "half"), "--method"),
        (("optimize", "half", "--method", "magic"), "dynamic_int8"),
        (("optimize", "half", "--method", "prune", "--samples", "x.json"), "--samples: x.json: expected an .npz file"),
        (("predict-many", "half"), "--input"),
        (("predict-many", "half", "--input", "a.npz", "-i", "b.npz"), "expected one file, .* got a.npz, b.npz"),
        (("predict-many", "half", "--input", "a.txt"), "a.txt: expected a .npy, .npz or .json file"),
        (("predict-many", "half", "team/half", "--input", "-"), "of one scope"),
    ],
)
def test_what_makes_no_sense(run: Run, served: EngineServed, arguments: tuple[str, ...], told: str) -> None:
    result = run(*arguments, stdin='{"x": [1]}')
    assert result.exit_code == 2
    assert not result.stdout
    # A terminal's frame and folds are no part of the message.
    plain = " ".join(result.stderr.replace("│", " ").split())
    assert re.search(told, plain), plain
    assert not served.service.calls


# load-many


def test_load_many(run: Run, served: EngineServed, inputs: str) -> None:
    result = run("load-many", "a=/a", "bad=/bad", "team/b=s3://x?y=z", "--engine", "openvino", "--warmup-file", inputs)
    assert result.stdout == "default/a@1 is AVAILABLE\nteam/b@1 is AVAILABLE\n"
    assert result.stderr == "error: bad: source_invalid\n"
    assert result.exit_code == 2
    (request,) = served.service.seen("LoadModels")
    assert [(load.scope, load.model, load.source) for load in request.loads] == [
        ("default", "a", "/a"),
        ("default", "bad", "/bad"),
        ("team", "b", "s3://x?y=z"),
    ]
    assert {load.options.engine for load in request.loads} == {model_pb2.ENGINE_OPENVINO}
    assert [len(load.warmup) for load in request.loads] == [1, 1, 1]
    assert run("load-many", "a=/a").exit_code == 0
    result = run("--json", "load-many", "a=/a", "bad=/bad")
    good, bad = json.loads(result.stdout)
    assert (good["model"], good["version"]["state"], good["error"]) == ("a", "AVAILABLE", None)
    assert (bad["source"], bad["version"], bad["error"]["reason"]) == ("/bad", None, "SOURCE_INVALID")
    assert (result.exit_code, result.stderr) == (2, "")


def test_the_bars_of_several_loads(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    # What a terminal is shown: rich draws only where it believes there is one.
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with progress.bars(["one", "two"], shown=True) as tell:
        tell(LoadUpdate(0, LoadProgress("READING", 0.5, 4, 8), None, None, 0, 2))
        tell(LoadUpdate(1, LoadProgress("WARMING", 0.25, 4, 8), None, None, 0, 2))
        tell(LoadUpdate(0, None, None, None, 1, 2))
    shown = capsys.readouterr().err
    assert "all" in shown
    last = shown.rpartition("all")[2]
    assert "1 of 2" in last
    assert "two" in last
    assert "one" not in last
    with progress.bars(["one"], shown=False) as tell:
        tell(LoadUpdate(0, LoadProgress("READING", 0.5, 4, 8), None, None, 0, 1))
    assert capsys.readouterr() == ("", "")


# show


def test_show_tells_of_engines(run: Run) -> None:
    shown = run("show", "half@2").stdout
    lines = {tuple(line.split()) for line in shown.splitlines()}
    for line in (
        "engine litert, mapped",
        "tuning done",
        "tolerance 0.001",
        "made from version 1 by dynamic_int8",
        "memory 13.0 MiB private, 97.0 MiB shared",
        "warm-up 2 succeeded, 1 failed: input 'x': too long",
        "ENGINE OUTCOME SPEED-UP DIFFERENCE WHY",
        "litert CHOSEN 6.12 2.5e-07 6.1 times as fast",
        "openvino DIFFERENT 2.5e-01 y differs",
    ):
        assert tuple(line.split()) in lines, line
    document = json.loads(run("--json", "show", "half@2").stdout)["versions"][0]
    assert document["engine"]["candidates"][0]["timings"][0] == {
        "batch_size": 1,
        "tensorflow_seconds": 0.012,
        "engine_seconds": 0.002,
    }
    assert (document["derived_from"], document["warmup"]["failure_count"]) == (1, 1)


# predict-many


def test_predict_many(run: Run, served: EngineServed, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([1, 2], np.float32))
    named = ("--input", f"x={tmp_path / 'x.npy'}")
    result = run("predict-many", "half", "half@3", *named)
    answer = "y: float32 [2]\n[2.5, 3. ]\n"
    assert result.stdout == f"half, version 1\n{answer}half@3, version 3\n{answer}"
    assert result.exit_code == 0
    result = run("predict-many", "half", "nope", "-i", "-", stdin="[1, 2]")
    assert result.stdout == f"half, version 1\n{answer}"
    assert (result.stderr, result.exit_code) == ("error: nope: model_not_found\n", 4)
    result = run("--json", "predict-many", "half", "nope", *named)
    good, bad = json.loads(result.stdout)
    assert good == {"model": "half", "version": 1, "outputs": {"y": [2.5, 3.0]}}
    assert (bad["model"], bad["error"]["reason"], result.exit_code) == ("nope", "MODEL_NOT_FOUND", 4)
    assert len(served.service.seen("PredictMany")) == 3


# optimize


def test_optimize(run: Run, served: EngineServed, arrays: str) -> None:
    result = run("optimize", "half@1", "-m", "dynamic_int8", "--samples", arrays, "--label", "small")
    assert result.exit_code == 0
    first, *rest = result.stdout.splitlines()
    assert first == "default/half@2 is AVAILABLE, made from version 1 by dynamic_int8"
    lines = {tuple(line.split()) for line in rest}
    for line in (
        "engine tensorflow litert",
        "on disk 4.0 MiB 1.0 MiB -75%",
        "compressed 3.0 MiB 1.0 MiB -67%",
        "memory 8.0 MiB 2.0 MiB -75%",
        "latency, batch of 1 2 ms 0.5 ms -75%",
        "accuracy 98.4% 98.0% -0.4 points",
        "zero weights 0.0% 12.5% +12.5 points",
        "difference of the outputs, on 1 example",
        "serving_default y 1.2e-02 3.0e-04 99.0%",
        "- The answers are nearly the same.",
    ):
        assert tuple(line.split()) in lines, line
    (request,) = served.service.seen("OptimizeModel")
    assert (request.version, list(request.new_labels)) == (1, ["small"])
    (sample,) = request.samples
    assert list(sample.inputs) == ["x"]
    assert list(request.true_classes) == [0, 2, 1]


def test_optimize_without_samples(run: Run, served: EngineServed) -> None:
    result = run("optimize", "half", "--method", "PRUNE", "--sparsity", "0.5", "--samples-file", "/x.npz",
                 "--new-version", "7")  # fmt: skip
    assert "default/half@7" in result.stdout
    assert "which the server made up" in result.stdout
    assert "accuracy" not in result.stdout
    (request,) = served.service.seen("OptimizeModel")
    assert (request.method, request.sparsity) == (optimization_pb2.OPTIMIZATION_METHOD_PRUNE, 0.5)
    assert (request.samples_file, request.new_version) == ("/x.npz", 7)
    document = json.loads(run("--json", "optimize", "half", "-m", "float16").stdout)
    assert document["version"]["derivation"] == "dynamic_int8"
    assert document["original"]["accuracy"] is None
    assert run("optimize", "nope", "-m", "float16").exit_code == 4


# Sizes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("123", 123),
        ("2GiB", 2 << 30),
        ("1.5 mib", 3 << 19),
        ("2GB", 2_000_000_000),
        ("7B", 7),
        ("1TiB", 1 << 40),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "2G", "two", "1e9", "1.MiB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="512MiB"):
        parse_size(text)


@pytest.mark.parametrize(("size", "told"), [("2GiB", "2,048.0 MiB"), ("0", "none")])
def test_the_memory_limit_of_a_scope(run: Run, size: str, told: str) -> None:
    shown = run("scope", "create", "a", "--memory-limit", size).stdout
    assert f"memory limit {told}" in [" ".join(line.split()) for line in shown.splitlines()]


def test_a_memory_limit_that_is_none(run: Run) -> None:
    result = run("scope", "create", "a", "--memory-limit", "2G")
    assert result.exit_code == 2
    assert "512MiB" in result.stderr
