"""Loading, reloading, unloading, watching: what ModelService promises."""

import os
import shutil
import threading
import uuid

import grpc
import psutil
import pytest
from modelhost.v1 import error_pb2, model_pb2, prediction_service_pb2, scope_service_pb2
from modelhost.v1 import model_service_pb2 as pb
from support.calls import (
    eventually,
    failure,
    half,
    load,
    request,
    scalar,
    scope_of,
    slow_call,
    unload,
    vector,
    version_of,
)
from support.predict import streamed

AVAILABLE = model_pb2.VERSION_STATE_AVAILABLE


def test_versions_count_up_and_the_newest_serves(stubs, scope, models):
    assert load(stubs, scope, "half", models / "half_plus_two", keep_older=True).version == 1
    assert load(stubs, scope, "half", models / "half_plus_three", keep_older=True).version == 2
    assert half(stubs, scope) == 5.0
    older = stubs.predictions.Predict(request(scope, "half", 1, x=vector(4.0)))
    assert older.version == 1
    assert unload(stubs, scope, "half", version=2) == [2]
    assert half(stubs, scope) == 4.0


def test_a_reload_takes_the_place_of_the_older_version_without_a_failed_call(stubs, scope, models):
    load(stubs, scope, "half", models / "half_plus_two")
    answers, failures, done = [], [], threading.Event()

    def call():
        while not done.is_set():
            try:
                answers.append(half(stubs, scope))
            except grpc.RpcError as error:
                failures.append(error)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    for i in range(10):
        load(stubs, scope, "half", models / ("half_plus_three" if i % 2 == 0 else "half_plus_two"))
    done.set()
    for caller in callers:
        caller.join()
    assert not failures
    assert set(answers) == {4.0, 5.0}

    def numbers():
        model = stubs.models.GetModel(pb.GetModelRequest(scope=scope, model="half")).model
        return [version.version for version in model.versions]

    assert eventually(lambda: numbers() == [11])


def test_a_labelled_version_is_kept_and_the_label_moves(stubs, scope, models):
    load(stubs, scope, "half", models / "half_plus_two", labels=["stable"])
    load(stubs, scope, "half", models / "half_plus_three", labels=["canary"])

    def by_label(label):
        message = prediction_service_pb2.PredictRequest(scope=scope, model="half", label=label, inputs={"x": vector(1)})
        return stubs.predictions.Predict(message).version

    assert (by_label("stable"), by_label("canary")) == (1, 2)
    load(stubs, scope, "half", models / "half_plus_two", labels=["stable"])
    assert by_label("stable") == 3
    assert failure(lambda: by_label("gone"))[:2] == (grpc.StatusCode.NOT_FOUND, "LABEL_NOT_FOUND")


def test_the_same_load_is_answered_with_the_version_that_exists(stubs, scope, models):
    again = {"request_id": str(uuid.uuid4())}
    first = load(stubs, scope, "half", models / "half_plus_two", **again)
    assert load(stubs, scope, "half", models / "half_plus_two", **again).version == first.version
    assert load(stubs, scope, "half", models / "half_plus_two", version=1).version == 1
    other = failure(lambda: load(stubs, scope, "half", models / "half_plus_three", version=1))
    assert other[:2] == (grpc.StatusCode.ALREADY_EXISTS, "VERSION_ALREADY_EXISTS")


def test_a_directory_of_versions_gives_its_newest_or_the_one_asked_for(stubs, scope, models, tmp_path):
    shutil.copytree(models / "half_plus_two", tmp_path / "7")
    shutil.copytree(models / "half_plus_three", tmp_path / "12")
    assert load(stubs, scope, "newest", tmp_path).version == 12
    assert load(stubs, scope, "asked", tmp_path, version=7).version == 7
    assert (half(stubs, scope, "newest"), half(stubs, scope, "asked")) == (5.0, 4.0)


def test_a_load_that_nobody_waits_for_goes_on(stubs, scope, models):
    message = pb.LoadModelRequest(scope=scope, model="half", source=str(models / "half_plus_two"), no_wait=True)
    assert stubs.models.LoadModel(message).version.state == model_pb2.VERSION_STATE_LOADING
    assert eventually(lambda: version_of(stubs, scope, "half").state == AVAILABLE)


