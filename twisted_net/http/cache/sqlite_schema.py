"""Tables of the SQLite file of a cache: their version, their creation, and damage to them."""

from __future__ import annotations

import contextlib
import sqlite3
import time
import zlib
from collections.abc import Iterator
from typing import Any, Final

from twisted_net.http.cache.pending_changes import BATCH_BYTES
from twisted_net.http.cache.serialization import FORMAT

APPLICATION_ID: Final = 0x74774361
"""The application ID in SQLite's header: "twCa"."""

_SCHEMA = """
CREATE TABLE urls (id INTEGER PRIMARY KEY, url TEXT NOT NULL UNIQUE, used INTEGER NOT NULL);
CREATE INDEX urls_used ON urls (used);
CREATE TABLE entries (
    id INTEGER PRIMARY KEY, url INTEGER NOT NULL, size INTEGER NOT NULL,
    checksum INTEGER NOT NULL, head BLOB NOT NULL, body BLOB NOT NULL
);
CREATE INDEX entries_url ON entries (url);
CREATE TABLE totals (
    entries INTEGER NOT NULL, bytes INTEGER NOT NULL, version INTEGER NOT NULL,
    commits INTEGER NOT NULL
);
CREATE TRIGGER added AFTER INSERT ON entries BEGIN
    UPDATE totals SET entries = entries + 1, bytes = bytes + NEW.size;
END;
CREATE TRIGGER removed AFTER DELETE ON entries BEGIN
    UPDATE totals SET entries = entries - 1, bytes = bytes - OLD.size;
END;
"""

VERSION: Final = zlib.crc32(f"{_SCHEMA}{FORMAT}".encode()) & 0x7FFF_FFFF
"""The file's version: a hash of the tables and of the entries' format.

It is the ``user_version`` of SQLite's header, and also in ``totals``, where a statement that reads
entries finds it in passing.
"""

OPEN_TIMEOUT = 2.0
"""Seconds that opening waits for another process that is preparing the file."""

# These are errors of the file's contents, not of the disk. SQLITE_ERROR means an SQL statement
# that does not fit the tables: our statements are constant, so the tables are wrong.
_CORRUPT_CODES = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_ERROR,
}


class CorruptFile(Exception):
    """The file is not a cache of this package, or it is damaged."""


def prepare(database: sqlite3.Connection, commit: int) -> None:
    """
    Set how a new connection works, and create the tables, in place of those of another version.

    :param commit: number of the transaction that creates them.
    :raises CorruptFile: if the file belongs to another program.
    """
    end = time.monotonic() + OPEN_TIMEOUT
    while True:
        try:
            if not pragma(database, "page_count"):
                # So that its free pages can be given back. In a file that has pages, this writes.
                database.execute("PRAGMA auto_vacuum = INCREMENTAL")
            database.execute("PRAGMA journal_mode = WAL")
            # In WAL mode this does without an fsync per transaction, and cannot corrupt it.
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(f"PRAGMA journal_size_limit = {2 * BATCH_BYTES}")
            if not _is_current(database):
                _create(database, commit)
            return
        except sqlite3.OperationalError as error:
            # Changing the journal mode does not wait for other processes, despite timeout=.
            if not is_busy(error) or time.monotonic() > end:
                raise
            time.sleep(0.01)


def is_current(database: sqlite3.Connection) -> bool:
    """Return whether the tables are those of this version."""
    return pragma(database, "user_version") == VERSION


def is_busy(error: BaseException) -> bool:
    """Return whether another process was writing, so that a retry may succeed."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_full(error: BaseException) -> bool:
    """Return whether the disk was full."""
    return _code(error) == sqlite3.SQLITE_FULL


def is_corrupt(error: BaseException) -> bool:
    """Return whether the file is damaged."""
    return isinstance(error, CorruptFile) or _code(error) in _CORRUPT_CODES


def pragma(database: sqlite3.Connection, name: str) -> int:
    """Return the number that a pragma of SQLite has."""
    value: int = database.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def typed(rows: Any, *kinds: type) -> Any:  # Any: tuples of these types
    """
    Return *rows* if all values have these types: a damaged file may hold any value anywhere.

    :raises CorruptFile: if one has not.
    """
    for row in rows:
        if tuple(map(type, row)) != kinds:
            raise CorruptFile("a row has values of the wrong types")
    return rows


def _is_current(database: sqlite3.Connection) -> bool:
    return pragma(database, "application_id") == APPLICATION_ID and is_current(database)


def _create(database: sqlite3.Connection, commit: int) -> None:
    """Create the tables, in place of those of another version."""
    database.execute("BEGIN IMMEDIATE")
    try:
        if _is_current(database):
            return  # another process was faster
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        names = [name for (name,) in tables.fetchall() if not name.startswith("sqlite_")]
        if names and pragma(database, "application_id") != APPLICATION_ID:
            raise CorruptFile("it belongs to another program")
        for name in names:
            quoted = name.replace('"', '""')
            database.execute(f'DROP TABLE "{quoted}"')
        for statement in _statements(_SCHEMA):
            database.execute(statement)
        database.execute("INSERT INTO totals VALUES (0, 0, ?, ?)", (VERSION, commit))
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {VERSION}")
        database.execute("COMMIT")
    finally:
        if database.in_transaction:
            database.execute("ROLLBACK")
    if names and pragma(database, "auto_vacuum") != _INCREMENTAL:
        # The pragma has no effect on a file that had tables, but for VACUUM; there is nothing
        # left to copy. While another process has it open, it fails, and the file stays as large.
        with contextlib.suppress(sqlite3.OperationalError):
            database.execute("PRAGMA auto_vacuum = INCREMENTAL")
            database.execute("VACUUM")


_INCREMENTAL = 2


def _code(error: BaseException) -> int | None:
    """Return SQLite's primary code of an error, without the extended bits."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _statements(script: str) -> Iterator[str]:
    """Split a script into statements; ``executescript`` would commit before the first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
