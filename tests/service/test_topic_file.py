"""Retained messages survive a restart, and are written by a thread."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.threads import ThreadClock
from twisted_net.errors import ConfigError
from twisted_net.service.topic_file import RETRY_INTERVAL, TopicFile
from twisted_net.topics.registry import Topics
from twisted_net.topics.settings import TopicSettings


class TopicFileTests(SynchronousTestCase):
    """:class:`TopicFile`."""

    def setUp(self) -> None:
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.path = str(Path(holder.name, "retained.db"))
        self.reactor: Any = ThreadClock()  # Any: a clock with threads is enough
        self.wall = 1000.0

    def opened(self, settings: TopicSettings | None = None) -> tuple[Topics, TopicFile]:
        """Start with the file, as a process does."""
        topics = Topics(settings)
        topics.use_wall(lambda: self.wall, str)
        file = TopicFile(self.reactor, self.path, topics, self.reactor)
        self.done(file.start())
        return topics, file

    def done(self, work: Any) -> None:
        """Wait for a coroutine, with all that its thread has to do."""
        result = Deferred.fromCoroutine(work)
        self.run_threads()
        self.successResultOf(result)

    def run_threads(self) -> None:
        """Let the thread do what it has to."""
        while self.reactor.threads:
            self.reactor.run_thread()

    def values(self, topics: Topics) -> dict[str, object]:
        """Return the values that are retained."""
        found = topics.retained.matching([">"])
        return {message.topic: message.value for message in found if message is not None}

    def test_restart(self) -> None:
        """Messages are there again, as they were; newer ones have larger numbers."""
        topics, file = self.opened()
        topics.publish("a.b", {"rate": 5}, sender="ann", retain=True)
        topics.publish("a.c", "text", retain=True)
        topics.publish("a.d", "gone", retain=True)
        topics.publish("a.d", "", retain=True)
        before = topics.last("a.b")
        self.done(file.stop())
        self.wall -= 500
        topics, file = self.opened()
        after = topics.last("a.b")
        assert before is not None
        assert after is not None
        self.assertEqual(after.line, before.line)
        self.assertEqual(self.values(topics), {"a.b": {"rate": 5}, "a.c": "text"})
        topics.publish("a.b", "newer", retain=True)
        newer = topics.last("a.b")
        assert newer is not None
        self.assertGreater(newer.id, before.id)
        self.done(file.stop())

    def test_removed(self) -> None:
        """What is retained no more is out of the file, whenever it was removed."""
        topics, file = self.opened()
        for topic in ("a", "b"):
            topics.publish(topic, "1", retain=True)
        topics.publish("a", "", retain=True)  # while it is being written
        self.run_threads()
        topics.publish("b", "", retain=True)
        self.done(file.stop())
        topics, file = self.opened()
        self.assertEqual(self.values(topics), {})
        self.done(file.stop())

    def test_together(self) -> None:
        """While one write is under way the last message of each topic waits for the next."""
        topics, file = self.opened()
        written: list[int] = []
        write = file._database.write

        def counted(changes: dict[str, bytes | None]) -> None:
            written.append(len(changes))
            write(changes)

        self.patch(file._database, "write", counted)
        for i in range(1000):
            topics.publish(f"t.{i % 10}", str(i), retain=True)
        self.assertEqual(len(self.reactor.threads), 1)
        self.run_threads()
        self.assertEqual(written, [1, 10])
        self.done(file.stop())

    def test_bounded(self) -> None:
        """Topics that come and go while the disk is slow leave nothing behind."""
        topics, file = self.opened()
        for i in range(1000):
            topics.publish(f"t.{i}", "1", retain=True)
            topics.publish(f"t.{i}", "", retain=True)
        self.assertLessEqual(len(file._changes), 1)
        self.done(file.stop())

    def test_failing(self) -> None:
        """What cannot be written is tried again, with what has changed since; it is logged once."""
        topics, file = self.opened()
        write, failures = file._database.write, [1, 2]

        def failing(changes: dict[str, bytes | None]) -> None:
            if failures:
                failures.pop()
                raise sqlite3.OperationalError("disk is full")
            write(changes)

        self.patch(file._database, "write", failing)
        topics.publish("a", "1", retain=True)
        self.run_threads()
        topics.publish("a", "2", retain=True)
        self.assertEqual(len(self.reactor.threads), 0)
        self.reactor.advance(RETRY_INTERVAL)
        self.run_threads()
        self.reactor.advance(RETRY_INTERVAL)
        self.run_threads()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.done(file.stop())
        topics, file = self.opened()
        self.assertEqual(self.values(topics), {"a": "2"})
        self.done(file.stop())

    def test_stopped_while_failing(self) -> None:
        """A file that cannot be written does not hold the end."""
        topics, file = self.opened()

        def failing(changes: dict[str, bytes | None]) -> None:
            raise sqlite3.OperationalError("disk is full")

        self.patch(file._database, "write", failing)
        topics.publish("a", "1", retain=True)
        self.run_threads()
        self.done(file.stop())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_in_use(self) -> None:
        """A second process is refused, and so is a file that is none."""
        _, file = self.opened()
        again = TopicFile(self.reactor, self.path, Topics(), self.reactor)
        again._database._timeout = 0.0
        result = Deferred.fromCoroutine(again.start())
        self.run_threads()
        error = self.failureResultOf(result, ConfigError)
        self.assertIn(f"topics.file: {self.path}: database is locked", str(error.value))
        self.done(file.stop())
        Path(self.path).write_bytes(b"no database" * 1000)
        result = Deferred.fromCoroutine(again.start())
        self.run_threads()
        self.failureResultOf(result, ConfigError)

    def test_other_format(self) -> None:
        """A file of a later version is left alone."""
        with sqlite3.connect(self.path) as connection:
            connection.execute("PRAGMA user_version=7")
        connection.close()
        file = TopicFile(self.reactor, self.path, Topics(), self.reactor)
        result = Deferred.fromCoroutine(file.start())
        self.run_threads()
        error = self.failureResultOf(result, ConfigError)
        self.assertIn("its format is 7, not 1", str(error.value))

    def test_smaller_bounds(self) -> None:
        """Where fewer may be retained than the file has, the others are ignored."""
        topics, file = self.opened()
        for i in range(5):
            topics.publish(f"t.{i}", "1", retain=True)
        self.done(file.stop())
        with sqlite3.connect(self.path) as connection:
            connection.execute("INSERT INTO retained VALUES ('x', 'no message')")
            line = '{"event":"message","topic":"a..b","message":"","id":1}'
            connection.execute("INSERT INTO retained VALUES ('a..b', ?)", (line,))
        connection.close()
        topics, file = self.opened(TopicSettings(max_retained=2))
        self.assertEqual(len(topics.retained), 2)
        self.done(file.stop())
