"""Sources that are no models: each load is refused in words that say why, and hurts nobody."""

from __future__ import annotations

import itertools
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from modelhost.v1 import model_pb2, model_service_pb2
from modelhost_server.compat import saved_model_pb2
from support.predict import assert_serves, error_of, load, new_scope, predict, request
from support.server import Stubs

LONGEST_MESSAGE = 1200
_names = itertools.count(1)


@pytest.fixture(scope="module")
def scope(models: Path, stubs: Stubs) -> Iterator[str]:
    with new_scope(stubs, "bad-source") as name:
        load(stubs, name, models / "half_plus_two", "half")
        yield name


@pytest.fixture(autouse=True)
def still_serves(stubs: Stubs, scope: str) -> Iterator[None]:
    yield
    assert_serves(stubs, scope, "half")


@pytest.fixture
def name() -> str:
    """A model name of the test's own."""
    return f"model-{next(_names)}"


class Bad(NamedTuple):
    """A source, what it is refused for, and whether only a worker can tell."""

    source: str | Callable[[Path, Path], Path | str]
    reason: str
    words: tuple[str, ...]
    late: bool = False
    fields: dict[str, Any] = {}


def copied(models: Path, place: Path, model: str = "half_plus_two") -> Path:
    shutil.copytree(models / model, place / model)
    return place / model


def damaged(file: str, damage: Callable[[bytes], bytes | None], model: str = "half_plus_two") -> Callable[..., Path]:
    """A copy of a model with a file's bytes changed; with the file removed when nothing is left."""

    def build(models: Path, place: Path) -> Path:
        source = copied(models, place, model)
        (path,) = source.glob(file)
        data = damage(path.read_bytes())
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)
        return source

    return build


def edited(edit: Callable[[saved_model_pb2.SavedModel], None], model: str = "half_plus_two") -> Callable[..., Path]:
    """A copy of a model with its graph or signatures changed."""

    def damage(data: bytes) -> bytes:
        message = saved_model_pb2.SavedModel.FromString(data)
        edit(message)
        return message.SerializeToString()

    return damaged("saved_model.pb", damage, model)


def renamed_tensor(name: str, side: str = "outputs") -> Callable[..., Path]:
    def edit(message: saved_model_pb2.SavedModel) -> None:
        signature = message.meta_graphs[0].signature_def["serving_default"]
        next(iter(getattr(signature, side).values())).name = name

    return edited(edit)


def negative_extent(message: saved_model_pb2.SavedModel) -> None:
    for tensor in message.meta_graphs[0].signature_def["serving_default"].outputs.values():
        tensor.tensor_shape.dim.add(size=-5)


def unknown_op(message: saved_model_pb2.SavedModel) -> None:
    for function in message.meta_graphs[0].graph_def.library.function:
        for node in function.node_def:
            if node.op == "AddV2":
                node.op = "NoSuchOp"


def endless(models: Path, place: Path) -> Path:
    """A vocabulary whose first line has no end."""
    source = copied(models, place, "table")
    asset = source / "assets" / "table.words"
    asset.unlink()
    asset.symlink_to("/dev/zero")
    return source


def made(build: Callable[[Path], object]) -> Callable[[Path, Path], Path]:
    """A directory that `build` fills."""

    def make(models: Path, place: Path) -> Path:
        source = place / "made"
        source.mkdir()
        build(source)
        return source

    return make


def file(name: str, data: bytes) -> Callable[[Path, Path], Path]:
    def make(models: Path, place: Path) -> Path:
        (place / name).write_bytes(data)
        return place / name

    return make


def zipped(models: Path, place: Path) -> Path:
    with zipfile.ZipFile(place / "other.keras", "w") as archive:
        archive.writestr("readme.txt", "no model")
    return place / "other.keras"


def keras_of_another_class(models: Path, place: Path) -> Path:
    with (
        zipfile.ZipFile(models / "keras_file.keras") as source,
        zipfile.ZipFile(place / "evil.keras", "w") as target,
    ):
        for item in source.namelist():
            data = source.read(item)
            if item == "config.json":
                data = (
                    b'{"module": "os", "class_name": "system", "config": {"command": "true"}, "registered_name": null}'
                )
            target.writestr(item, data)
    return place / "evil.keras"


def loop(models: Path, place: Path) -> Path:
    (place / "loop").symlink_to(place / "loop")
    return place / "loop"