def test_a_failed_load_says_why_and_its_number_is_free_again(stubs, scope, models, tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"\x0a\xff not a model")
    assert failure(lambda: load(stubs, scope, "half", tmp_path))[1] == "SOURCE_INVALID"
    assert version_of(stubs, scope, "half").state == model_pb2.VERSION_STATE_FAILED
    assert load(stubs, scope, "half", models / "half_plus_two").version == 1


def test_unload_waits_for_calls_under_way(stubs, scope, models):
    load(stubs, scope, "slow", models / "slow")
    call = slow_call(stubs, scope, 100_000)
    eventually(lambda: version_of(stubs, scope, "slow").statistics.in_flight)
    unload(stubs, scope, "slow")
    assert call.done()
    assert call.result().outputs["steps"].raw == (100_000).to_bytes(4, "little")


def test_unload_does_not_wait_for_ever(stubs, models):
    create = scope_service_pb2.CreateScopeRequest(scope="impatient")
    create.config.drain_timeout.FromMilliseconds(300)
    stubs.scopes.CreateScope(create)
    load(stubs, "impatient", "slow", models / "slow")
    load(stubs, "impatient", "half", models / "half_plus_two")
    call = slow_call(stubs, "impatient", 1_000_000_000)
    eventually(lambda: version_of(stubs, "impatient", "slow").statistics.in_flight)
    unload(stubs, "impatient", "slow")
    assert half(stubs, "impatient") == 4.0
    assert failure(call.result)[0] is grpc.StatusCode.UNAVAILABLE
    assert half(stubs, "impatient") == 4.0
    stubs.scopes.DeleteScope(scope_service_pb2.DeleteScopeRequest(scope="impatient", force=True))


def test_a_load_that_hangs_can_be_ended(stubs, models, tmp_path):
    create = scope_service_pb2.CreateScopeRequest(scope="hanging")
    create.config.drain_timeout.FromMilliseconds(300)
    stubs.scopes.CreateScope(create)
    load(stubs, "hanging", "half", models / "half_plus_two")
    hanging = tmp_path / "model"
    shutil.copytree(models / "half_plus_two", hanging)
    data = hanging / "variables" / "variables.data-00000-of-00001"
    data.unlink()
    os.mkfifo(data)
    load(stubs, "hanging", "stuck", hanging, no_wait=True)
    eventually(lambda: version_of(stubs, "hanging", "stuck").progress.stage == model_pb2.LOAD_STAGE_READING)
    assert half(stubs, "hanging") == 4.0, "a load that hangs holds up no predictions"
    unload(stubs, "hanging", "stuck")
    assert eventually(lambda: half(stubs, "hanging") == 4.0)
    load(stubs, "hanging", "more", models / "half_plus_three")
    assert half(stubs, "hanging", "more") == 5.0
    stubs.scopes.DeleteScope(scope_service_pb2.DeleteScopeRequest(scope="hanging", force=True))


def test_a_scope_goes_though_a_model_of_it_goes_by_itself(stubs, models):
    stubs.scopes.CreateScope(scope_service_pb2.CreateScopeRequest(scope="going"))
    load(stubs, "going", "slow", models / "slow")
    load(stubs, "going", "half", models / "half_plus_two")
    call = slow_call(stubs, "going", 200_000)
    eventually(lambda: scope_of(stubs, "going").statistics.in_flight == 1)
    deletion = stubs.scopes.DeleteScope.future(scope_service_pb2.DeleteScopeRequest(scope="going", force=True))
    eventually(lambda: version_of(stubs, "going", "slow").state == model_pb2.VERSION_STATE_UNLOADING)
    unload(stubs, "going", "half")
    assert call.result()
    deletion.result()
    stubs.scopes.CreateScope(scope_service_pb2.CreateScopeRequest(scope="going"))
    stubs.scopes.DeleteScope(scope_service_pb2.DeleteScopeRequest(scope="going"))


