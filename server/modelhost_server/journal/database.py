"""The journal's file: an SQLite database in WAL mode, of which this process alone has the use.

A hash of all rows, the seal, is written with every change: a row that was changed, lost or added by anything else is
found out when the journal is opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .mark import Mark
from .migrations import NEWEST, migrate

# "mhjl", by which a file is known to be a journal.
_APPLICATION = 0x6D686A6C
# What is no part of the seal: itself, and what may be lost.
_UNSEALED = ("seal", "uses")
# How many of a table's columns name a row.
_KEY_COLUMNS = {"scopes": 1, "models": 2, "versions": 3, "requests": 2, "settings": 1}
# What SQLite says of a file whose content is not right; anything else is the disk's or the system's.
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

# The table and what names the row in it.
Key = tuple[Any, ...]
Row = tuple[Any, ...]


class CorruptJournalError(Exception):
    """The content of the file is not what was written."""


class NewerJournalError(Exception):
    """The file was written by a newer server, which had this version of the tables."""

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.version = version


class LostChangesError(Exception):
    """The journal is whole, and older than it was: this many changes that were written are not in it."""


def key_of(table: str, row: Row) -> Key:
    """What names a row."""
    return (table, *row[: _KEY_COLUMNS[table]])


class Database:
    """An open journal. Used by one thread at a time.

    Attributes:
        rows: all that has been written, by what names it.
        revision: of the last change that was written.
    """

    def __init__(self, path: Path) -> None:
        """Opens the journal in this file, and migrates it.

        Raises:
            CorruptJournalError, NewerJournalError, LostChangesError: nothing was changed.
            sqlite3.Error: the file cannot be read or written now.
        """
        self.rows: dict[Key, Row] = {}
        self.revision = 0
        self._seal = 0
        self._count = 0
        self._mark = Mark(path)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            with _corruption():
                self._prepare()
        except BaseException:
            self._connection.close()
            raise

    @staticmethod
    def create(path: Path) -> None:
        """Makes an empty journal: as a whole, or not at all."""
        partial = path.with_suffix(".new")
        partial.unlink(missing_ok=True)
        # Its owner's alone, as is what SQLite puts beside it; sources may tell secrets.
        partial.touch(mode=0o600)
        connection = sqlite3.connect(partial, isolation_level=None)
        with contextlib.closing(connection):
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            migrate(connection, 0)
            connection.execute("INSERT INTO seal VALUES (?, 0, 0)", (_text(0),))
            connection.execute("COMMIT")
        Mark(path).remove()
        partial.replace(path)

    def _prepare(self) -> None:
        execute = self._connection.execute
        # Nobody else reads it, so what several would have to share needs no file and no room on the disk.
        execute("PRAGMA locking_mode = EXCLUSIVE")
        if _one(execute("PRAGMA application_id")) != _APPLICATION:
            raise CorruptJournalError("it is not a journal of this server's")
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        damage = [text for (text,) in execute("PRAGMA integrity_check(3)")]
        if damage != ["ok"]:
            raise CorruptJournalError("; ".join(map(str, damage)))
        version = _one(execute("PRAGMA user_version"))
        if version > NEWEST:
            raise NewerJournalError(version)
        seals = execute("SELECT hash, revision, changes FROM seal").fetchone()
        sealed, self.revision, self._count = seals or ("", 0, 0)
        if _text(self._hash_all()) != sealed:
            raise CorruptJournalError("rows have been changed or lost")
        if (lost := self._mark.read() - self._count) > 0:
            raise LostChangesError(f"{lost} changes that were written are not in it any more")
        if version < NEWEST:
            with self._transaction():
                migrate(self._connection, version)
                self._write_seal(self._hash_all(), self.revision)
        self._seal = self._hash_all()
        self.rows = {key_of(table, row): row for table in _KEY_COLUMNS for row in self._rows_of(table)}

    def _hash_all(self) -> int:
        seal = 0
        for (table,) in self._connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            if table not in _UNSEALED:
                for row in self._rows_of(table):
                    seal ^= _hash(table, row)
        return seal

    def _rows_of(self, table: str) -> Iterable[Row]:
        return self._connection.execute(f'SELECT * FROM "{table}"')

    def write(self, changes: Mapping[Key, Row | None], revision: int) -> None:
        """Writes rows, and removes those that are None: all or none, and on the disk when this returns.

        Raises:
            sqlite3.Error: nothing was written.
        """
        seal = self._seal
        with self._transaction():
            for key, row in changes.items():
                table, *names = key
                if key in self.rows:
                    seal ^= _hash(table, self.rows[key])
                if row is None:
                    columns = [column[1] for column in self._connection.execute(f"PRAGMA table_info({table})")]
                    where = " AND ".join(f"{column} = ?" for column in columns[: len(names)])
                    self._connection.execute(f"DELETE FROM {table} WHERE {where}", names)
                else:
                    seal ^= _hash(table, row)
                    self._connection.execute(f"REPLACE INTO {table} VALUES ({', '.join('?' * len(row))})", row)
            self._count += 1
            self._write_seal(seal, revision)
        self._seal, self.revision = seal, revision
        self._mark.write(self._count)
        for key, row in changes.items():
            if row is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = row

    def _write_seal(self, seal: int, revision: int) -> None:
        self._connection.execute(
            "UPDATE seal SET hash = ?, revision = ?, changes = ?", (_text(seal), revision, self._count)
        )

    def uses(self) -> dict[tuple[str, str, int], float]:
        """When versions were last used, as far as that was written."""
        return {(scope, model, number): used for scope, model, number, used in self._rows_of("uses")}

    def write_uses(self, uses: Mapping[tuple[str, str, int], float]) -> None:
        """Writes when versions were last used, in the place of what was written of that before.

        Raises:
            sqlite3.Error: nothing was written.
        """
        with self._transaction():
            self._connection.execute("DELETE FROM uses")
            self._connection.executemany(
                "INSERT INTO uses VALUES (?, ?, ?, ?)", [(*version, used) for version, used in uses.items()]
            )

    def tidy(self) -> None:
        """Moves what was written last to where it belongs, for it can be lost where the WAL is damaged."""
        # When there is no room for it, it is as safe where it is.
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            # Where the disk is full, SQLite has done so itself.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


@contextmanager
def _corruption() -> Iterator[None]:
    """Within, what SQLite says of a wrong content is a CorruptJournalError."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise CorruptJournalError(str(error)) from None
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", None)
        # Of the extended codes, the lowest byte is the kind. A table that is missing, or text that is none, has none.
        if code is None or code & 0xFF in (*_CORRUPT, sqlite3.SQLITE_ERROR):
            raise CorruptJournalError(str(error)) from None
        raise


def _one(cursor: sqlite3.Cursor) -> Any:
    return cursor.fetchone()[0]


def _hash(table: str, row: Row) -> int:
    content = json.dumps([table, *row], default=repr).encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest())


def _text(seal: int) -> str:
    return f"{seal:016x}"