def versions(models: Path, place: Path) -> Path:
    for number in ("1", "2"):
        shutil.copytree(models / "half_plus_two", place / "versions" / number)
    (place / "versions" / "3").mkdir()
    return place / "versions"


RANDOM = np.random.default_rng(0).bytes(5000)
INVALID, NOT_FOUND, UNSUPPORTED = "SOURCE_INVALID", "SOURCE_NOT_FOUND", "SOURCE_UNSUPPORTED"
TAGS = model_pb2.LoadOptions
CASES = {
    "nothing": Bad("", "INVALID_REQUEST", ("path or URI", "nothing")),
    "a relative path": Bad("models/half", "INVALID_REQUEST", ("absolute path", "'models/half'")),
    "..": Bad("..", "INVALID_REQUEST", ("absolute path", "'..'")),
    "a path from home": Bad("~/half", "INVALID_REQUEST", ("absolute path", "'~/half'")),
    "a path that leads nowhere": Bad("/nowhere/at/all", NOT_FOUND, ("nothing at", "'/nowhere/at/all'")),
    "a path that leads nowhere by ..": Bad(lambda m, p: m / ".." / "nowhere", NOT_FOUND, ("nothing at", "nowhere")),
    "a file: URI that leads nowhere": Bad("file:///nowhere%20at/all", NOT_FOUND, ("'/nowhere at/all'",)),
    "NUL": Bad("/tmp/a\0b", NOT_FOUND, ("without NUL", "'/tmp/a\\x00b'")),
    "NUL in a URI": Bad("file:///tmp/a%00b", NOT_FOUND, ("'/tmp/a\\x00b'",)),
    "a path of 10 kB": Bad("/" + "x" * 10_000, NOT_FOUND, ("at most 4096", "10001 characters")),
    "a path of 4000 characters that are no ASCII": Bad(
        "/" + "\u7121" * 4000, NOT_FOUND, ("cannot be read", "too long")
    ),
    "a name of 300 characters": Bad("/tmp/" + "x" * 300, NOT_FOUND, ("cannot be read", "too long")),
    "a loop": Bad(loop, NOT_FOUND, ("loop",)),
    "ftp:": Bad("ftp://host/model", UNSUPPORTED, ("'ftp'",)),
    "http: of no model": Bad("http://host/model", UNSUPPORTED, (".keras", "archive", "'model'")),
    "file: of another host": Bad("file://host/model", UNSUPPORTED, ("'file'",)),
    "a URI with a broken host": Bad("s3://[half", "INVALID_REQUEST", ("expected a URI",)),
    "a plain file": Bad(
        file("model.h5", b"text"), UNSUPPORTED, ("SavedModel directory, or a .keras or .tflite file", "model.h5")
    ),
    "the file saved_model.pb itself": Bad(
        lambda m, p: m / "half_plus_two" / "saved_model.pb", UNSUPPORTED, ("directory",)
    ),
    "a device": Bad("/dev/zero", NOT_FOUND, ("/dev/zero",)),
    "an empty directory": Bad(made(lambda d: None), INVALID, ("expected saved_model.pb",)),
    "a directory of other things": Bad(
        made(lambda d: (d / "a.txt").write_text("a")), INVALID, ("expected saved_model.pb",)
    ),
    "a version that is not there": Bad(versions, INVALID, ("version 7", "[1, 2, 3]"), fields={"version": 7}),
    "a newest version that is empty": Bad(versions, INVALID, ("expected saved_model.pb", "[1, 2, 3]")),
    "a SavedModel in text": Bad(
        made(lambda d: (d / "saved_model.pbtxt").write_text("saved_model_schema_version: 1")),
        UNSUPPORTED,
        ("saved_model.pbtxt", "saved_model.pb"),
        late=True,
    ),
    "saved_model.pb that is a directory": Bad(
        made(lambda d: (d / "saved_model.pb").mkdir()), INVALID, ("saved_model.pb",)
    ),
    "saved_model.pb that is a pipe": Bad(made(lambda d: os.mkfifo(d / "saved_model.pb")), INVALID, ("saved_model.pb",)),
    "an asset that is a device": Bad(endless, INVALID, ("assets/table.words", "is a device")),
    "an empty saved_model.pb": Bad(damaged("saved_model.pb", lambda d: b""), INVALID, ("['serve']", "none"), late=True),
    "half of saved_model.pb": Bad(
        damaged("saved_model.pb", lambda d: d[: len(d) // 2]), INVALID, ("saved_model.pb", "truncated"), late=True
    ),
    "saved_model.pb without its last byte": Bad(
        damaged("saved_model.pb", lambda d: d[:-1]), INVALID, ("saved_model.pb", "truncated"), late=True
    ),
    "random bytes as saved_model.pb": Bad(
        damaged("saved_model.pb", lambda d: RANDOM), INVALID, ("saved_model.pb", "corrupt"), late=True
    ),
    "saved_model.pb with a hole": Bad(
        damaged("saved_model.pb", lambda d: d[: len(d) // 2] + bytes(200) + d[len(d) // 2 + 200 :]),
        INVALID,
        ("saved_model.pb", "corrupt"),
        late=True,
    ),
    "no variables": Bad(
        lambda m, p: (shutil.rmtree(copied(m, p) / "variables"), p / "half_plus_two")[1],
        INVALID,
        ("variables",),
        late=True,
    ),
    "no variables.index": Bad(damaged("variables/*.index", lambda d: None), INVALID, ("variables",), late=True),
    "half of variables.index": Bad(
        damaged("variables/*.index", lambda d: d[: len(d) // 2]), INVALID, ("load",), late=True
    ),
    "random bytes as variables.index": Bad(
        damaged("variables/*.index", lambda d: RANDOM), INVALID, ("load",), late=True
    ),
    "no variables.data": Bad(damaged("variables/*.data-*", lambda d: None), INVALID, ("variables.data",), late=True),
    "an empty variables.data": Bad(damaged("variables/*.data-*", lambda d: b""), INVALID, ("load",), late=True),
    "half of variables.data": Bad(
        damaged("variables/*.data-*", lambda d: d[: len(d) // 2]), INVALID, ("load",), late=True
    ),
    "a changed byte in variables.data": Bad(
        damaged("variables/*.data-*", lambda d: bytes([d[0] ^ 1]) + d[1:]), INVALID, ("load",), late=True
    ),
    "half of variables.data, for the complete loader": Bad(
        damaged("variables/*.data-*", lambda d: d[: len(d) // 2], "v1_reference"), INVALID, ("load",), late=True
    ),
    "an asset missing": Bad(damaged("assets/*", lambda d: None, "table"), INVALID, ("load", "No such file"), late=True),
    "an op that TensorFlow does not have": Bad(edited(unknown_op), INVALID, ("load", "NoSuchOp"), late=True),
    "an output that is not in the graph": Bad(renamed_tensor("nowhere:0"), INVALID, ("'nowhere", "graph"), late=True),
    "an output of an operation that has fewer": Bad(
        renamed_tensor("StatefulPartitionedCall:7"), INVALID, ("StatefulPartitionedCall:7", "graph"), late=True
    ),
    "a negative output": Bad(
        renamed_tensor("StatefulPartitionedCall:-1"), INVALID, ("StatefulPartitionedCall:-1", "graph"), late=True
    ),
    "an output without a number": Bad(
        renamed_tensor("StatefulPartitionedCall:x"), INVALID, ("StatefulPartitionedCall:x", "graph"), late=True
    ),
    "an input that is not in the graph": Bad(renamed_tensor("nowhere:0", "inputs"), INVALID, ("'nowhere",), late=True),
    "no signatures": Bad(lambda m, p: m / "without_signatures", INVALID, ("no signatures", "signatures"), late=True),
    "a dtype that numpy does not have": Bad(
        lambda m, p: m / "float8", UNSUPPORTED, ("'y'", "dtype number 24"), late=True
    ),
    "an extent below -1": Bad(edited(negative_extent), INVALID, ("serving_default", "'y'", "-5"), late=True),
    "a sparse input": Bad(lambda m, p: m / "v1_sparse", UNSUPPORTED, ("'sparse'", "dense tensors"), late=True),
    "tags that are not there": Bad(
        lambda m, p: m / "v1_reference",
        INVALID,
        ("['eval']", "['serve']", "['gpu', 'serve']", "['train']"),
        late=True,
        fields={"options": TAGS(tags=["eval"])},
    ),
    "a part of the tags": Bad(
        lambda m, p: m / "v1_reference",
        INVALID,
        ("['gpu']", "['gpu', 'serve']"),
        late=True,
        fields={"options": TAGS(tags=["gpu"])},
    ),
    "a tag of 10 kB": Bad(
        lambda m, p: m / "half_plus_two",
        INVALID,
        ("['serve']",),
        late=True,
        fields={"options": TAGS(tags=["t" * 10_000])},
    ),
    "a tag with NUL": Bad(
        lambda m, p: m / "half_plus_two",
        INVALID,
        ("'serve\\x00'", "['serve']"),
        late=True,
        fields={"options": TAGS(tags=["serve\0"])},
    ),
    "a .keras file that is garbage": Bad(file("bad.keras", RANDOM), INVALID, ("cannot be converted",), late=True),
    "a .keras file that is another archive": Bad(zipped, INVALID, ("cannot be converted",), late=True),
    "a .keras file that names no Keras class": Bad(
        keras_of_another_class, INVALID, ("cannot be converted",), late=True
    ),
}


@pytest.mark.parametrize("bad", CASES.values(), ids=CASES)
def test_a_source_that_is_no_model_is_refused(models, stubs, scope, tmp_path, name, bad):
    source = bad.source if isinstance(bad.source, str) else bad.source(models, tmp_path)
    failure = error_of(lambda: load(stubs, scope, str(source), name, **bad.fields))
    assert (failure.code, failure.reason) == ("INVALID_ARGUMENT", bad.reason), failure.message
    for word in bad.words:
        assert word in failure.message
    assert len(failure.message) <= LONGEST_MESSAGE
    _check_what_is_left(models, stubs, scope, name, bad, failure.message)


def _check_what_is_left(models: Path, stubs: Stubs, scope: str, name: str, bad: Bad, message: str) -> None:
    """A load refused out of hand leaves nothing; one that failed leaves a version that says so. Both give way."""
    asked = error_of(lambda: predict(stubs, scope, name, x=np.float32([2])))
    if bad.late:
        assert (asked.code, asked.reason) == ("FAILED_PRECONDITION", "VERSION_FAILED")
        assert message in asked.message
        get = model_service_pb2.GetModelRequest(scope=scope, model=name)
        (version,) = stubs.models.GetModel(get).model.versions
        assert (version.state, version.error.message) == (model_pb2.VERSION_STATE_FAILED, message)
    else:
        assert (asked.code, asked.reason) == ("NOT_FOUND", "MODEL_NOT_FOUND")
    assert load(stubs, scope, models / "half_plus_two", name, version=1).state == model_pb2.VERSION_STATE_AVAILABLE
    assert predict(stubs, scope, name, x=np.float32([2]))["y"].tolist() == [3.0]


def test_a_source_is_not_looked_at_for_a_scope_that_does_not_exist(stubs):
    failure = error_of(lambda: load(stubs, "nowhere", "/nowhere/at/all", "m"))
    assert (failure.code, failure.reason) == ("NOT_FOUND", "SCOPE_NOT_FOUND")


def test_a_path_with_dots_is_followed(models, stubs, scope, name):
    load(stubs, scope, models / "half_plus_three" / ".." / "half_plus_two", name)
    assert predict(stubs, scope, name, x=np.float32([2]))["y"].tolist() == [3.0]


def test_a_model_that_comes_to_harm_on_disk_goes_on_serving(models, stubs, scope, tmp_path, name):
    source = copied(models, tmp_path)
    load(stubs, scope, source, name)
    shutil.rmtree(source)
    assert predict(stubs, scope, name, x=np.float32([2]))["y"].tolist() == [3.0]


def test_a_failed_load_of_a_new_version_leaves_the_old_one_serving(models, stubs, scope, tmp_path, name):
    load(stubs, scope, models / "half_plus_two", name)
    bad = damaged("variables/*.data-*", lambda d: b"")(models, tmp_path)
    assert error_of(lambda: load(stubs, scope, bad, name)).reason == "SOURCE_INVALID"
    message = request(scope, name, {"x": np.float32([2])})
    assert stubs.predictions.Predict(message).version == 1


def test_failing_loads_leak_no_threads_or_descriptors(models, stubs, scope, server, tmp_path):
    bad = damaged("variables/*.data-*", lambda d: b"")(models, tmp_path)

    def counts() -> tuple[int, int]:
        processes = server.processes()
        return sum(p.num_fds() for p in processes), sum(p.num_threads() for p in processes)

    seen = []
    for _ in range(4):
        for _ in range(10):
            error_of(lambda: load(stubs, scope, bad, "leaking"))
        seen.append(counts())
    assert seen[-1] <= (seen[0][0] + 2, seen[0][1] + 2), seen
