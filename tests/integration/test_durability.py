"""A data directory: what callers were told is there again, however the server ended."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from modelhost.v1 import model_pb2, model_service_pb2, scope_pb2, scope_service_pb2
from support.calls import eventually, failure, half, load, unload, vector
from support.disks import mount, unmount
from support.server import ServerProcess, Stubs
from support.serving import ModelServiceStub, model_config, put

AVAILABLE, FAILED = model_pb2.VERSION_STATE_AVAILABLE, model_pb2.VERSION_STATE_FAILED
EVICTED = model_pb2.VERSION_STATE_EVICTED
PASSING = (model_pb2.VERSION_STATE_LOADING, model_pb2.VERSION_STATE_UNLOADING)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def start(tmp_path: Path, cache: Path) -> Callable[..., Any]:
    """Starts a server on the test's data directory, and answers stubs for it."""

    @contextmanager
    def start(*options: str, data: Path = tmp_path / "data") -> Iterator[Running]:
        with ServerProcess("--data-dir", str(data), *options, cache_dir=cache) as process:
            running = Running(process, Stubs(process.address))
            yield running
            running.stubs.close()

    return start


@dataclass
class Running:
    """A server and stubs for it."""

    process: ServerProcess
    stubs: Stubs

    def kill(self) -> None:
        """Ends it as nothing can be prepared for."""
        self.process.process.kill()
        self.process.process.wait()

    def models(self, scope: str = "") -> list[model_pb2.Model]:
        request = model_service_pb2.ListModelsRequest(scope=scope, view=model_pb2.MODEL_VIEW_FULL)
        return list(self.stubs.models.ListModels(request, timeout=10).models)

    def settle(self) -> None:
        """Waits until nothing is on its way."""
        eventually(lambda: not any(v.state in PASSING for model in self.models() for v in model.versions), 60)

    def versions(self, scope: str = "default") -> dict[tuple[str, int], int]:
        return {(m.model, v.version): v.state for m in self.models(scope) for v in m.versions}

    def set_labels(self, scope: str, model: str, labels: dict[str, int], remove: tuple[str, ...] = ()) -> None:
        request = model_service_pb2.SetLabelsRequest(scope=scope, model=model, labels=labels, remove=remove)
        self.stubs.models.SetLabels(request, timeout=10)


# Killed at any moment


@dataclass(frozen=True)
class Hosted:
    """What a caller knows of its scope: versions, by model, number, source and state, and labels."""

    max_queue: int
    versions: frozenset[tuple[str, int, str, int]] = frozenset()
    labels: frozenset[tuple[str, str, int]] = frozenset()

    def without(self, model: str, number: int) -> Hosted:
        return replace(
            self,
            versions=frozenset(v for v in self.versions if v[:2] != (model, number)),
            labels=frozenset(label for label in self.labels if (label[0], label[2]) != (model, number)),
        )

    def with_labels(self, model: str, number: int, *labels: str) -> Hosted:
        others = {each for each in self.labels if each[0] != model or each[1] not in labels}
        return replace(self, labels=frozenset(others | {(model, label, number) for label in labels}))


