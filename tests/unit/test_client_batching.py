"""Batching and priority, as clients and the command line say and show them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import modelhost
import numpy as np
import pytest
from modelhost import Batching, LoadSpec, SignatureBatching
from modelhost._messages import version_info
from modelhost.cli.app import app
from modelhost.v1 import model_pb2
from support.service import Served
from typer.testing import CliRunner, Result

ALL = Batching(
    mode="on",
    max_batch_size=16,
    max_delay=0.002,
    allowed_batch_sizes=(4, 16),
    pad_variable_length=True,
    max_queue=100,
    queue_timeout=1.5,
)


@pytest.fixture
def run(served: Served) -> Callable[..., Result]:
    """Runs a command against the service."""

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(app, list(arguments), env={"MODELHOST_TARGET": served.target})
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


def told(message: model_pb2.LoadOptions) -> Batching:
    version = model_pb2.Version(version=1, state=model_pb2.VERSION_STATE_AVAILABLE, options=message)
    return version_info("default", "m", version).requested_batching


@pytest.mark.parametrize("batching", [ALL, Batching(), Batching(mode="off"), Batching(max_delay=0.0, max_queue=1)])
def test_what_is_asked_for_is_what_is_told(client: Any, served: Served, batching: Batching) -> None:
    client.load("m", "/m", batching=batching)
    (request,) = served.service.seen("LoadModel")
    assert told(request.options) == batching


def test_without_options_nothing_is_asked_for(client: Any, served: Served) -> None:
    client.load("m", "/m")
    client.load_many([LoadSpec(model="m", source="/m", batching=ALL)])
    assert not served.service.seen("LoadModel")[0].options.HasField("batching")
    assert told(served.service.seen("LoadModels")[0].loads[0].options) == ALL


def test_an_unknown_mode_is_refused(client: Any) -> None:
    with pytest.raises(modelhost.InvalidRequestError, match="on, off"):
        client.load("m", "/m", batching=Batching(mode="sometimes"))  # type: ignore[arg-type]


def test_a_version_tells_how_its_predictions_run_together() -> None:
    version = model_pb2.Version(version=1, state=model_pb2.VERSION_STATE_AVAILABLE)
    version.batching.add(
        signature="s", state=model_pb2.BATCHING_STATE_ON, explanation="why", max_batch_size=8, batch_count=2,
        prediction_count=9,
    )  # fmt: skip
    assert version_info("default", "m", version).batching == {"s": SignatureBatching("ON", "why", 8, 2, 9)}


def test_predictions_have_priorities(client: Any, served: Served) -> None:
    x = {"x": np.zeros(1, np.float32)}
    client.predict("half", x, priority=-3)
    client.predict_stream([modelhost.PredictItem("half", x, priority=5)])
    assert served.service.seen("Predict")[0].priority == -3
    assert served.service.seen("PredictStream")[0].request.priority == 5


def test_the_command_line_asks_for_batching(run: Callable[..., Result], served: Served) -> None:
    options = (
        "--batching", "--max-batch-size", "16", "--max-batch-delay", "0.002", "--batch-size", "16", "--batch-size", "4",
        "--pad-variable-length", "--max-queue", "100", "--queue-timeout", "1.5",
    )  # fmt: skip
    assert run("load", "m", "/m", *options).exit_code == 0
    assert run("load", "m", "/m", "--no-batching").exit_code == 0
    assert run("load-many", "m=/m", *options).exit_code == 0
    first, second = (told(request.options) for request in served.service.seen("LoadModel"))
    assert (first, second) == (ALL, Batching(mode="off"))
    assert told(served.service.seen("LoadModels")[0].loads[0].options) == ALL


def test_show_says_how_predictions_run_together(run: Callable[..., Result], served: Served) -> None:
    plain = served.service.version

    def version(number: int = 1) -> model_pb2.Version:
        made = plain(number)
        made.options.batching.mode = model_pb2.BATCHING_MODE_ON
        made.options.batching.max_delay.nanos = 2_000_000
        made.batching.add(
            signature="serving_default", state=model_pb2.BATCHING_STATE_ON, explanation="asked for", max_batch_size=8,
            batch_count=2, prediction_count=9,
        )  # fmt: skip
        return made

    served.service.version = version  # type: ignore[method-assign]
    shown = run("show", "half").stdout
    assert "on, delayed by up to 2 ms" in shown
    assert "on, up to 8 at a time, 4.5 on average: asked for" in shown
