"""The journal of a data directory: what it says is what was written, and a server does not start with one that is not
right.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from modelhost_server.errors import Reason
from modelhost_server.journal import migrations
from modelhost_server.journal.database import CorruptJournalError, Database, Key, NewerJournalError, Row
from modelhost_server.journal.journal import Journal
from test_store_phases import refused

FILE = "journal.db"


def setting(name: str, value: str) -> dict[Key, Row]:
    return {("settings", name): (name, value)}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A data directory whose journal has some content."""
    directory = tmp_path / "data"
    with closing(Journal(directory)) as journal:
        journal.database.write({**setting("a", "1"), **setting("b", "2" * 5000)}, revision=7)
    return directory


def settings(journal: Journal) -> dict[str, str]:
    return {key[1]: row[1] for key, row in journal.database.rows.items()}


def test_what_was_written_is_read(directory: Path) -> None:
    with closing(Journal(directory)) as journal:
        assert journal.database.revision == 7
        journal.database.write({("settings", "b"): None, **setting("a", "3"), **setting("c", "4")}, revision=9)
        assert settings(journal) == {"a": "3", "c": "4"}
    with closing(Journal(directory)) as journal:
        assert settings(journal) == {"a": "3", "c": "4"}
        assert journal.database.revision == 9


changes = st.dictionaries(st.sampled_from("abcd"), st.none() | st.text(st.characters(codec="utf-8"), max_size=9))


@contextmanager
def empty_journal() -> Iterator[Path]:
    """The file of a journal, for a single example."""
    with tempfile.TemporaryDirectory() as directory:
        Database.create(Path(directory) / FILE)
        yield Path(directory) / FILE


@examples(max_examples=20, deadline=None)
@given(st.lists(changes, max_size=6))
def test_it_says_what_a_dictionary_would(batches: list[dict[str, str | None]]) -> None:
    """Read from the disk after every batch."""
    expected: dict[str, str] = {}
    with empty_journal() as path:
        for batch in batches:
            with closing(Database(path)) as database:
                database.write({("settings", k): v if v is None else (k, v) for k, v in batch.items()}, 0)
            expected = {k: v for k, v in {**expected, **batch}.items() if v is not None}
            with closing(Database(path)) as database:
                assert {key[1]: row[1] for key, row in database.rows.items()} == expected


def test_a_write_that_fails_changes_nothing(directory: Path) -> None:
    with closing(Journal(directory)) as journal:
        before = dict(journal.database.rows)
        with pytest.raises(sqlite3.Error):
            journal.database.write({**setting("a", "changed"), ("settings", "b"): ("b", None)}, revision=8)
        assert journal.database.rows == before
        journal.database.write(setting("c", "3"), revision=8)
    with closing(Journal(directory)) as journal:
        assert settings(journal) == {"a": "1", "b": "2" * 5000, "c": "3"}