@dataclass
class Caller:
    """Changes a scope of its own, and knows what it was told. Each change is a call, and what comes of it."""

    scope: str
    sources: Path
    random: random.Random
    told: Hosted | None = None
    # What the call under way asks for.
    asked: Hosted | None = None
    calls: int = 0
    trouble: list[BaseException] = field(default_factory=list)

    def run(self, stubs: Stubs) -> None:
        """Goes on until the server has gone."""
        try:
            while True:
                call, self.asked = self.choose(stubs)
                call()
                self.told = self.asked
                self.calls += 1
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                self.trouble.append(error)
        except Exception as error:
            self.trouble.append(error)

    def choose(self, stubs: Stubs) -> tuple[Callable[[], object], Hosted | None]:
        told, scope, pick = self.told, self.scope, self.random.choice
        if told is None:
            queue = self.random.randrange(1, 1000)
            config = scope_pb2.ScopeConfig(max_queue=queue)
            create = scope_service_pb2.CreateScopeRequest(scope=scope, config=config)
            return lambda: stubs.scopes.CreateScope(create, timeout=30), Hosted(queue)
        good = sorted(v for v in told.versions if v[3] == AVAILABLE)
        kind = self.random.random()
        if good and kind < 0.3:
            model, number, _, _ = pick(good)
            label = pick(["stable", "canary"])
            labels = model_service_pb2.SetLabelsRequest(scope=scope, model=model, labels={label: number})
            return lambda: stubs.models.SetLabels(labels, timeout=10), told.with_labels(model, number, label)
        if told.versions and kind < 0.5:
            model, number, _, _ = pick(sorted(told.versions))
            return lambda: unload(stubs, scope, model, version=number), told.without(model, number)
        if kind < 0.6:
            queue = self.random.randrange(1, 1000)
            update = scope_service_pb2.UpdateScopeRequest(scope=scope, config=scope_pb2.ScopeConfig(max_queue=queue))
            update.update_mask.paths.append("max_queue")
            return lambda: stubs.scopes.UpdateScope(update, timeout=30), replace(told, max_queue=queue)
        if kind < 0.65:
            delete = scope_service_pb2.DeleteScopeRequest(scope=scope, force=True)
            return lambda: stubs.scopes.DeleteScope(delete, timeout=30), None
        return self.choose_load(stubs, told)

    def choose_load(self, stubs: Stubs, told: Hosted) -> tuple[Callable[[], object], Hosted]:
        model, number = self.random.choice(["a", "b"]), 1 + max((v[1] for v in told.versions), default=0)
        name = self.random.choice(["half_plus_two", "half_plus_three"])
        source = str(self.sources / name)
        request = model_service_pb2.LoadModelRequest(
            scope=self.scope, model=model, version=number, source=source, labels=["newest"],
            keep_older=self.random.random() < 0.5,
        )  # fmt: skip
        if self.random.random() < 0.15:
            request.options.tags.append("nowhere")

            def fail() -> None:
                with pytest.raises(grpc.RpcError) as caught:
                    stubs.models.LoadModel(request, timeout=60)
                if caught.value.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                    raise caught.value

            return fail, replace(told, versions=told.versions | {(model, number, name, FAILED)})
        after = told
        if not request.keep_older:
            labelled = {(m, n) for m, label, n in told.labels if label != "newest" or m != model}
            for old in told.versions:
                if old[0] == model and old[:2] not in labelled:
                    after = after.without(model, old[1])
        after = replace(after, versions=after.versions | {(model, number, name, AVAILABLE)})
        return lambda: stubs.models.LoadModel(request, timeout=60), after.with_labels(model, number, "newest")

    def found(self, running: Running) -> Hosted | None:
        """What is hosted in its scope now."""
        try:
            request = scope_service_pb2.GetScopeRequest(scope=self.scope)
            scope = running.stubs.scopes.GetScope(request, timeout=10).scope
        except grpc.RpcError:
            return None
        models = running.models(self.scope)
        return Hosted(
            scope.config.max_queue,
            frozenset((m.model, v.version, Path(v.source).name, v.state) for m in models for v in m.versions),
            frozenset((m.model, label, number) for m in models for label, number in m.labels.items()),
        )


def check(running: Running, callers: list[Caller]) -> None:
    """What is hosted is what the callers were told; what they were not told of may be there or not."""
    running.settle()
    for caller in callers:
        found = caller.found(running)
        assert found in (caller.told, caller.asked), caller.scope
        caller.told = found
        for model, number, source, state in found.versions if found else ():
            if state == AVAILABLE:
                answer = half(running.stubs, caller.scope, model, version=number)
                assert answer == {"half_plus_two": 4.0, "half_plus_three": 5.0}[source]


def test_what_was_acknowledged_is_there_after_the_server_was_killed(start, models):
    chance = random.Random(7)
    callers = [Caller(f"team-{i}", models, random.Random(i)) for i in range(3)]
    for _ in range(3):
        with start() as running:
            check(running, callers)
            # Until then no model of TensorFlow's may have been loaded, and the first one takes long.
            load(running.stubs, "", "first", models / "half_plus_two", version=1)
            threads = [threading.Thread(target=caller.run, args=(running.stubs,)) for caller in callers]
            for thread in threads:
                thread.start()
            time.sleep(chance.uniform(0.1, 0.8))
            running.kill()
            for thread in threads:
                thread.join()
        for caller in callers:
            assert caller.trouble == []
    with start() as running:
        check(running, callers)
    assert all(caller.calls for caller in callers)


# What comes back


def max_queue(running: Running) -> int:
    request = scope_service_pb2.GetScopeRequest()
    return int(running.stubs.scopes.GetScope(request, timeout=10).scope.config.max_queue)


