"""Engines, warm-ups, several models at once and optimizations, as both clients tell of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import modelhost
import numpy as np
import pytest
from google.rpc import code_pb2
from modelhost import LoadSpec, OptimizationMethod, PredictTarget, Sample
from modelhost.v1 import model_pb2
from modelhost.v1 import optimization_service_pb2 as optimization_pb2
from support.engine_service import EngineServed
from support.service import CHANGED, EXISTING, FLOAT32, FLOAT64, SYNCED, Refused, event

X = np.array([1, 2, 5], np.float32)


@pytest.fixture
def served() -> Iterator[EngineServed]:
    served = EngineServed()
    yield served
    served.stop()


# Loads


def test_a_load_says_what_it_was_told(client: Any, served: EngineServed) -> None:
    warmup = [{"x": X}, Sample({"s": np.array([b"a"], dtype=object)}, signature="other")]
    client.load("half", "/half", engine="litert", tolerance=0.01, require_warmup=True, warmup=warmup)
    (request,) = served.service.seen("LoadModel")
    assert request.options.engine == model_pb2.ENGINE_LITERT
    assert (request.options.tolerance, request.options.require_warmup) == (0.01, True)
    first, second = request.warmup
    assert (first.signature, list(first.inputs["x"].shape), first.inputs["x"].dtype) == ("", [3], FLOAT32)
    assert (second.signature, list(second.inputs["s"].strings.values)) == ("other", [b"a"])


def test_several_loads_say_it_too(client: Any, served: EngineServed) -> None:
    specs = [LoadSpec(model="a", source="/a", engine="OPENVINO", warmup=[{"x": X}]), LoadSpec(model="b", source="/b")]
    assert [update.finished for update in client.load_many(specs)] == [0, 1, 1, 2]
    (request,) = served.service.seen("LoadModels")
    assert [load.options.engine for load in request.loads] == [model_pb2.ENGINE_OPENVINO, model_pb2.ENGINE_UNSPECIFIED]
    assert [len(load.warmup) for load in request.loads] == [1, 0]
    assert request.loads[1].options.tolerance == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"engine": "onnx"}, "expected one of tensorflow, litert, openvino; got 'onnx'"),
        ({"tolerance": 0}, "tolerance: expected a number above 0, at most 1; got 0"),
        ({"tolerance": 2.0}, "got 2.0"),
        ({"warmup": [{"x": X}, {"x": [1.0]}]}, r"warmup\[1\]: expected arrays by input name"),
        ({"warmup": [Sample(X)]}, r"warmup\[0\]"),
    ],
)
def test_loads_that_make_no_sense_are_not_sent(
    client: Any, served: EngineServed, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(modelhost.InvalidRequestError, match=told):
        client.load("half", "/half", **options)
    assert not served.service.calls


# What is told of a version


def test_a_version_tells_its_engine(client: Any) -> None:
    made, original = client.model("half").versions
    engine = original.engine
    assert (engine.engine, engine.loader, engine.tuning, engine.is_settled) == ("LITERT", "mapped", "DONE", True)
    chosen, refused = engine.candidates
    assert (chosen.engine, chosen.outcome, chosen.speedup) == ("LITERT", "CHOSEN", 6.125)
    assert chosen.max_relative_difference == 2.5e-7
    assert chosen.timings == (modelhost.EngineTiming(1, 0.012, 0.002), modelhost.EngineTiming(None, 1e-6, 5e-7))
    assert (refused.engine, refused.outcome, refused.reason) == ("OPENVINO", "DIFFERENT", "y differs")
    assert (refused.speedup, refused.timings) == (None, ())
    assert original.warmup == modelhost.Warmup(2, 1, "input 'x': too long")
    assert (original.tolerance, original.require_warmup, original.requested_engine) == (1e-3, True, None)
    assert (original.memory.private_bytes, original.memory.shared_bytes) == (13 << 20, 97 << 20)
    assert (original.derived_from, original.derivation) == (None, "")
    assert (made.derived_from, made.derivation, made.requested_engine) == (1, "dynamic_int8", "LITERT")


def test_a_version_that_was_never_available_tells_nothing() -> None:
    version = modelhost._messages.version_info("s", "m", model_pb2.Version(version=1))
    assert (version.engine, version.warmup) == (None, None)


# Waiting for the engine


def news(served: EngineServed, kind: int, revision: int, tuning: int, number: int = 1, state: int = 2) -> Any:
    """An event of a version that is AVAILABLE, unless told otherwise."""
    message = event(kind, revision)
    served.service.tuning = tuning  # type: ignore[assignment]
    message.version.CopyFrom(served.service.version(number))
    message.version.state = state  # type: ignore[assignment]
    return message


OFF, WAITING, RUNNING, DONE = 1, 2, 3, 4
LOADING, AVAILABLE, UNLOADING, FAILED = 1, 2, 3, 5


@pytest.mark.parametrize("tuning", [OFF, DONE])
def test_an_engine_that_is_settled_is_not_waited_for(client: Any, served: EngineServed, tuning: int) -> None:
    served.service.watches = [[news(served, EXISTING, 0, tuning, number=2)]]
    version = client.wait_tuned("half")
    assert (version.version, version.state, version.engine.is_settled) == (2, "AVAILABLE", True)
    assert "serving_default" in version.signatures


def test_the_search_for_an_engine_is_waited_for(client: Any, served: EngineServed) -> None:
    served.service.watches = [
        [
            news(served, EXISTING, 0, DONE, number=2),
            news(served, EXISTING, 0, WAITING),
            event(SYNCED, 7),
            news(served, CHANGED, 8, RUNNING),
            Refused(code_pb2.UNAVAILABLE, "SERVER_DRAINING"),
        ],
        [
            # Its worker died.
            news(served, CHANGED, 9, DONE, state=LOADING),
            news(served, CHANGED, 10, DONE),
        ],
    ]
    version = client.wait_tuned("half@1")
    assert (version.version, version.engine.tuning, version.revision) == (1, "DONE", 0)
    first, second = served.service.seen("WatchModels")
    assert (first.scope, first.model, first.from_revision, second.from_revision) == ("default", "half", 0, 8)


@pytest.mark.parametrize(
    ("events", "error", "told"),
    [
        ([(EXISTING, UNLOADING)], modelhost.NotFoundError, "version 1 of default/half@stable was unloaded meanwhile"),
        ([SYNCED], modelhost.NotFoundError, "unloaded meanwhile"),
        ([(EXISTING, LOADING), SYNCED, (CHANGED, FAILED)], modelhost.ModelFailedError, "failed to load"),
        # A new server, which does not know the version.
        ([(EXISTING, LOADING), SYNCED, SYNCED], modelhost.NotFoundError, "unloaded meanwhile"),
    ],
)
def test_an_engine_that_will_never_come(
    client: Any, served: EngineServed, events: list[Any], error: type[Exception], told: str
) -> None:
    served.service.watches = [
        [event(SYNCED, 7) if item == SYNCED else news(served, item[0], 8, WAITING, state=item[1]) for item in events]
    ]
    with pytest.raises(error, match=told):
        client.wait_tuned("half@stable")


def test_the_wait_for_an_engine_has_an_end(client: Any, served: EngineServed) -> None:
    served.service.hangs = True
    served.service.watches = [[news(served, EXISTING, 0, RUNNING), event(SYNCED, 7)]]
    with pytest.raises(TimeoutError, match=r"for default/half@1 was not over within 0\.3 s; it goes on"):
        client.wait_tuned("half", version=1, timeout=0.3)
    with pytest.raises(modelhost.NotFoundError):
        client.wait_tuned("nope", timeout=10)


def test_the_wait_for_an_engine_has_an_end_though_the_server_is_gone(client: Any, served: EngineServed) -> None:
    gone = Refused(code_pb2.UNAVAILABLE, "SERVER_DRAINING")
    served.service.watches = [[news(served, EXISTING, 0, RUNNING), event(SYNCED, 7), gone], *[[gone]] * 20]
    with pytest.raises(TimeoutError):
        client.wait_tuned("half@1", timeout=0.5)
    assert len(served.service.seen("WatchModels")) > 1


# Several models at once


def test_several_models_are_asked_in_one_call(client: Any, served: EngineServed) -> None:
    first, second, third = client.predict_many(["half", "nope", "half@3"], {"x": X}, outputs=["y"])
    assert first["y"].tolist() == [2.5, 3, 4.5]
    assert (first.version, third.version) == (1, 3)
    assert isinstance(second, modelhost.NotFoundError)
    assert second.reason == "MODEL_NOT_FOUND"
    ((name, request, metadata),) = served.service.calls
    assert (name, request.scope, list(request.output_filter)) == ("PredictMany", "default", ["y"])
    assert metadata["modelhost-scope"] == "default"


def test_how_several_models_are_named(client: Any, served: EngineServed) -> None:
    targets = ["a", "team/b@stable", PredictTarget("c", signature="other", version=4), PredictTarget("d", label="x")]
    client.predict_many(targets, {"x": X}, scope="team")
    client.predict_many(["team/a", "team/b"], {"x": X})
    client.predict_many([], {"x": X})
    first, second, third = served.service.seen("PredictMany")
    assert [(t.model, t.version, t.label, t.signature) for t in first.targets] == [
        ("a", 0, "", ""),
        ("b", 0, "stable", ""),
        ("c", 4, "", "other"),
        ("d", 0, "x", ""),
    ]
    assert (first.scope, second.scope, third.scope) == ("team", "team", "default")


@pytest.mark.parametrize(
    ("models", "scope", "told"),
    [
        (["a", "team/b"], None, "of one scope; got some of 'default' and of 'team'"),
        (["team/a"], "other", "'other' and of 'team'"),
        (["a b"], None, "expected letters"),
        ([PredictTarget("a@1", version=2)], None, "say the version once"),
    ],
)
def test_several_models_named_wrongly(
    client: Any, served: EngineServed, models: list[Any], scope: str | None, told: str
) -> None:
    with pytest.raises(modelhost.InvalidRequestError, match=told):
        client.predict_many(models, {"x": X}, scope=scope)
    assert not served.service.calls


def test_lists_become_what_the_first_model_with_a_signature_wants(client: Any, served: EngineServed) -> None:
    for inputs in ([1.0, 2, 5], {"x": [1, 2, 5]}, X):
        failed, answer = client.predict_many(["nope", "half"], inputs)
        assert failed.reason == "MODEL_NOT_FOUND"
        assert answer["y"].tolist() == [2.5, 3, 4.5]
    # The signature of "half" is learnt once; "nope" is asked after each time.
    assert [request.model for request in served.service.seen("GetModel")] == ["nope", "half", "nope", "nope"]


def test_inputs_that_no_model_lets_understand(client: Any, served: EngineServed) -> None:
    first, second = client.predict_many(["nope", "half"], [["text"]])
    assert isinstance(first, modelhost.NotFoundError)
    assert isinstance(second, modelhost.InvalidInputError)
    assert not served.service.seen("PredictMany")
    served.service.refuse["GetModel"] = Refused(code_pb2.NOT_FOUND, "SCOPE_NOT_FOUND")
    with pytest.raises(modelhost.NotFoundError, match="scope_not_found"):
        client.predict_many(["nope", "nobody"], [1.0])


def test_several_models_of_a_server_that_is_not_there(connect: Callable[..., Any]) -> None:
    client = connect("unix:/no/such/socket")
    for inputs in ([1.0], {"x": X}):
        with pytest.raises(modelhost.UnreachableError):
            client.predict_many(["half"], inputs)


def test_one_of_several_that_changed_is_learnt_again(client: Any, served: EngineServed) -> None:
    client.predict_many(["half"], [1.0])
    served.service.dtype = FLOAT64
    (stale,) = client.predict_many(["half"], [1.0])
    assert stale.reason == "INPUT_DTYPE_MISMATCH"
    (fresh,) = client.predict_many(["half"], [1.0])
    assert fresh["y"].dtype == np.float64


# Optimizations


def test_an_optimization_says_what_it_was_told(
    client: Any, served: EngineServed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here.npz").touch()
    monkeypatch.chdir(tmp_path)
    client.optimize(
        "team/half@3", OptimizationMethod.PRUNE, sparsity=0.5, samples_file="here.npz", new_version=9, labels=["small"]
    )
    samples = [{"x": [1, 2]}, X, Sample({"x": X}, "serving_default")]
    client.optimize("half", "full_int8", label="stable", samples=samples, true_classes=np.array([3, 1, 2]))
    first, second = served.service.seen("OptimizeModel")
    assert (first.scope, first.model, first.version, first.new_version) == ("team", "half", 3, 9)
    assert (first.method, first.sparsity) == (optimization_pb2.OPTIMIZATION_METHOD_PRUNE, 0.5)
    assert (first.samples_file, list(first.new_labels)) == (str(tmp_path / "here.npz"), ["small"])
    assert (second.method, second.label) == (optimization_pb2.OPTIMIZATION_METHOD_FULL_INT8, "stable")
    assert [list(sample.inputs["x"].shape) for sample in second.samples] == [[2], [3], [3]]
    assert {sample.inputs["x"].dtype for sample in second.samples} == {FLOAT32}
    assert [sample.signature for sample in second.samples] == ["", "", "serving_default"]
    assert list(second.true_classes) == [3, 1, 2]
    assert first.request_id != second.request_id


def test_every_method_has_its_word(client: Any, served: EngineServed) -> None:
    for method in OptimizationMethod:
        client.optimize("half", method)
    methods = [request.method for request in served.service.seen("OptimizeModel")]
    assert methods == [number for number in optimization_pb2.OptimizationMethod.values() if number]


def test_an_optimization_reports(client: Any) -> None:
    seen: list[modelhost.OptimizationProgress] = []
    report = client.optimize("half", "dynamic_int8", on_progress=seen.append)
    assert seen == [
        modelhost.OptimizationProgress("CONVERTING", 0.5),
        modelhost.OptimizationProgress("LOADING", 1.0),
    ]
    assert (report.version.model, report.version.version, report.original_version) == ("half", 2, 1)
    assert report.original == modelhost.OptimizationMeasure(
        "TENSORFLOW", 4 << 20, 3 << 20, 8 << 20, 0.002, 1, None, 0.0
    )
    assert (report.optimized.engine, report.optimized.latency_seconds) == ("LITERT", 0.0005)
    assert report.drift == (modelhost.OutputDrift("serving_default", "y", 0.012, 3e-4, 0.99),)
    assert (report.example_count, report.examples_made_up) == (1, True)
    assert report.remarks == ("The answers are nearly the same.",)
    report = client.optimize("half", "dynamic_int8", samples=[{"x": X}], true_classes=[1])
    assert (report.original.accuracy, report.optimized.accuracy) == (0.984, 0.98)


def test_optimizations_that_fail(client: Any, served: EngineServed) -> None:
    with pytest.raises(modelhost.InvalidRequestError, match="method: expected one of dynamic_int8, float16"):
        client.optimize("half", "magic")
    with pytest.raises(modelhost.InvalidInputError):
        client.optimize("half", "full_int8", samples=[{"x": [["text"]]}])
    assert not served.service.seen("OptimizeModel")
    with pytest.raises(modelhost.NotFoundError):
        client.optimize("nope", "float16")
    served.service.reports = False
    with pytest.raises(modelhost.InternalError, match="without a report"):
        client.optimize("half", "float16")


def test_an_optimization_is_sent_again_as_the_same(client: Any, served: EngineServed) -> None:
    served.service.refuse["OptimizeModel"] = Refused(code_pb2.UNAVAILABLE, "SERVER_DRAINING")
    with pytest.raises(modelhost.UnavailableError):
        client.optimize("half", "float16")
    requests = served.service.seen("OptimizeModel")
    assert len(requests) == 3
    assert len({request.request_id for request in requests}) == 1
