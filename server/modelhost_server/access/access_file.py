"""The access file: which tokens and certificates there are, whose they are and what they may do. SQLite, so that
commands can change it while the server reads it.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .grants import grant_texts, read_grants
from .identity import Identity, Role
from .tokens import new_token, token_hash

_VERSION = 1
_SCHEMA = f"""
CREATE TABLE tokens (
    id TEXT PRIMARY KEY, hash BLOB NOT NULL, name TEXT NOT NULL, grants TEXT NOT NULL,
    created REAL NOT NULL, expires REAL, revoked REAL
) STRICT;
CREATE TABLE subjects (
    subject TEXT PRIMARY KEY, name TEXT NOT NULL, grants TEXT NOT NULL, created REAL NOT NULL
) STRICT;
PRAGMA user_version = {_VERSION};
"""
# Who may read it could not use the tokens, but would know whose there are.
_MODE = 0o600
_OTHERS = 0o077
_WAIT_SECONDS = 10.0
# Length and place of SQLite's counter of changes.
_CHANGES = (4, 24)


@dataclass(frozen=True, slots=True)
class Token:
    """A token, as far as it is known. Times are in seconds since 1970; None: never."""

    id: str
    hash: bytes
    identity: Identity
    created: float
    expires: float | None = None
    revoked: float | None = None

    def is_good(self, now: float) -> bool:
        """Whether it may be used."""
        return self.revoked is None and (self.expires is None or now < self.expires)


@dataclass(frozen=True, slots=True)
class Subject:
    """A client certificate's common name, and who comes with it."""

    subject: str
    identity: Identity
    created: float


@dataclass(frozen=True, slots=True)
class Known:
    """All that the file says."""

    tokens: Mapping[str, Token]
    subjects: Mapping[str, Subject]


class AccessFile:
    """The file, which must be there.

    Raises:
        OSError: it is not there, others may read it, or it is something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            mode = path.stat().st_mode
        except OSError as error:
            raise OSError(
                f"access file {path}: {error.strerror}; `modelhost token create NAME --grant ROLE:SCOPE --access "
                f"{path}` makes one"
            ) from None
        if mode & _OTHERS:
            raise OSError(f"access file {path}: others may read or write it; make it yours alone: chmod 600 {path}")
        with self._opened() as database:
            version = database.execute("PRAGMA user_version").fetchone()[0]
        if version != _VERSION:
            raise OSError(f"access file {path}: expected one of version {_VERSION}; got version {version}")

    @classmethod
    def made(cls, path: Path) -> AccessFile:
        """The file, made if it is not there.

        Raises:
            OSError: it cannot be made; see above.
        """
        # Beside its place first: nobody is to find half of it, nor one that others may read.
        draft = path.with_name(f"{path.name}.new-{os.getpid()}")
        if not path.exists():
            try:
                os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, _MODE))
                with closing(sqlite3.connect(draft)) as database:
                    database.executescript(_SCHEMA)
                os.link(draft, path)
            except FileExistsError:
                # Another command was first.
                pass
            finally:
                draft.unlink(missing_ok=True)
        return cls(path)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        uri = f"{self._path.absolute().as_uri()}?mode=rw"
        try:
            with closing(sqlite3.connect(uri, _WAIT_SECONDS, uri=True)) as database, database:
                yield database
        except sqlite3.Error as error:
            raise OSError(f"access file {self._path}: {error}") from None

    def stamp(self) -> tuple[object, ...]:
        """Differs when the file has changed, or another is in its place: by the counter that SQLite has in it of its
        changes, and by how it looks, as a copy may have the same counter.

        Raises:
            OSError: it is not there.
        """
        with self._path.open("rb") as file:
            status = os.fstat(file.fileno())
            return status.st_ino, status.st_size, status.st_mtime_ns, os.pread(file.fileno(), *_CHANGES)

    def read(self) -> Known:
        """What it says.

        Raises:
            OSError: it cannot be read.
        """
        with self._opened() as database:
            tokens = database.execute("SELECT id, hash, name, grants, created, expires, revoked FROM tokens").fetchall()
            subjects = database.execute("SELECT subject, name, grants, created FROM subjects").fetchall()
        return Known(
            {row[0]: Token(row[0], row[1], _identity(row[2], row[3]), *row[4:]) for row in tokens},
            {row[0]: Subject(row[0], _identity(row[1], row[2]), row[3]) for row in subjects},
        )

    def create_token(self, name: str, grants: Mapping[str, Role], expires: float | None) -> tuple[str, str]:
        """A new token's id, and the token, which is told this once.

        Raises:
            OSError: the file cannot be changed.
        """
        token_id, token = new_token()
        with self._opened() as database:
            database.execute(
                "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, NULL)",
                (token_id, token_hash(token), name, " ".join(grant_texts(grants)), time.time(), expires),
            )
        return token_id, token

    def revoke_token(self, token_id: str) -> bool:
        """Revokes a token for good; whether there is one that was not.

        Raises:
            OSError: the file cannot be changed.
        """
        with self._opened() as database:
            changed = database.execute(
                "UPDATE tokens SET revoked = ? WHERE id = ? AND revoked IS NULL", (time.time(), token_id)
            )
            return changed.rowcount > 0

    def put_subject(self, subject: str, name: str, grants: Mapping[str, Role]) -> None:
        """Makes a certificate known, or changes what it may do.

        Raises:
            OSError: the file cannot be changed.
        """
        with self._opened() as database:
            database.execute(
                "INSERT OR REPLACE INTO subjects VALUES (?, ?, ?, ?)",
                (subject, name, " ".join(grant_texts(grants)), time.time()),
            )

    def remove_subject(self, subject: str) -> bool:
        """Forgets a certificate; whether it was known.

        Raises:
            OSError: the file cannot be changed.
        """
        with self._opened() as database:
            return database.execute("DELETE FROM subjects WHERE subject = ?", (subject,)).rowcount > 0


def _identity(name: str, grants: str) -> Identity:
    return Identity(name, read_grants(grants.split()))