def test_unloading_the_last_model_replaces_the_worker(server, stubs, models):
    before = {worker.pid for worker in server.workers()}
    stubs.scopes.CreateScope(scope_service_pb2.CreateScopeRequest(scope="shrinking"))
    load(stubs, "shrinking", "half", models / "half_plus_two")
    (old,) = [worker for worker in server.workers() if worker.pid not in before]
    unload(stubs, "shrinking", "half")
    assert not psutil.pid_exists(old.pid)
    load(stubs, "shrinking", "half", models / "half_plus_two")
    assert half(stubs, "shrinking") == 4.0
    assert scope_of(stubs, "shrinking").statistics.worker_restarts == 0
    stubs.scopes.DeleteScope(scope_service_pb2.DeleteScopeRequest(scope="shrinking", force=True))


def test_a_change_of_threads_moves_the_models_to_a_new_worker_without_a_failed_call(server, stubs, scope, models):
    load(stubs, scope, "half", models / "half_plus_two")
    failures, done = [], threading.Event()

    def call():
        while not done.is_set():
            try:
                half(stubs, scope)
            except grpc.RpcError as error:
                failures.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    before = {worker.pid for worker in server.workers()}
    for threads in (2, 1, 2):
        update = scope_service_pb2.UpdateScopeRequest(scope=scope, update_mask={"paths": ["intra_op_threads"]})
        update.config.intra_op_threads = threads
        assert stubs.scopes.UpdateScope(update).scope.config.intra_op_threads == threads
    done.set()
    caller.join()
    assert not failures
    assert {worker.pid for worker in server.workers()} - before


def test_load_models_streams_progress_and_one_failure_stops_no_other(stubs, scope, models):
    loads = [
        pb.LoadModelRequest(scope=scope, model="good", source=str(models / "half_plus_two")),
        pb.LoadModelRequest(scope=scope, model="bad", source="/nowhere/at/all"),
        pb.LoadModelRequest(scope=scope, model="fine", source=str(models / "half_plus_three")),
    ]
    answers = list(stubs.models.LoadModels(pb.LoadModelsRequest(loads=loads), timeout=60))
    ends = {a.index: a.WhichOneof("outcome") for a in answers if a.WhichOneof("outcome") != "progress"}
    assert ends == {0: "loaded", 1: "error", 2: "loaded"}
    assert [a.error.reason for a in answers if a.index == 1] == [error_pb2.ERROR_REASON_SOURCE_NOT_FOUND]
    assert any(a.WhichOneof("outcome") == "progress" for a in answers)
    assert (answers[-1].finished_count, answers[-1].total_count) == (3, 3)
    assert half(stubs, scope, "fine") == 5.0


def test_a_watch_misses_nothing_and_can_go_on_from_a_revision(stubs, scope, models):
    load(stubs, scope, "old", models / "half_plus_two")
    watch = stubs.models.WatchModels(pb.WatchModelsRequest(scope=scope), timeout=60)
    existing, synced = next(watch), next(watch)
    assert (existing.type, existing.model) == (pb.WATCH_EVENT_TYPE_EXISTING, "old")
    assert synced.type == pb.WATCH_EVENT_TYPE_SYNCED
    load(stubs, scope, "new", models / "half_plus_two")
    unload(stubs, scope, "new")
    # Every phase is an event of its own; callers see them as states that may repeat.
    states = [model_pb2.VersionState.Name(next(watch).version.state)[14:] for _ in range(6)]
    assert states == ["LOADING", "LOADING", "AVAILABLE", "UNLOADING", "UNLOADING", "UNLOADED"]
    watch.cancel()
    again = stubs.models.WatchModels(pb.WatchModelsRequest(scope=scope, from_revision=synced.revision), timeout=60)
    assert [next(again).model for _ in range(6)] == ["new"] * 6
    again.cancel()


def test_a_watch_from_a_revision_that_was_never_reached_is_refused(stubs):
    code, reason, _ = failure(lambda: next(stubs.models.WatchModels(pb.WatchModelsRequest(from_revision=10**18))))
    assert (code, reason) == (grpc.StatusCode.OUT_OF_RANGE, "REVISION_COMPACTED")