def test_what_was_written_last_is_there_after_the_process_was_killed(tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom modelhost_server.journal.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "for n in range(5):\n    journal.database.write({('settings', 'n'): ('n', str(n))}, n)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert (tmp_path / f"{FILE}-wal").stat().st_size > 0
    with closing(Journal(tmp_path)) as journal:
        assert settings(journal) == {"n": "4"}


# Corrupt journals


def overwrite(at: int, content: bytes) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        with (directory / FILE).open("r+b") as file:
            file.seek(at, os.SEEK_SET if at >= 0 else os.SEEK_END)
            file.write(content)

    return damage


def execute(*statements: str) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        with closing(sqlite3.connect(directory / FILE, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)

    return damage


def truncate(size: int) -> Callable[[Path], None]:
    return lambda directory: os.truncate(directory / FILE, size)


def lose_all_but_the_wal(directory: Path) -> None:
    (directory / FILE).rename(directory / f"{FILE}-wal")


DAMAGES = {
    "no database": overwrite(0, b"not a database at all"),
    "empty": truncate(0),
    "cut short": truncate(8192),
    "a page of zeros": overwrite(4096, bytes(4096)),
    "a page of noise": overwrite(8192, bytes(range(256)) * 16),
    "a changed value": overwrite(-3000, b"x"),
    "a changed row": execute("UPDATE settings SET value = '2' WHERE name = 'a'"),
    "a lost row": execute("DELETE FROM settings WHERE name = 'a'"),
    "a row too many": execute("INSERT INTO settings VALUES ('c', '3')"),
    "a lost table": execute("DROP TABLE settings"),
    "a lost seal": execute("DELETE FROM seal"),
    "another's database": execute("PRAGMA application_id = 7"),
    "no file": lose_all_but_the_wal,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_corrupt_journal_is_kept_aside_until_somebody_says_that_it_is_lost(
    directory: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    whole = shutil.copytree(directory, tmp_path / "copy")
    damage(directory)
    with refused(Reason.STORAGE_FAILED) as caught:
        Journal(directory)
    (aside,) = directory.glob("journal-corrupt-*.db")
    assert "corrupt" in caught.value.message
    assert f"--accept-lost-journal {aside.name}" in caught.value.message
    assert str(aside) in caught.value.message
    # To start once more is not enough, nor to have said it of another.
    for accepted in ("", "journal-corrupt-20200101T000000Z.db"):
        with refused(Reason.STORAGE_FAILED) as caught:
            Journal(directory, accepted)
        assert aside.name in caught.value.message
    with closing(Journal(directory, aside.name)) as journal:
        assert settings(journal) == {}
    assert aside.exists()
    # From then on there is one again; and one that is whole may take its place.
    with closing(Journal(directory)) as journal:
        assert settings(journal) == {}
    shutil.copy(whole / FILE, directory / FILE)
    with closing(Journal(directory)) as journal:
        assert settings(journal)["a"] == "1"


@pytest.mark.parametrize(
    "row",
    [
        ("scopes", ("a", "{", 1.0)),
        ("scopes", ("a", '{"max_queue": "many"}', 1.0)),
        ("models", ("a", "m", 1, "[]")),
        ("versions", ("a", "m", 1, 1.0, "NOWHERE", "", '{"source": "/m", "options": {}}')),
        ("versions", ("a", "m", 1, 1.0, "FAILED", "oops", '{"source": "/m", "options": {}}')),
        ("versions", ("a", "m", 1, 1.0, "FAILED", "{}", '{"source": "/m", "options": {}}')),
        ("versions", ("a", "m", 1, 1.0, "WAITING", "", "{}")),
        ("requests", ("load", "id", 1, "{}", "[]")),
        ("requests", ("other", "id", 1, "{}", "[]")),
        ("requests", ("unload", "id", 1, '{"scope": "a", "model": "m"}', "7")),
    ],
    ids=lambda row: f"{row[0]}: {row[1]}",
)
def test_rows_that_nobody_wrote_are_corruption(directory: Path, row: tuple[str, Row]) -> None:
    table, values = row
    with closing(Journal(directory)) as journal:
        key: Key = (table, *values[: {"scopes": 1, "models": 2, "requests": 2, "versions": 3}[table]])
        journal.database.write({key: values}, 8)
    with refused(Reason.STORAGE_FAILED) as caught:
        Journal(directory)
    assert "--accept-lost-journal" in caught.value.message


@examples(max_examples=40, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 255))
def test_a_changed_byte_is_found_out_or_changes_nothing(at: int, difference: int) -> None:
    with empty_journal() as path:
        with closing(Database(path)) as database:
            database.write({**setting("a", "1"), **setting("b", "2" * 3000)}, revision=7)
            rows = dict(database.rows)
            database.tidy()
        content = bytearray(path.read_bytes())
        content[at % len(content)] ^= difference
        path.write_bytes(content)
        with suppress(CorruptJournalError, NewerJournalError), closing(Database(path)) as database:
            assert database.rows == rows


@pytest.mark.parametrize(
    "damage", [lambda wal: os.truncate(wal, 0), lambda wal: wal.write_bytes(bytes(wal.stat().st_size))]
)
def test_a_journal_that_has_lost_its_log_is_not_taken_for_all_there_was(
    directory: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    killed = tmp_path / "killed"
    with closing(Journal(directory)) as journal:
        journal.database.write(setting("a", "9"), revision=9)
        shutil.copytree(directory, killed)
    damage(killed / f"{FILE}-wal")
    for _ in range(2):
        with refused(Reason.STORAGE_FAILED) as caught:
            Journal(killed)
        assert "1 changes that were written are not in it" in caught.value.message
    # It is whole: whoever wants it as it is says so.
    (killed / "journal.mark").unlink()
    with closing(Journal(killed)) as journal:
        assert settings(journal)["a"] == "1"


def test_a_journal_that_was_removed_is_not_replaced_by_an_empty_one(directory: Path) -> None:
    (directory / FILE).unlink()
    with refused(Reason.STORAGE_FAILED) as caught:
        Journal(directory)
    assert "--accept-lost-journal" in caught.value.message


# Other versions


def test_a_newer_journal_is_refused_and_left_alone(directory: Path) -> None:
    execute("PRAGMA user_version = 99")(directory)
    before = (directory / FILE).read_bytes()
    with refused(Reason.STORAGE_FAILED) as caught:
        Journal(directory)
    assert "version 99" in caught.value.message
    assert f"up to {migrations.NEWEST}" in caught.value.message
    assert (directory / FILE).read_bytes() == before
    assert list(directory.glob("journal-corrupt-*")) == []


def test_an_older_journal_is_migrated(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what a later version of the server might bring."""
    later = (*migrations.MIGRATIONS, "ALTER TABLE settings ADD COLUMN note TEXT NOT NULL DEFAULT 'none';")
    for module in (migrations, sys.modules[Database.__module__]):
        monkeypatch.setattr(module, "NEWEST", len(later))
    monkeypatch.setattr(migrations, "MIGRATIONS", later)
    for _ in range(2):
        with closing(Journal(directory)) as journal:
            assert journal.database.rows["settings", "a"] == ("a", "1", "none")
            assert journal.database.revision == 7
    with closing(sqlite3.connect(directory / FILE)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(later),)


def test_a_migration_that_fails_leaves_the_journal_as_it_was(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        bad = (*migrations.MIGRATIONS, "DELETE FROM settings; ALTER TABLE nowhere ADD COLUMN note TEXT;")
        for module in (migrations, sys.modules[Database.__module__]):
            patch.setattr(module, "NEWEST", len(bad))
        patch.setattr(migrations, "MIGRATIONS", bad)
        with pytest.raises(Exception, match="nowhere"):
            Database(directory / FILE)
    with closing(Journal(directory)) as journal:
        assert settings(journal)["a"] == "1"


# The directory


def test_a_directory_is_one_servers(directory: Path) -> None:
    with closing(Journal(directory)):
        with refused(Reason.CONFLICT) as caught:
            Journal(directory)
        assert str(directory) in caught.value.message
        assert f"process {os.getpid()}" in caught.value.message
    Journal(directory).close()


def test_a_directory_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        Journal(tmp_path / "file")


def test_a_journal_that_was_never_whole_counts_as_none(directory: Path, tmp_path: Path) -> None:
    """The server was killed while it made one."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "journal.new").write_bytes(b"half of it")
    with closing(Journal(other)) as journal:
        assert settings(journal) == {}
