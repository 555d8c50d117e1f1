"""Topic file: keeps the retained messages of topics in SQLite, written by a thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from twisted_net.errors import ConfigError, OutOfThreads
from twisted_net.net.reactor import ServiceReactor
from twisted_net.net.worker_threads import Threads
from twisted_net.topics.messages import TopicMessage, message_from_line
from twisted_net.topics.registry import Topics

FORMAT = 1
"""Number of the file's format, its ``user_version``; 0 is that of a new file."""

RETRY_INTERVAL = 5.0
"""Seconds after which what could not be written is tried again, as on a disk that is full."""


_LINES = "SELECT CAST(line AS BLOB) FROM retained"


class TopicDatabase:
    """
    The file itself. All methods run in one thread at a time, and may block.

    :param path: created if there is none; no other process may use it.
    :param timeout: seconds to wait for another process that uses it.
    """

    def __init__(self, path: str, timeout: float = 2.0) -> None:
        self._path = path
        self._timeout = timeout
        self._connection: sqlite3.Connection | None = None

    def load(self) -> list[bytes]:
        """
        Open the file and return the lines of all messages.

        :raises sqlite3.Error: if it cannot be used, or another process uses it.
        """
        # Each call is in the one thread that there is, which may be another one by then.
        connection = sqlite3.connect(self._path, timeout=self._timeout, check_same_thread=False)
        try:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            with connection:
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                if version not in (0, FORMAT):
                    raise sqlite3.DatabaseError(f"its format is {version}, not {FORMAT}")
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS retained (topic TEXT PRIMARY KEY, line BLOB)"
                )
                connection.execute(f"PRAGMA user_version={FORMAT}")
            lines = [line for (line,) in connection.execute(_LINES)]
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return lines

    def write(self, changes: Mapping[str, bytes | None]) -> None:
        """
        Write changes, all or none: the line of each topic, or None to remove it.

        :raises sqlite3.Error: if it fails.
        """
        connection = self._connection
        assert connection is not None
        removed = [(topic,) for topic, line in changes.items() if line is None]
        kept = [(topic, line) for topic, line in changes.items() if line is not None]
        with connection:
            connection.executemany("DELETE FROM retained WHERE topic = ?", removed)
            connection.executemany("INSERT OR REPLACE INTO retained VALUES (?, ?)", kept)

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class TopicFile:
    """
    Keeps the retained messages of topics across restarts.

    Changes are written together, by a thread, while further ones come; the last one of each topic
    is enough. What is on its way is lost in a crash, which leaves the file as it was before.

    :param threads: one thread of its own.
    """

    log = Logger()

    def __init__(
        self, reactor: ServiceReactor, path: str, topics: Topics, threads: Threads
    ) -> None:
        self._reactor = reactor
        self._path = path
        self._topics = topics
        self._threads = threads
        self._database = TopicDatabase(path)
        # Bounded by the topics that are retained, now and in the file.
        self._changes: dict[str, bytes | None] = {}
        self._in_file: set[str] = set()
        self._writing: Deferred[None] | None = None
        self._retry: IDelayedCall | None = None
        self._failing = False

    async def start(self) -> None:
        """
        Retain what the file has.

        :raises ConfigError: if it cannot be used.
        """
        self._threads.start()
        try:
            lines = await self._threads.call(self._database.load)
        except (sqlite3.Error, OutOfThreads) as error:
            raise ConfigError([f"topics.file: {self._path}: {error}"]) from error
        for line in lines:
            try:
                message = message_from_line(line)
            except msgspec.DecodeError:
                self.log.warn("{path}: what is no message is ignored", path=self._path)
                continue
            self._in_file.add(message.topic)
            self._topics.restore(message)
        self._topics.retained.changed = self._changed

    async def stop(self) -> None:
        """Write what is left, and close the file."""
        self._topics.retained.changed = None
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._writing is not None:
            await self._writing
        if self._changes:
            await self._write()
        if self._changes:
            self.log.error(
                "{path}: {count} retained messages are lost",
                path=self._path,
                count=len(self._changes),
            )
            self._changes.clear()
        await self._threads.call(self._database.close)
        self._in_file.clear()
        self._threads.stop()

    def _changed(self, levels: Sequence[str], message: TopicMessage | None) -> None:
        topic = ".".join(levels)
        if message is None and topic not in self._in_file:
            # It was never written.
            self._changes.pop(topic, None)
            return
        self._changes[topic] = None if message is None else message.line
        if self._writing is None and self._retry is None:
            self._begin()

    def _begin(self) -> None:
        self._retry = None
        self._writing = Deferred.fromCoroutine(self._write_all())

    async def _write_all(self) -> None:
        # From the next step on: what is published within one turn is written together.
        try:
            while self._changes and await self._write():
                pass
        except CancelledError:
            pass
        self._writing = None
        if self._changes and self._topics.retained.changed is not None:
            self._retry = self._reactor.callLater(RETRY_INTERVAL, self._begin)

    async def _write(self) -> bool:
        """Write what has changed; return whether that succeeded."""
        changes, self._changes = self._changes, {}
        # Before it is known: what is removed meanwhile must be removed from the file, too.
        self._in_file.update(topic for topic, line in changes.items() if line is not None)
        try:
            await self._threads.call(lambda: self._database.write(changes))
        except (sqlite3.Error, OutOfThreads) as error:
            if not self._failing:
                self.log.error(
                    "{path}: retained messages cannot be written, and are tried again: {error}",
                    path=self._path,
                    error=error,
                )
            self._failing = True
            self._changes = {**changes, **self._changes}
            return False
        if self._failing:
            self.log.info("{path}: retained messages are written again", path=self._path)
        self._failing = False
        self._in_file.difference_update(
            topic for topic, line in changes.items() if line is None and topic not in self._changes
        )
        return True