def test_lists_are_cut_into_pages(stubs, scope, models):
    names = [f"m{i}" for i in range(5)]
    for name in names:
        load(stubs, scope, name, models / "half_plus_two", no_wait=True)
    listed, token = [], ""
    while True:
        page = stubs.models.ListModels(pb.ListModelsRequest(scope=scope, page_size=2, page_token=token))
        assert len(page.models) <= 2
        listed += [model.model for model in page.models]
        token = page.next_page_token
        if not token:
            break
    assert listed == names


@pytest.mark.parametrize("limit", [0, 2])
def test_calls_beyond_the_queue_are_refused_at_once(stubs, models, limit):
    name = f"narrow-{limit}"
    create = scope_service_pb2.CreateScopeRequest(scope=name)
    create.config.max_in_flight, create.config.max_queue = 1, limit or 1
    stubs.scopes.CreateScope(create)
    load(stubs, name, "slow", models / "slow")
    calls = [slow_call(stubs, name, 300_000)]
    eventually(lambda: scope_of(stubs, name).statistics.in_flight == 1)
    for queued in range(1, (limit or 1) + 1):
        calls.append(slow_call(stubs, name, 10))
        eventually(lambda queued=queued: scope_of(stubs, name).statistics.queued == queued)
    code, reason, message = failure(slow_call(stubs, name, 10).result)
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    assert "max_queue" in message
    assert all(call.result() for call in calls)
    assert scope_of(stubs, name).statistics.rejected_count == 1
    stubs.scopes.DeleteScope(scope_service_pb2.DeleteScopeRequest(scope=name, force=True))


def test_a_call_whose_deadline_passes_in_the_queue_is_not_run(stubs, models):
    create = scope_service_pb2.CreateScopeRequest(scope="one-lane")
    create.config.max_in_flight = 1
    stubs.scopes.CreateScope(create)
    load(stubs, "one-lane", "slow", models / "slow")
    first = slow_call(stubs, "one-lane", 200_000)
    eventually(lambda: scope_of(stubs, "one-lane").statistics.in_flight == 1)
    assert failure(slow_call(stubs, "one-lane", 10, timeout=0.2).result)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    assert eventually(lambda: scope_of(stubs, "one-lane").statistics.queued == 0)
    first.result()
    assert version_of(stubs, "one-lane", "slow").statistics.success_count == 1
    stubs.scopes.DeleteScope(scope_service_pb2.DeleteScopeRequest(scope="one-lane", force=True))


def test_a_stream_answers_every_request_and_a_failed_one_does_not_end_it(stubs, scope, models):
    load(stubs, scope, "half", models / "half_plus_two")
    load(stubs, scope, "slow", models / "slow")
    items = [
        prediction_service_pb2.StreamedRequest(id=i, request=request(scope, "half", x=vector(i))) for i in range(1, 300)
    ]
    items.insert(0, prediction_service_pb2.StreamedRequest(id=1000, request=request(scope, "nobody")))
    items.insert(0, prediction_service_pb2.StreamedRequest(id=0, request=request(scope, "slow", steps=scalar(50_000))))
    late = prediction_service_pb2.StreamedRequest(id=2000, request=request(scope, "slow", steps=scalar(300_000)))
    late.timeout.FromMilliseconds(50)
    items.append(late)
    answers = streamed(stubs, items)
    outcomes = {answer.id: answer for answer in answers}
    assert len(answers) == len(outcomes) == len(items)
    assert outcomes[1000].error.code == grpc.StatusCode.NOT_FOUND.value[0]
    assert outcomes[2000].error.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
    assert all(outcomes[i].response.outputs["y"].raw == (vector(i / 2 + 2)).raw for i in range(1, 300))
    assert [answer.id for answer in answers].index(0) > 5, "fast answers overtake a slow one"


def test_the_templates_that_start_workers_have_one_thread(server, stubs, scope, models):
    load(stubs, scope, "half", models / "half_plus_two")
    assert [template.num_threads() for template in server.templates()] == [1, 1]