def test_what_a_caller_said_comes_back_as_it_was_said(start, models, tmp_path):
    samples = tmp_path / "data" / "samples"
    source = shutil.copytree(models / "half_plus_two", tmp_path / "model")
    options = model_pb2.LoadOptions(pinned=True, require_warmup=True, tolerance=0.25, annotations={"owner": "me"})
    options.batching.max_batch_size = 6
    request = model_service_pb2.LoadModelRequest(model="m", source=str(source), options=options, request_id="load-1")
    request.warmup.add().inputs["x"].CopyFrom(vector(1.0))
    away = model_service_pb2.UnloadModelRequest(model="m", version=1, request_id="unload-1")
    update = scope_service_pb2.UpdateScopeRequest(config=scope_pb2.ScopeConfig(max_queue=70))
    update.update_mask.paths.append("max_queue")

    with start("--max-queue", "50") as running:
        before = running.stubs.models.LoadModel(request, timeout=60).version
        idle = model_pb2.LoadOptions(evictable=True)
        idle.idle_timeout.FromMilliseconds(50)
        load(running.stubs, "", "idle", models / "half_plus_two", options=idle)
        eventually(lambda: running.versions()["idle", 1] == EVICTED, 30)
        load(running.stubs, "", "there", models / "half_plus_three")
        running.kill()

    # The model has gone. It is listed as what it is, and nothing else is the worse for it.
    hidden = source.rename(tmp_path / "hidden")
    with start("--max-queue", "60") as running:
        assert running.versions()["idle", 1] == EVICTED
        assert max_queue(running) == 60
        running.stubs.scopes.UpdateScope(update, timeout=30)
        running.settle()
        assert running.versions() | {("idle", 1): 0} == {("idle", 1): 0, ("m", 1): FAILED, ("there", 1): AVAILABLE}
        assert half(running.stubs, "", "idle") == 4.0
        (version,) = running.models()[1].versions
        assert "there is nothing at" in version.error.message
        assert half(running.stubs, "", "there") == 5.0
        eventually(lambda: "restored 1 versions" in running.process.log(), 10)
        assert "1 failed" in running.process.log()
        assert "scopes/default/models/m/versions/1 failed to load" in running.process.log()
        running.kill()

    # What it was told to be is kept, not what became of it at one start.
    hidden.rename(source)
    with start("--max-queue", "80") as running:
        assert max_queue(running) == 70
        running.settle()
        after = running.stubs.models.LoadModel(request, timeout=60).version
        assert (after.version, after.state, after.create_time) == (1, AVAILABLE, before.create_time)
        assert after.options == before.options
        assert after.revision > before.revision
        assert half(running.stubs, "", "m") == 4.0
        assert len(list(samples.iterdir())) == 1
        other = failure(lambda: load(running.stubs, "", "m", models / "half_plus_three", request_id="load-1"))
        assert other[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert running.stubs.models.UnloadModel(away, timeout=60).versions == [1]
        running.kill()

    with start() as running:
        assert list(samples.iterdir()) == []
        assert running.stubs.models.UnloadModel(away, timeout=60).versions == [1]
        assert failure(lambda: running.stubs.models.LoadModel(request, timeout=60))[1] == "VERSION_UNLOADING"
        # Its number is not given again.
        assert load(running.stubs, "", "m", models / "half_plus_two").version == 2


def test_directories_are_looked_at_again_and_what_callers_said_of_them_comes_back(start, models, tmp_path):
    for number in (1, 2):
        put(models, tmp_path / "one", number)
    put(models, tmp_path / "two", 1)
    one = ("--model-name", "one", "--model-base-path", str(tmp_path / "one"))
    with start(*one) as running:
        eventually(lambda: running.versions() == {("one", 2): AVAILABLE}, 30)
        running.set_labels("", "one", {"stable": 2})
        running.kill()
    with start(*one) as running:
        eventually(lambda: running.versions() == {("one", 2): AVAILABLE}, 30)
        assert dict(running.models()[0].labels) == {"stable": 2}
        ModelServiceStub(running.stubs.channel).reload(model_config("two", tmp_path / "two"))
        running.kill()
    # A caller said so last.
    with start(*one) as running:
        eventually(lambda: running.versions() == {("two", 1): AVAILABLE}, 30)
        running.kill()
    # Then whoever started the server did.
    shutil.rmtree(tmp_path / "one" / "2")
    with start(*one[2:], "--model-name", "other") as running:
        eventually(lambda: running.versions() == {("other", 1): AVAILABLE}, 30)


# Disks


@contextmanager
def no_room_in_a_small_file_system(directory: Path, running: Running) -> Iterator[None]:
    """Fills what the journal is in, until it is left."""
    filler = directory / "filler"
    # In small pieces: what does not fit as a whole is not written at all.
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(1024)):
            pass
    yield
    filler.unlink()


