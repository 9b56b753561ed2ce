"""Loads, unloads and lists of both clients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import modelhost
import pytest
from modelhost import LoadSpec
from modelhost.v1 import model_pb2
from support.service import Served


def test_load_says_what_it_was_told(client: Any, served: Served) -> None:
    version = client.load(
        "team/half@3",
        "s3://bucket/half",
        labels=["stable"],
        tags=["serve"],
        annotations={"run": "7"},
        engine="LITERT",
        keep_older=True,
        pinned=True,
        wait=False,
    )
    (request,) = served.service.seen("LoadModel")
    assert (request.scope, request.model, request.version) == ("team", "half", 3)
    assert request.source == "s3://bucket/half"
    assert list(request.labels) == ["stable"]
    assert list(request.options.tags) == ["serve"]
    assert dict(request.options.annotations) == {"run": "7"}
    assert request.options.engine == model_pb2.ENGINE_LITERT
    assert (request.keep_older, request.options.pinned, request.options.evictable, request.no_wait) == (
        True,
        True,
        False,
        True,
    )
    assert (version.scope, version.model, version.version, version.state) == ("team", "half", 3, "AVAILABLE")
    assert version.signatures["serving_default"].inputs["x"].shape == (None,)


def test_a_relative_path_that_exists_is_made_absolute(
    client: Any, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    for source in ("here", Path("here"), "elsewhere", "file:here", "/abs"):
        client.load("half", source)
    sources = [request.source for request in served.service.seen("LoadModel")]
    assert sources == [str(tmp_path / "here")] * 2 + ["elsewhere", "file:here", "/abs"]


def test_load_with_progress(client: Any) -> None:
    news: list[modelhost.LoadProgress] = []
    version = client.load("half", "/half", on_progress=news.append)
    assert version.state == "AVAILABLE"
    assert news == [modelhost.LoadProgress("READING", 0.5, 4, 8)]
    with pytest.raises(modelhost.InvalidRequestError, match="source_invalid"):
        client.load("half", "/bad", on_progress=news.append)


def test_load_many(client: Any, served: Served) -> None:
    specs = [LoadSpec(model="a", source="/bad"), LoadSpec(model="t/b", source="/good", labels=["x"])]
    updates = client.load_many(specs)
    assert [(u.index, u.finished, u.total) for u in updates] == [(0, 0, 2), (0, 1, 2), (1, 1, 2), (1, 2, 2)]
    assert updates[0].progress is not None
    assert updates[1].error is not None
    assert updates[1].error.reason == "SOURCE_INVALID"
    assert updates[3].version is not None
    assert updates[3].version.scope == "t"


@pytest.mark.parametrize(
    "load",
    [
        lambda client: client.load("half@stable", "/half"),
        lambda client: client.load("half", "/half", labels=["no good"]),
        lambda client: client.load("half", "/half", engine="ABACUS"),
        lambda client: client.load("half@3", "/half", version=4),
        lambda client: client.load("half", "/half", version=0),
        lambda client: client.load_many([LoadSpec(model="a/b/c", source="/half")]),
    ],
)
def test_loads_that_make_no_sense_are_not_sent(client: Any, served: Served, load: Callable[[Any], Any]) -> None:
    with pytest.raises(modelhost.InvalidRequestError):
        load(client)
    assert not served.service.calls


def test_unload(client: Any, served: Served) -> None:
    assert client.unload("half") == [2, 1]
    assert client.unload("half@2", missing_ok=True, wait=False) == [2]
    client.unload("half", label="stable")
    everything, one, labelled = served.service.seen("UnloadModel")
    assert everything.WhichOneof("choice") == "all_versions"
    assert (one.version, one.allow_missing, one.no_wait) == (2, True, True)
    assert labelled.label == "stable"


def test_models_are_listed_page_by_page(client: Any, served: Served) -> None:
    assert [info.model for info in client.models("default")] == ["m0", "m1", "m2", "m3", "m4", "m5"]
    assert [request.page_token for request in served.service.seen("ListModels")][1:] == ["1", "2"]


def test_model_by_label_is_only_that_version(client: Any) -> None:
    info = client.model("half")
    assert [version.version for version in info.versions] == [2, 1]
    assert info.served.version == 2
    assert [version.version for version in client.model("half@stable").versions] == [1]
    with pytest.raises(modelhost.NotFoundError, match=r"no label 'nope'; it has: stable"):
        client.model("half@nope")


def test_labels(client: Any, served: Served) -> None:
    assert client.set_labels("team/half", {"stable": 2}, remove=["old"]) == {"stable": 2}
    assert client.set_labels("half") == {"old": 1, "stable": 1}
    request, empty = served.service.seen("SetLabels")
    assert (request.scope, request.model) == ("team", "half")
    assert (dict(request.labels), request.remove) == ({"stable": 2}, ["old"])
    assert (empty.scope, empty.labels, empty.remove) == ("default", {}, [])


@pytest.mark.parametrize(
    ("model", "labels", "remove"),
    [
        ("half@3", {"stable": 3}, ()),
        ("half@stable", {"stable": 3}, ()),
        ("half", {"stable": 0}, ()),
        ("half", {"stable": 1 << 63}, ()),
        ("half", {"no good": 1}, ()),
        ("half", {}, ["no good"]),
    ],
)
def test_labels_that_make_no_sense_are_not_sent(
    client: Any, served: Served, model: str, labels: dict[str, int], remove: list[str]
) -> None:
    with pytest.raises(modelhost.InvalidRequestError):
        client.set_labels(model, labels, remove=remove)
    assert not served.service.calls
