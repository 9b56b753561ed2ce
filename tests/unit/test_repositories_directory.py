"""Which versions a directory has, and when one is there as a whole."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from modelhost_server.repositories.directory import look, look_at_versions, missing, version_paths
from modelhost_server.repositories.found import Found

WAIT = 1.0
DATA = "variables/variables.data-{:05d}-of-{:05d}"
INDEX = "variables/variables.index"


def write(directory: Path, *names: str) -> Path:
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(name)
    return directory


@pytest.mark.parametrize(
    ("files", "lacks"),
    [
        ({"saved_model.pb"}, ""),
        ({"saved_model.pbtxt"}, ""),
        ({"artifact.json", "model.tflite"}, ""),
        (set(), "saved_model.pb"),
        ({"assets/saved_model.pb"}, "saved_model.pb"),
        ({INDEX, DATA.format(0, 1)}, "saved_model.pb"),
        ({"saved_model.pb", INDEX, DATA.format(0, 1)}, ""),
        ({"saved_model.pb", DATA.format(0, 1)}, INDEX),
        ({"saved_model.pb", INDEX}, "variables/variables.data-00000-of-?????"),
        ({"saved_model.pb", INDEX, DATA.format(0, 3), DATA.format(2, 3)}, DATA.format(1, 3)),
        ({"saved_model.pb", INDEX, *(DATA.format(i, 3) for i in range(3))}, ""),
        # A name that makes promises nobody could keep makes none; what assets are called is theirs.
        ({"saved_model.pb", INDEX, DATA.format(0, 99999)}, ""),
        ({"saved_model.pb", "assets/words-00000-of-00002"}, ""),
    ],
)
def test_names_of_files_say_what_is_missing(files: set[str], lacks: str) -> None:
    assert missing(files) == lacks


def test_numbers_name_versions(tmp_path: Path) -> None:
    for name in ("1", "0002", "17", "0", "-3", "1.5", "tmp", "x1", "²", "9223372036854775808"):
        (tmp_path / name).mkdir()
    (tmp_path / "4").write_text("a file")
    (tmp_path / "5").symlink_to(tmp_path / "17")
    (tmp_path / "6").symlink_to(tmp_path / "nothing")
    (tmp_path / "7").symlink_to(tmp_path / "7")
    there = {1: "1", 2: "0002", 5: "5", 17: "17"}
    assert version_paths(str(tmp_path)) == {number: str(tmp_path / name) for number, name in there.items()}


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        version_paths(str(tmp_path / "nothing"))


def test_what_is_known_is_not_looked_into(tmp_path: Path) -> None:
    write(tmp_path, "1/saved_model.pb", "2/saved_model.pb")
    looks = look_at_versions(str(tmp_path), {1: str(tmp_path / "1"), 2: "elsewhere"})
    assert looks[1] == (str(tmp_path / "1"), None)
    assert looks[2] == (str(tmp_path / "2"), look(str(tmp_path / "2")))


def test_what_has_just_changed_is_not_whole_before_it_stays_the_same(tmp_path: Path) -> None:
    found, now = Found(str(tmp_path)), time.time()
    write(tmp_path, "saved_model.pb")
    found.note_look(look(found.path), now, WAIT)
    assert not found.is_whole
    write(tmp_path, "assets/words")
    found.note_look(look(found.path), now, WAIT)
    assert not found.is_whole
    assert found.lack == "it has just changed"
    found.note_look(look(found.path), now, WAIT)
    assert found.is_whole


def test_what_has_not_changed_for_long_is_whole_at_once(tmp_path: Path) -> None:
    write(tmp_path, "saved_model.pb")
    assert look(str(tmp_path)).is_whole(None, time.time() + 2 * WAIT, WAIT)


def test_a_copy_that_keeps_times_has_changed_all_the_same(tmp_path: Path) -> None:
    write(tmp_path, "saved_model.pb")
    for path in (tmp_path / "saved_model.pb", tmp_path):
        os.utime(path, (1, 1))
    seen = look(str(tmp_path))
    assert not seen.is_whole(None, time.time(), WAIT)
    assert time.time() - seen.changed < 60


def test_a_file_of_the_same_size_in_anothers_place_is_a_change(tmp_path: Path) -> None:
    write(tmp_path, "saved_model.pb", "other")
    before = look(str(tmp_path))
    (tmp_path / "other").write_text("x" * len("saved_model.pb"))
    (tmp_path / "other").rename(tmp_path / "saved_model.pb")
    assert look(str(tmp_path)).fingerprint != before.fingerprint


def test_files_that_vanish_meanwhile_and_pipes_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "saved_model.pb")
    assert look(str(tmp_path)).missing == "saved_model.pb"
    assert look(str(tmp_path / "nowhere")).missing == "saved_model.pb"
