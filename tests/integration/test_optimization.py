"""OptimizeModel: a new version beside the original, and a report that compares the two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from modelhost.v1 import model_service_pb2
from modelhost.v1 import optimization_service_pb2 as pb
from modelhost.v1.model_pb2 import ENGINE_LITERT, ENGINE_TENSORFLOW, Sample
from support.building import built
from support.predict import SECONDS, describe, error_of, load, new_scope, predict, tensor
from support.server import Stubs

_MINUTES = 600.0


@pytest.fixture(scope="module")
def digits(stubs: Stubs) -> Iterator[tuple[str, Path]]:
    """A scope with the digits classifier, and the file of its examples."""
    with new_scope(stubs, "optimize") as scope:
        models = built("build_digits")
        load(stubs, scope, models / "digits", "digits")
        yield scope, models / "test.npz"


def optimize(stubs: Stubs, scope: str, method: str, **fields: object) -> tuple[list[str], pb.OptimizationReport]:
    """The stages, and the report."""
    request = pb.OptimizeModelRequest(
        scope=scope, model="digits", method=f"OPTIMIZATION_METHOD_{method}", **fields
    )  # fmt: skip
    *stages, last = stubs.optimizations.OptimizeModel(request, timeout=_MINUTES)
    assert last.WhichOneof("message") == "report"
    return [pb.OptimizationStage.Name(stage.progress.stage).removeprefix("OPTIMIZATION_STAGE_") for stage in stages], (
        last.report
    )


@pytest.mark.parametrize(
    ("method", "loss"), [("DYNAMIC_INT8", 0.01), ("FLOAT16", 0.005), ("FULL_INT8", 0.03), ("WEIGHT_ONLY_INT8", 0.01)]
)
def test_a_quantized_version_is_smaller_and_nearly_as_right(stubs, digits, method, loss):
    scope, examples = digits
    stages, report = optimize(stubs, scope, method, version=1, samples_file=str(examples))
    assert stages == ["WAITING", "CONVERTING", "COMPARING", "LOADING"]
    assert report.optimized.accuracy >= report.original.accuracy - loss
    assert report.original.accuracy > 0.95
    assert report.optimized.disk_bytes < report.original.disk_bytes
    assert report.optimized.engine == ENGINE_LITERT
    assert report.example_count > 100
    assert not report.examples_made_up
    assert 0 < report.drift[0].max_relative_difference < 1
    version = report.version
    assert version.derived_from == report.original_version == 1
    assert version.derivation == report.method == method.lower()
    assert version.engine.engine == ENGINE_LITERT
    images = np.load(examples)
    (name,) = [spec.name for spec in version.signatures[0].inputs]
    answer = predict(stubs, scope, "digits", given={name: images[name][:50]})
    assert (next(iter(answer.values())).argmax(-1) == images["labels"][:50]).mean() > 0.9


def test_the_original_stays(stubs, digits):
    scope, _ = digits
    model = stubs.models.GetModel(model_service_pb2.GetModelRequest(scope=scope, model="digits"), timeout=SECONDS).model
    assert 1 in [version.version for version in model.versions]


def test_pruning_says_honestly_that_it_gains_little(stubs, digits):
    scope, examples = digits
    _, half = optimize(stubs, scope, "PRUNE", version=1, sparsity=0.5, samples_file=str(examples))
    assert half.optimized.engine == ENGINE_TENSORFLOW
    assert half.optimized.accuracy >= half.original.accuracy - 0.1
    assert half.optimized.compressed_bytes < half.original.compressed_bytes
    assert half.optimized.zero_share == pytest.approx(0.5, abs=0.1)
    assert "neither speed nor memory" in " ".join(half.remarks)
    assert half.method == "prune 50%"
    _, most = optimize(stubs, scope, "PRUNE", version=1, sparsity=0.9, samples_file=str(examples))
    assert most.optimized.accuracy < half.optimized.accuracy


def test_samples_in_the_request_and_labels_for_the_new_version(stubs, digits):
    scope, examples = digits
    images = np.load(examples)
    (name,) = [spec.name for spec in describe(stubs, scope, "digits").signatures[0].inputs]
    samples = [Sample(inputs={name: tensor(images[name][i : i + 20])}) for i in (0, 20)]
    _, report = optimize(
        stubs, scope, "FULL_INT8", version=1, samples=samples, true_classes=images["labels"][:40].tolist(),
        new_version=50, new_labels=["small"],
    )  # fmt: skip
    assert report.version.version == 50
    assert report.example_count == 40
    assert report.optimized.accuracy > 0.8
    model = stubs.models.GetModel(model_service_pb2.GetModelRequest(scope=scope, model="digits"), timeout=SECONDS).model
    assert model.labels["small"] == 50


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"method": "UNSPECIFIED"}, "method"),
        ({"method": "PRUNE"}, "sparsity"),
        ({"method": "PRUNE", "sparsity": 1.0}, "sparsity"),
        ({"method": "FULL_INT8"}, "samples"),
        ({"method": "FLOAT16", "samples_file": "/no/such/file.npz"}, "samples_file"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(stubs, digits, fields, field):
    method = fields.pop("method")
    failure = error_of(lambda: optimize(stubs, digits[0], method, version=1, **fields))
    assert failure.code == "INVALID_ARGUMENT"
    assert failure.fields == (field,)


def test_models_that_are_not_there_or_cannot_be_quantized(stubs, digits, models):
    scope, _ = digits
    request = pb.OptimizeModelRequest(scope=scope, model="nobody", method="OPTIMIZATION_METHOD_FLOAT16")
    assert error_of(lambda: stubs.optimizations.OptimizeModel(request, timeout=SECONDS)).reason == "MODEL_NOT_FOUND"
    load(stubs, scope, models / "slow", "strange")
    request = pb.OptimizeModelRequest(scope=scope, model="strange", method="OPTIMIZATION_METHOD_FLOAT16")
    failure = error_of(lambda: stubs.optimizations.OptimizeModel(request, timeout=_MINUTES))
    assert failure.code in ("INVALID_ARGUMENT", "UNIMPLEMENTED")