@contextmanager
def no_file_may_grow(directory: Path, running: Running) -> Iterator[None]:
    process = psutil.Process(running.process.process.pid)
    process.rlimit(psutil.RLIMIT_FSIZE, (4096, psutil.RLIM_INFINITY))
    yield
    process.rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[tuple[Path, Any]]:
    """A data directory, and what leaves no room there: on a file system of 400 kB, where one may be mounted."""
    directory = tmp_path / "small"
    directory.mkdir()
    if not mount(directory, "400k"):
        yield directory, no_file_may_grow
        return
    yield directory, no_room_in_a_small_file_system
    unmount(directory)


def test_without_room_on_the_disk_nothing_is_changed_and_all_goes_on(start, models, full_disk):
    directory, no_room = full_disk
    with start(data=directory) as running:
        stubs = running.stubs
        load(stubs, "", "m", models / "half_plus_two", labels=["stable"])
        load(stubs, "", "m", models / "half_plus_three", keep_older=True)
        create = scope_service_pb2.CreateScopeRequest(scope="team")
        update = scope_service_pb2.UpdateScopeRequest(config=scope_pb2.ScopeConfig(max_queue=7))
        update.update_mask.paths.append("max_queue")
        changes: dict[str, Callable[[], Any]] = {
            "load": lambda: load(stubs, "", "n", models / "half_plus_two", request_id="n"),
            "load over": lambda: load(stubs, "", "m", models / "half_plus_two", version=3, keep_older=True),
            "labels with a load": lambda: load(stubs, "", "m", models / "half_plus_two", version=1, labels=["x"]),
            "unload": lambda: unload(stubs, "", "m", version=1),
            "labels": lambda: running.set_labels("", "m", {"stable": 2}),
            "create": lambda: stubs.scopes.CreateScope(create, timeout=30),
            "update": lambda: stubs.scopes.UpdateScope(update, timeout=30),
        }
        # What SQLite gives back later would be room again.
        log = directory / "journal.db-wal"
        assert eventually(lambda: not log.exists() or log.stat().st_size == 0)
        with no_room(directory, running):
            for name, change in changes.items():
                code, reason, message = failure(change)
                assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "STORAGE_FAILED"), name
                assert str(directory) not in message
                assert half(stubs, "", "m", version=1) == 4.0
            eventually(lambda: [(m.model) for m in running.models()] == ["m"], 10)
            running.settle()
            scopes = stubs.scopes.ListScopes(scope_service_pb2.ListScopesRequest(), timeout=10).scopes
            assert [(scope.scope, scope.config.max_queue) for scope in scopes] == [("default", 1000)]
            assert {label for m in running.models() for label in m.labels.items()} == {("stable", 1)}
            assert running.versions() == {("m", 1): AVAILABLE, ("m", 2): AVAILABLE}
        for change in changes.values():
            change()
        running.kill()
    with start(data=directory) as running:
        running.settle()
        assert running.versions() == {("m", 2): AVAILABLE, ("m", 3): AVAILABLE, ("n", 1): AVAILABLE}


# A directory that is not right


def refusal(*options: str) -> str:
    """What a server says that does not start."""
    with pytest.raises(AssertionError, match="the server did not start") as caught:
        ServerProcess(*options).stop()
    return str(caught.value)


def test_a_server_that_must_not_start_says_why(start, tmp_path):
    data = tmp_path / "data"
    link = tmp_path / "link"
    link.symlink_to(data)
    work = data / "models" / "work-killed"
    work.mkdir(parents=True)
    with start():
        assert not work.exists()
        # Whatever the mode of the directory: sources may tell secrets.
        assert not (data / "journal.db").stat().st_mode & 0o077
        for path in (data, link):
            assert f"{path} is in use by another server" in refusal("--data-dir", str(path))
    (data / "journal.db").write_bytes(b"what was that?")
    said = refusal("--data-dir", str(data))
    (aside,) = data.glob("journal-corrupt-*.db")
    assert "the journal is corrupt" in said
    assert f"--accept-lost-journal {aside.name}" in said
