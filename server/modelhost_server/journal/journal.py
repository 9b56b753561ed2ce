"""Opens the journal of a data directory, or says why the server must not start with it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ..errors import ModelhostError, Reason
from ..store.records import Scope, Version
from .database import CorruptJournalError, Database, LostChangesError, NewerJournalError
from .lock import lock_directory
from .mark import mark_of
from .migrations import NEWEST
from .rows import KeptRequest, read_labels, read_request, read_scope, read_version

_FILE = "journal.db"
# SQLite's own name for what has been written last.
_LATEST = f"{_FILE}-wal"
_MARK = mark_of(Path(_FILE)).name
_ASIDE = "journal-corrupt-"


@dataclass(frozen=True, slots=True)
class Content:
    """What a journal says. Models are scope, name, highest number and labels."""

    scopes: Sequence[Scope]
    models: Sequence[tuple[str, str, int, dict[str, int]]]
    versions: Sequence[Version]
    requests: Sequence[KeptRequest]


class Journal:
    """A data directory's journal; the directory is this process's until it is closed."""

    def __init__(self, directory: Path, accept_lost: str = "") -> None:
        """Opens the journal, or makes one where there was none.

        Args:
            directory: made when it is not there.
            accept_lost: name of a corrupt journal that was set aside; an empty one may take its place.

        Raises:
            ModelhostError: another server has the directory, or its journal is corrupt or of a newer server.
            OSError: the directory cannot be used.
        """
        directory = self.directory = directory.absolute()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock: TextIO = lock_directory(directory)
        try:
            self.database = self._open(accept_lost)
        except BaseException:
            self._lock.close()
            raise

    def _open(self, accept_lost: str) -> Database:
        path = self.directory / _FILE
        database = None
        try:
            if not path.exists():
                self._check_lost(accept_lost)
                Database.create(path)
            database = Database(path)
            # To know now that all of it can be read.
            _read(database)
        except (CorruptJournalError, ValueError) as error:
            if database is not None:
                database.close()
            raise self._set_aside(error) from None
        except LostChangesError as error:
            raise ModelhostError(
                Reason.STORAGE_FAILED,
                f"data_dir: the journal in {self.directory} is older than it was: {error}. Put the latest back; or, to "
                f"go on with this one as it is, remove {_MARK} there",
            ) from None
        except NewerJournalError as error:
            raise ModelhostError(
                Reason.STORAGE_FAILED,
                f"data_dir: the journal in {self.directory} is of version {error.version}, written by a newer server; "
                f"this one knows the versions up to {NEWEST}. Start the newer server, or use another directory",
            ) from None
        except sqlite3.Error as error:
            raise ModelhostError(
                Reason.STORAGE_FAILED, f"data_dir: the journal in {self.directory} cannot be opened: {error}"
            ) from None
        return database

    def _check_lost(self, accept_lost: str) -> None:
        """Raises when there was a journal, and nobody has said that it is lost."""
        for name in (_LATEST, _MARK):
            if (self.directory / name).exists():
                raise CorruptJournalError(f"there is {name} without {_FILE}")
        aside = max(self.directory.glob(f"{_ASIDE}*.db"), default=None)
        if aside is not None and aside.name != accept_lost:
            raise ModelhostError(Reason.STORAGE_FAILED, f"data_dir: {_lost(aside)}")

    def _set_aside(self, error: Exception) -> ModelhostError:
        """Keeps a corrupt journal under another name."""
        aside = self.directory / f"{_ASIDE}{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.db"
        # In this order: without what was written last, the rest would pass for all there is.
        with suppress(FileNotFoundError):
            (self.directory / _FILE).rename(aside)
        with suppress(FileNotFoundError):
            (self.directory / _LATEST).rename(f"{aside}-wal")
        # Whatever is put in its place is as it is to be.
        (self.directory / _MARK).unlink(missing_ok=True)
        aside.touch()
        return ModelhostError(
            Reason.STORAGE_FAILED,
            f"data_dir: the journal is corrupt ({str(error)[:200]}); nothing is loaded. {_lost(aside)}",
        )

    def read(self) -> Content:
        """What the journal said when it was opened."""
        return _read(self.database)

    def close(self) -> None:
        """Closes the journal, and gives the directory to whoever wants it."""
        self.database.tidy()
        self.database.close()
        self._lock.close()


def _lost(aside: Path) -> str:
    return (
        f"A corrupt journal is kept as {aside}. Put a copy of it that is whole in its place, as {_FILE}; or, to go on "
        f"without what it said, start once with --accept-lost-journal {aside.name}"
    )


def _read(database: Database) -> Content:
    """What a journal says.

    Raises:
        ValueError: it is nothing that was ever written.
    """
    rows = database.rows
    uses = database.uses()
    versions = [row for key, row in rows.items() if key[0] == "versions"]
    return Content(
        [read_scope(row) for key, row in rows.items() if key[0] == "scopes"],
        [(*row[:3], read_labels(row[3])) for key, row in rows.items() if key[0] == "models"],
        [read_version(row, uses.get(row[:3], 0.0)) for row in versions],
        [
            read_request(row)
            for row in sorted((row for key, row in rows.items() if key[0] == "requests"), key=lambda row: row[2])
        ],
    )
