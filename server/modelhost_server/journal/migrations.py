"""The journal's tables, and how those of an older version become those of a newer one."""

from __future__ import annotations

import sqlite3

# Each brings a journal from the version of its position to the next; what has been released is never changed.
MIGRATIONS = (
    """
    CREATE TABLE scopes (name TEXT PRIMARY KEY, config TEXT NOT NULL, created REAL NOT NULL) WITHOUT ROWID;
    CREATE TABLE models (
        scope TEXT, model TEXT, highest INTEGER NOT NULL, labels TEXT NOT NULL, PRIMARY KEY (scope, model)
    ) WITHOUT ROWID;
    CREATE TABLE versions (
        scope TEXT, model TEXT, number INTEGER, created REAL NOT NULL, phase TEXT NOT NULL, error TEXT NOT NULL,
        load TEXT NOT NULL, PRIMARY KEY (scope, model, number)
    ) WITHOUT ROWID;
    CREATE TABLE requests (
        kind TEXT, id TEXT, position INTEGER NOT NULL, request TEXT NOT NULL, outcome TEXT NOT NULL,
        PRIMARY KEY (kind, id)
    ) WITHOUT ROWID;
    CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE uses (
        scope TEXT, model TEXT, number INTEGER, last_used REAL NOT NULL, PRIMARY KEY (scope, model, number)
    ) WITHOUT ROWID;
    CREATE TABLE seal (hash TEXT NOT NULL, revision INTEGER NOT NULL, changes INTEGER NOT NULL);
    """,
)
NEWEST = len(MIGRATIONS)


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Brings the tables from a version to the newest; within a transaction of the caller's."""
    for script in MIGRATIONS[version:]:
        # Not `executescript`: that would commit the caller's transaction.
        for statement in filter(str.strip, script.split(";")):
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {NEWEST}")
