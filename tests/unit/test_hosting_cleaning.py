"""The cache keeps its bounds, and what is in use."""

import os
from pathlib import Path

from modelhost_server.hosting.cleaning import clean


def put(path: Path, size: int, age: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (1e6 - age, 1e6 - age))


def left(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_the_least_recently_used_goes_first_and_directories_go_whole(tmp_path):
    put(tmp_path / "engines/a/0.tflite", 100, age=90)
    put(tmp_path / "engines/a/verdict", 1, age=80)
    put(tmp_path / "engines/b/0.tflite", 100, age=95)
    put(tmp_path / "engines/b/verdict", 1, age=10)
    put(tmp_path / "tensorflow/weights/x", 50, age=99)
    assert clean(tmp_path, 120, (), 1e6 - 5) == 151
    assert left(tmp_path) == {"engines/b/0.tflite", "engines/b/verdict"}


def test_what_is_in_use_or_young_or_made_on_request_stays(tmp_path):
    put(tmp_path / "engines/a/litert/0.tflite", 100, age=90)
    put(tmp_path / "samples/young", 100, age=1)
    put(tmp_path / "models/m/0.tflite", 100, age=99)
    assert clean(tmp_path, 0, {str(tmp_path / "engines/a/litert")}, 1e6 - 5) == 0
    assert len(left(tmp_path)) == 3


def test_nothing_goes_while_there_is_room(tmp_path):
    put(tmp_path / "engines/a/0.tflite", 100, age=90)
    assert clean(tmp_path, 100, (), 1e6) == 0
