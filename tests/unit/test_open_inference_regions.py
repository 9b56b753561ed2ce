"""Shared memory of the Open Inference Protocol's callers: parts of objects, opened with care."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from modelhost_server.compat.open_inference_pb2 import ModelInferRequest
from modelhost_server.errors import Code, ForeignError
from modelhost_server.hosting.prediction import Prediction
from modelhost_server.services.call import Call
from modelhost_server.services.open_inference.inference import Inference, InferenceRequest
from modelhost_server.services.open_inference.parameters import Options
from modelhost_server.services.open_inference.places import place_of, read_place, write_place
from modelhost_server.services.open_inference.regions import Place, SystemRegions
from modelhost_server.tensors import RawTensor

SIZE = 4096


@pytest.fixture
def regions(tmp_path: Path) -> SystemRegions:
    (tmp_path / "shm").mkdir()
    (tmp_path / "shm" / "a").write_bytes(bytes(range(256)) * 16)
    return SystemRegions(tmp_path / "shm", limit=3)


def refused(code: Code, call: Any, *arguments: Any) -> str:
    with pytest.raises(ForeignError) as caught:
        call(*arguments)
    assert caught.value.code is code
    return caught.value.message


@pytest.mark.parametrize("key", ["a", "/a", "//a"])
def test_keys_are_names_as_shm_open_has_them(regions: SystemRegions, key: str) -> None:
    regions.register("r", key, 0, SIZE)
    assert [(region.name, region.key) for region in regions.list("")] == [("r", key)]


def test_a_part_of_an_object(regions: SystemRegions, tmp_path: Path) -> None:
    regions.register("r", "/a", 256, 512)
    assert read_place(Place("r", 1, 3), regions.range(Place("r", 1, 3))) == bytes([1, 2, 3])
    write_place(Place("r", 511, 1), regions.range(Place("r", 511, 1)), memoryview(b"!"))
    assert (tmp_path / "shm" / "a").read_bytes()[256 + 511] == ord("!")
    refused(Code.INVALID_ARGUMENT, regions.range, Place("r", 511, 2))


@pytest.mark.parametrize("key", ["", "/", "..", "x/../../outside", "../outside", "a/", "pipe", "link", "folder", "x\0"])
def test_what_is_no_object(regions: SystemRegions, tmp_path: Path, key: str) -> None:
    (tmp_path / "outside").write_bytes(bytes(SIZE))
    os.mkfifo(tmp_path / "shm" / "pipe")
    (tmp_path / "shm" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "shm" / "folder").mkdir()
    refused(Code.INTERNAL, regions.register, "r", key, 0, 1)
    assert regions.list("") == []


def test_our_own_clients_regions_are_theirs(regions: SystemRegions, tmp_path: Path) -> None:
    (tmp_path / "shm" / "modelhost-1").write_bytes(bytes(SIZE))
    refused(Code.INVALID_ARGUMENT, regions.register, "r", "/modelhost-1", 0, SIZE)


def test_there_is_a_limit(regions: SystemRegions) -> None:
    for i in range(3):
        regions.register(f"r{i}", "/a", 0, SIZE)
    refused(Code.RESOURCE_EXHAUSTED, regions.register, "r3", "/a", 0, SIZE)
    regions.unregister("r0")
    regions.register("r3", "/a", 0, SIZE)


@pytest.mark.parametrize("name", ["", "x" * 100_000])
def test_names_that_are_refused(regions: SystemRegions, name: str) -> None:
    assert len(refused(Code.INVALID_ARGUMENT, regions.register, name, "/a", 0, SIZE)) < 1000


def test_a_region_in_use_goes_on_when_it_is_forgotten(regions: SystemRegions) -> None:
    regions.register("r", "/a", 0, SIZE)
    place = Place("r", 0, 4)
    taken = regions.range(place)
    regions.unregister("")
    assert read_place(place, taken) == bytes([0, 1, 2, 3])
    refused(Code.NOT_FOUND, regions.range, place)


def test_what_was_cut_short_is_an_error(regions: SystemRegions, tmp_path: Path) -> None:
    regions.register("r", "/a", 0, SIZE)
    place = Place("r", 0, SIZE)
    taken = regions.range(place)
    os.truncate(tmp_path / "shm" / "a", 10)
    assert "cut short" in refused(Code.INVALID_ARGUMENT, read_place, place, taken)


# Parameters


def tensor(**parameters: Any) -> Any:
    made = ModelInferRequest.InferInputTensor(name="x")
    for name, value in parameters.items():
        if isinstance(value, str):
            made.parameters[f"shared_memory_{name}"].string_param = value
        else:
            made.parameters[f"shared_memory_{name}"].int64_param = value
    return made


def test_places() -> None:
    assert place_of(tensor()) is None
    assert place_of(tensor(region="r", byte_size=8)) == Place("r", 0, 8)
    assert place_of(tensor(region="r", byte_size=8, offset=4)) == Place("r", 4, 8)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"offset": 1}, "'shared_memory_offset' can not be specified without 'shared_memory_region' parameter"),
        ({"byte_size": 1}, "'shared_memory_byte_size' can not be specified without 'shared_memory_region' parameter"),
        ({"region": "r"}, "'shared_memory_byte_size' must be specified along with 'shared_memory_region' parameter"),
        ({"region": 1, "byte_size": 1}, "invalid value type for 'shared_memory_region' parameter"),
        ({"region": "r", "byte_size": "1"}, "invalid value type for 'shared_memory_byte_size' parameter"),
        ({"region": "r", "byte_size": 1, "offset": "1"}, "invalid value type for 'shared_memory_offset' parameter"),
    ],
)
def test_parameters_that_are_refused(parameters: dict[str, Any], message: str) -> None:
    given = tensor(**parameters)
    assert refused(Code.INVALID_ARGUMENT, place_of, given).startswith(f"{message} for tensor 'x'")


def test_an_output_goes_where_it_was_to_go_whatever_is_registered_meanwhile(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).write_bytes(bytes(8))
    regions = SystemRegions(tmp_path)
    regions.register("r", "first", 0, 8)
    host: Any = SimpleNamespace(predictions=SimpleNamespace(begin=lambda *_, **__: None))
    request = InferenceRequest("m", "", "", Options(), {}, places={"y": Place("r", 2, 4)})
    inference = Inference(host, regions, request)
    inference.begin(Call())
    regions.unregister("r")
    regions.register("r", "second", 0, 8)
    response = inference.respond(Prediction(1, {"y": RawTensor(4, (4,), b"abcd")}))
    assert response.outputs["y"].data == b""
    assert (tmp_path / "first").read_bytes() == b"\0\0abcd\0\0"
    assert (tmp_path / "second").read_bytes() == bytes(8)
