"""More models than fit into memory: idle ones make room, and come back when they are wanted."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from modelhost.v1 import model_pb2, prediction_service_pb2, scope_pb2, scope_service_pb2
from modelhost.v1 import model_service_pb2 as pb
from modelhost_server.compat import open_inference_pb2 as inference_pb
from modelhost_server.compat import serving_model_service_pb2 as status_pb
from modelhost_server.compat import serving_prediction_service_pb2 as serving_pb
from support.building import built
from support.calls import eventually, scope_of
from support.predict import SECONDS, Failure, array, describe, error_of, failure, load, new_scope, request
from support.server import ServerProcess, Stubs

COUNT, FIT = 6, 3
X = np.zeros((1, 1000), np.float32)
X[0, 0] = 1000.0
EVICTABLE = {"evictable": True, "engine": model_pb2.ENGINE_TENSORFLOW}


@pytest.fixture(scope="module")
def tellers() -> Path:
    return built("build_weights")


@pytest.fixture(scope="module")
def library_pages(tellers: Path) -> Iterator[None]:
    """Another server's worker that has a library's pages mapped: or they were one's own memory whenever no other test
    happens to run one, more than what a version takes.
    """
    with ServerProcess() as process:
        stubs = Stubs(process.address)
        put(stubs, "default", tellers, 0)
        assert ask(stubs, "default", 0) == 0
        yield
        stubs.close()


@pytest.fixture(scope="module")
def own_server(library_pages: None) -> Iterator[ServerProcess]:
    with ServerProcess() as process:
        yield process


@pytest.fixture(scope="module")
def own(own_server: ServerProcess) -> Iterator[Stubs]:
    stubs = Stubs(own_server.address)
    yield stubs
    stubs.close()


def ask(stubs: Stubs, scope: str, number: int, timeout: float = SECONDS, **fields: Any) -> int:
    """What a teller tells."""
    message = request(scope, f"teller_{number}", {"x": X}, **fields)
    return round(float(array(stubs.predictions.Predict(message, timeout=timeout).outputs["y"])[0, 0]))


def put(stubs: Stubs, scope: str, tellers: Path, number: int, model: str = "", **options: Any) -> model_pb2.Version:
    return load(stubs, scope, tellers / f"teller_{number}", model=model, options={**EVICTABLE, **options})


def states(stubs: Stubs, scope: str) -> dict[str, str]:
    """The states of the newest versions, by model."""
    models = stubs.models.ListModels(pb.ListModelsRequest(scope=scope), timeout=SECONDS).models
    return {m.model: model_pb2.VersionState.Name(m.versions[0].state).removeprefix("VERSION_STATE_") for m in models}


def evicted(stubs: Stubs, scope: str) -> list[int]:
    return [int(name.rpartition("_")[2]) for name, state in states(stubs, scope).items() if state == "EVICTED"]


def limit(stubs: Stubs, scope: str, count: int) -> None:
    config = scope_pb2.ScopeConfig(memory_limit_bytes=count)
    change = scope_service_pb2.UpdateScopeRequest(
        scope=scope, config=config, update_mask={"paths": ["memory_limit_bytes"]}
    )
    stubs.scopes.UpdateScope(change, timeout=SECONDS)


def fill(stubs: Stubs, scope: str, tellers: Path, count: int = COUNT) -> None:
    """Loads tellers under a limit that only some fit into."""
    for number in range(FIT):
        put(stubs, scope, tellers, number)
        assert ask(stubs, scope, number) == number
    limit(stubs, scope, scope_of(stubs, scope).memory.private_bytes + (3 << 20))
    for number in range(FIT, count):
        put(stubs, scope, tellers, number)


@pytest.fixture
def full(own: Stubs, tellers: Path) -> Iterator[str]:
    # One scope at a time: of files that several workers have mapped, none is any one's own memory.
    with new_scope(own, "full") as name:
        fill(own, name, tellers)
        yield name


def test_all_answer_in_turn_though_some_fit_only(own: Stubs, full: str) -> None:
    assert len(evicted(own, full)) >= COUNT - FIT
    for number in [*range(COUNT), *reversed(range(COUNT))]:
        assert ask(own, full, number) == number
        # The limit is kept at loads; runs may take a little more after that, but no model's worth of it.
        assert scope_of(own, full).memory.private_bytes < scope_of(own, full).config.memory_limit_bytes + (6 << 20)
    counts = scope_of(own, full).statistics
    assert counts.miss_count >= COUNT - FIT
    assert counts.eviction_count >= counts.miss_count
    assert counts.hit_count + counts.miss_count == 2 * COUNT + FIT
    assert counts.worker_restarts == 0
    first = describe(own, full, "teller_0")
    assert first.statistics.load_count == first.statistics.miss_count + 1
    assert first.statistics.total_load_ns > first.statistics.load_ns > 0


def test_who_waits_for_one_version_shares_its_load(own: Stubs, full: str) -> None:
    number = evicted(own, full)[0]
    before = describe(own, full, f"teller_{number}").statistics
    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(lambda _: ask(own, full, number), range(50)))
    assert answers == [number] * 50
    after = describe(own, full, f"teller_{number}").statistics
    assert after.load_count == before.load_count + 1
    assert after.miss_count + after.hit_count == before.miss_count + before.hit_count + 50
    assert after.miss_count > before.miss_count


def test_an_evicted_version_is_served_in_every_protocol(own: Stubs, full: str) -> None:
    number = evicted(own, full)[0]
    model, name = f"teller_{number}", f"{full}/teller_{number}"

    def call(method: str, message: Any, answer: Any) -> Any:
        return own.channel.unary_unary(
            method, request_serializer=lambda m: m.SerializeToString(), response_deserializer=answer.FromString
        )(message, timeout=SECONDS)

    status = call(
        "/tensorflow.serving.ModelService/GetModelStatus",
        status_pb.GetModelStatusRequest(model_spec={"name": name}), status_pb.GetModelStatusResponse,
    )  # fmt: skip
    assert [each.state for each in status.model_version_status] == [status_pb.ModelVersionStatus.AVAILABLE]
    metadata = call(
        "/tensorflow.serving.PredictionService/GetModelMetadata",
        serving_pb.GetModelMetadataRequest(model_spec={"name": name}, metadata_field=["signature_def"]),
        serving_pb.GetModelMetadataResponse,
    )
    assert metadata.model_spec.version.value == 1
    inference = "/inference.GRPCInferenceService/"
    ready = inference_pb.ModelReadyRequest(name=name)
    assert call(f"{inference}ModelReady", ready, inference_pb.ModelReadyResponse).ready
    told = call(
        f"{inference}ModelMetadata", inference_pb.ModelMetadataRequest(name=name), inference_pb.ModelMetadataResponse
    )
    assert [tensor.name for tensor in told.inputs] == ["x"]
    index = call(
        f"{inference}RepositoryIndex", inference_pb.RepositoryIndexRequest(), inference_pb.RepositoryIndexResponse
    )
    assert {entry.name: entry.state for entry in index.models}[name] == "READY"
    described = describe(own, full, model)
    assert described.signatures[0].name == "serving_default"
    assert described.memory.private_bytes == 0
    # None of that has loaded it; an inference does.
    assert describe(own, full, model).state == model_pb2.VERSION_STATE_EVICTED
    tensor = inference_pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 1000])
    infer = inference_pb.ModelInferRequest(model_name=name, inputs=[tensor], raw_input_contents=[X.tobytes()])
    outputs = call(f"{inference}ModelInfer", infer, inference_pb.ModelInferResponse).raw_output_contents
    assert round(float(np.frombuffer(outputs[0], np.float32)[0])) == number


def test_streams_and_many_models_at_once_load_what_they_need(own: Stubs, full: str) -> None:
    targets = [prediction_service_pb2.PredictManyTarget(model=f"teller_{n}") for n in range(COUNT)]
    many = prediction_service_pb2.PredictManyRequest(
        scope=full, targets=targets, inputs=request(full, "", {"x": X}).inputs
    )
    answers = own.predictions.PredictMany(many, timeout=SECONDS).results
    assert [round(float(array(a.response.outputs["y"])[0, 0])) for a in answers] == list(range(COUNT))
    number = evicted(own, full)[0]
    streamed = prediction_service_pb2.StreamedRequest(id=7, request=request(full, f"teller_{number}", {"x": X}))
    stream = own.predictions.PredictStream(
        iter([prediction_service_pb2.PredictStreamRequest(requests=[streamed])]), timeout=SECONDS
    )
    (answer,) = next(stream).responses
    assert round(float(array(answer.response.outputs["y"])[0, 0])) == number


def test_what_is_not_right_loads_nothing(own: Stubs, full: str) -> None:
    model = f"teller_{evicted(own, full)[0]}"
    refusal = error_of(lambda: own.predictions.Predict(request(full, model, {"z": X}), timeout=SECONDS))
    assert refusal.reason == "INPUT_MISSING"
    assert describe(own, full, model).state == model_pb2.VERSION_STATE_EVICTED


def test_the_deadline_counts_while_a_version_is_loaded_and_the_load_goes_on(
    own: Stubs, own_server: ServerProcess, full: str
) -> None:
    number = evicted(own, full)[0]
    workers = own_server.workers()
    # Nothing is loaded before the deadline has passed.
    for worker in workers:
        worker.suspend()
    try:
        with pytest.raises(grpc.RpcError) as caught:
            ask(own, full, number, timeout=0.2)
    finally:
        for worker in workers:
            worker.resume()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
    assert eventually(lambda: states(own, full)[f"teller_{number}"] == "AVAILABLE")
    assert ask(own, full, number) == number


def test_labels_and_unloads_of_evicted_versions(own: Stubs, full: str) -> None:
    number, other = evicted(own, full)[:2]
    labels = pb.SetLabelsRequest(scope=full, model=f"teller_{number}", labels={"stable": 1})
    assert dict(own.models.SetLabels(labels, timeout=SECONDS).labels) == {"stable": 1}
    assert describe(own, full, f"teller_{number}").state == model_pb2.VERSION_STATE_EVICTED
    assert ask(own, full, number, label="stable") == number
    unload = pb.UnloadModelRequest(scope=full, model=f"teller_{other}", all_versions=True)
    assert list(own.models.UnloadModel(unload, timeout=SECONDS).versions) == [1]
    assert f"teller_{other}" not in states(own, full)


def test_a_new_version_takes_the_place_of_an_evicted_one(own: Stubs, full: str, tellers: Path) -> None:
    number = evicted(own, full)[0]
    put(own, full, tellers, (number + 1) % COUNT, model=f"teller_{number}", tolerance=1e-3)
    assert eventually(lambda: describe(own, full, f"teller_{number}").version == 2)
    models = own.models.GetModel(pb.GetModelRequest(scope=full, model=f"teller_{number}"), timeout=SECONDS).model
    assert [version.version for version in models.versions if version.state == model_pb2.VERSION_STATE_AVAILABLE] == [2]
    assert ask(own, full, number) == (number + 1) % COUNT


def test_a_load_asked_for_again_loads_an_evicted_version(own: Stubs, full: str, tellers: Path) -> None:
    number = evicted(own, full)[0]
    assert put(own, full, tellers, number).state == model_pb2.VERSION_STATE_AVAILABLE


def test_a_killed_worker_comes_back_with_what_fits(own: Stubs, own_server: ServerProcess, full: str) -> None:
    kept = sorted(set(range(COUNT)) - set(evicted(own, full)))
    for worker in own_server.workers():
        worker.send_signal(signal.SIGKILL)
    assert eventually(lambda: scope_of(own, full).statistics.worker_restarts == 1)
    assert eventually(lambda: "LOADING" not in states(own, full).values())
    assert set(states(own, full).values()) == {"AVAILABLE", "EVICTED"}
    for number in (*kept, *range(COUNT)):
        assert ask(own, full, number) == number


def test_a_worker_killed_during_a_reload_costs_no_version(own: Stubs, own_server: ServerProcess, full: str) -> None:
    for number in evicted(own, full)[:3]:
        waiting = threading.Thread(target=_try, args=(lambda n=number: ask(own, full, n),))
        waiting.start()
        for worker in own_server.workers():
            worker.send_signal(signal.SIGKILL)
        waiting.join()
        # One that is being loaded at each death is blamed for them.
        assert eventually(lambda: "LOADING" not in states(own, full).values())
    assert eventually(lambda: all(_try(lambda n=n: ask(own, full, n)) == n for n in range(COUNT)))
    assert "FAILED" not in states(own, full).values()


def _try(call: Callable[[], int]) -> int | None:
    """What is answered, if anything is."""
    try:
        return call()
    except grpc.RpcError as error:
        if failure(error).code in ("UNAVAILABLE", "RESOURCE_EXHAUSTED"):
            return None
        raise


def test_pinned_and_plain_versions_stay_and_nothing_collapses(own: Stubs, tellers: Path) -> None:
    with new_scope(own, "pinned") as scope:
        put(own, scope, tellers, 0, pinned=True, evictable=False)
        put(own, scope, tellers, 1, evictable=False)
        put(own, scope, tellers, 2)
        limit(own, scope, scope_of(own, scope).memory.private_bytes + (3 << 20))
        put(own, scope, tellers, 3)
        assert states(own, scope)["teller_2"] == "EVICTED"
        refusal = error_of(lambda: put(own, scope, tellers, 4, evictable=False) and put(own, scope, tellers, 5))
        assert refusal.reason == "MEMORY_LIMIT"
        assert states(own, scope)["teller_0"] == states(own, scope)["teller_1"] == "AVAILABLE"
        refusal = error_of(lambda: ask(own, scope, 2))
        assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "MEMORY_LIMIT")
        assert states(own, scope)["teller_2"] == "EVICTED"
        assert [ask(own, scope, number) for number in (0, 1)] == [0, 1]


def test_when_too_many_are_wanted_at_once_some_may_be_refused_and_all_others_are_answered(
    own: Stubs, full: str
) -> None:
    """How many are refused, if any, depends on how fast they are loaded."""
    enough = scope_of(own, full).config.memory_limit_bytes
    # Room for two: besides its versions, a worker takes some MB more when many are loaded and run at once.
    limit(own, full, enough - (FIT - 2) * (6 << 20))

    def hammer(number: int) -> list[Failure]:
        refused = []
        for _ in range(15):
            try:
                assert ask(own, full, number) == number
            except grpc.RpcError as error:
                refused.append(failure(error))
        return refused

    with ThreadPoolExecutor(COUNT) as threads:
        refused = [one for each in threads.map(hammer, range(COUNT)) for one in each]
    limit(own, full, enough)
    assert {one.code for one in refused} <= {"RESOURCE_EXHAUSTED"}
    assert all(one.retry_delay is not None for one in refused), [
        (one.reason, one.message) for one in refused if not one.retry_delay
    ][:5]
    counts = scope_of(own, full).statistics
    assert [one.reason for one in refused].count("THRASHING") == counts.thrashing_count
    assert counts.eviction_count > 0
    assert counts.worker_restarts == 0


def test_an_idle_version_is_evicted_and_its_memory_given_back(own: Stubs, tellers: Path) -> None:
    with new_scope(own, "idle") as scope:
        put(own, scope, tellers, 1, evictable=False, idle_timeout={"nanos": 300_000_000})
        loaded = scope_of(own, scope).memory.private_bytes
        assert ask(own, scope, 1) == 1
        assert eventually(lambda: states(own, scope) == {"teller_1": "EVICTED"})
        assert eventually(lambda: scope_of(own, scope).memory.private_bytes < loaded - (5 << 20))
        assert ask(own, scope, 1) == 1
        assert eventually(lambda: describe(own, scope, "teller_1").statistics.eviction_count == 2)


def test_a_version_that_comes_back_takes_no_place_of_what_was_loaded_since(
    own: Stubs, own_server: ServerProcess, tellers: Path
) -> None:
    def versions() -> dict[int, str]:
        (model,) = own.models.ListModels(pb.ListModelsRequest(scope=scope), timeout=SECONDS).models
        return {v.version: model_pb2.VersionState.Name(v.state) for v in model.versions}

    with new_scope(own, "back") as scope:
        for number, options in ((2, {"idle_timeout": {"nanos": 100_000_000}}), (1, {"pinned": True})):
            chosen = {"engine": model_pb2.ENGINE_TENSORFLOW, **options}
            load(own, scope, tellers / f"teller_{number}", model="m", version=number, options=chosen)
        eventually(lambda: versions()[2] == "VERSION_STATE_EVICTED")
        answer = own.predictions.Predict(request(scope, "m", {"x": X}), timeout=SECONDS)
        assert round(float(array(answer.outputs["y"])[0, 0])) == 2
        # Nor after the death of its worker.
        load(own, scope, tellers / "teller_4", model="m", version=4, keep_older=True)
        load(own, scope, tellers / "teller_3", model="m", version=3, keep_older=True)
        for worker in own_server.workers():
            worker.send_signal(signal.SIGKILL)
        eventually(lambda: versions()[4] == versions()[3] == versions()[1] == "VERSION_STATE_AVAILABLE")
        assert set(versions()) == {1, 2, 3, 4}


def test_a_watcher_sees_it_go_and_come(own: Stubs, full: str) -> None:
    number = evicted(own, full)[0]
    watch = own.models.WatchModels(pb.WatchModelsRequest(scope=full, model=f"teller_{number}"), timeout=SECONDS)
    events = iter(watch)
    assert next(events).version.state == model_pb2.VERSION_STATE_EVICTED
    assert next(events).type == pb.WATCH_EVENT_TYPE_SYNCED
    assert ask(own, full, number) == number
    seen = [next(events).version.state for _ in range(2)]
    assert seen == [model_pb2.VERSION_STATE_LOADING, model_pb2.VERSION_STATE_AVAILABLE]
    watch.cancel()


def test_the_servers_limit_evicts_across_scopes(own: Stubs, tellers: Path) -> None:
    def load_all(stubs: Stubs, *scopes: str) -> None:
        for number in range(COUNT):
            put(stubs, scopes[number % 2], tellers, number)

    with new_scope(own, "one") as one, new_scope(own, "two") as two:
        load_all(own, one, two)
        enough = sum(scope_of(own, scope).memory.private_bytes for scope in (one, two))
    with ServerProcess("--memory-limit-bytes", str(enough - (9 << 20))) as server:
        stubs = Stubs(server.address)
        with new_scope(stubs, "other") as other:
            load_all(stubs, "default", other)
            for number in [*range(COUNT), *range(COUNT)]:
                assert ask(stubs, ("default", other)[number % 2], number) == number
            assert all(scope_of(stubs, scope).statistics.eviction_count for scope in ("default", other))
        stubs.close()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"pinned": True, "evictable": True}, "options.pinned"),
        ({"pinned": True, "evictable": False, "idle_timeout": {"seconds": 1}}, "options.pinned"),
        ({"idle_timeout": {"seconds": 0}}, "options.idle_timeout"),
        ({"idle_timeout": {"seconds": -1}}, "options.idle_timeout"),
        ({"idle_timeout": {"seconds": 1 << 40}}, "options.idle_timeout"),
    ],
)
def test_options_that_contradict_each_other(own: Stubs, tellers: Path, options: Any, field: str) -> None:
    refusal = error_of(lambda: put(own, "default", tellers, 0, **options))
    assert (refusal.code, refusal.reason, refusal.fields) == ("INVALID_ARGUMENT", "INVALID_REQUEST", (field,))
