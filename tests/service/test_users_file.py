"""Users are read from a file, and again when it has changed."""

from __future__ import annotations

import builtins
import errno
import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import LogLevel

from tests.service.users_case import UsersFileTestCase
from twisted_net.auth.users import Users, hash_token
from twisted_net.errors import OutOfThreads
from twisted_net.net.files import read_file
from twisted_net.reasons import End
from twisted_net.service import users_file
from twisted_net.service.users_file import (
    COMPLAINT_INTERVAL,
    MISTAKES_LOGGED,
    UsersFile,
    unthreaded,
)
from twisted_net.sessions.registry import Sessions
from twisted_net.sessions.session import Session
from twisted_net.topics.mailbox import Mailbox
from twisted_net.turns.steps import CLIENTS_AT_ONCE


def looked_at(file: UsersFile) -> Users:
    """Look twice, so that what has changed is read; return the users."""
    file.look()
    file.look()
    return file.current()


class UsersFileTests(UsersFileTestCase):
    """:class:`UsersFile` reads a file again when it changes."""

    def test_changes(self) -> None:
        """A changed file is read again; an unchanged one is not."""
        self.write("[ann]")
        file = UsersFile(str(self.path))
        users = looked_at(file)
        self.assertIs(looked_at(file), users)
        self.write("[ann]\n[bob]")
        self.assertEqual(len(looked_at(file)), 2)

    def test_broken_change(self) -> None:
        """If a changed file has a mistake or is missing, that is logged, and the users stay."""
        self.write("[ann]")
        file = UsersFile(str(self.path))
        self.write("[ann")
        self.assertIsNotNone(looked_at(file).get("ann"))
        self.path.unlink()
        self.assertIsNotNone(looked_at(file).get("ann"))
        levels = [event["log_level"] for event in self.logged]
        self.assertEqual(levels, [LogLevel.error, LogLevel.error])
        self.flushLoggedErrors()

    def test_unreadable(self) -> None:
        """While it cannot be read it is tried each time, which is logged once in a while."""
        now = 0.0
        self.write("[ann]")
        file = UsersFile(str(self.path), seconds=lambda: now)
        self.write("[ann]\n[bob]")
        real = os.open
        tries = []

        def refuse(*arguments: Any, **options: Any) -> Any:  # Any: as the original's
            if arguments[0] == str(self.path):
                tries.append(now)
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return real(*arguments, **options)

        self.patch(os, "open", refuse)
        file.look()
        for _ in range(100):
            file.look()
            self.assertEqual(len(file.current()), 1)
            now += COMPLAINT_INTERVAL / 50
        self.assertEqual((len(tries), len(self.logged)), (100, 2))
        self.patch(os, "open", real)
        self.assertEqual(len(looked_at(file)), 2)
        self.flushLoggedErrors()

    def test_being_written(self) -> None:
        """A file that changes between two looks is not read: its users might lack limits."""
        whole = '[ann]\n[bob]\ncommands = ["PING"]'
        self.write(whole)
        file = UsersFile(str(self.path))
        for size in (0, 7, 13):
            self.write(whole[:size])
            file.look()
        bob = file.current().permissions("bob")
        assert bob is not None
        self.assertFalse(bob.allows_command("ECHO", False))
        self.write("[ann]\n[bob]")
        # As if it had never been written to: the change before is forgotten.
        file.look()
        self.write(whole + "\n\n")
        file.look()
        self.assertFalse(bob.allows_command("ECHO", False))
        self.write("[ann]\n[bob]")
        looked_at(file)
        self.assertTrue(bob.allows_command("ECHO", False))
        self.assertEqual(len(self.logged), 1)

    def test_cut(self) -> None:
        """A changed file whose last line has no end may be cut; it is not even tried again."""
        self.write('[ann]\n[bob]\ncommands = ["PING"]\nmax_connections = 1')
        file = UsersFile(str(self.path))
        for cut in ("[ann]\n[bob]", '[ann]\n[bob]\ncommands = ["PING"]', "[ann]"):
            self.write_cut(cut)
            looked_at(file)
            bob = file.current().permissions("bob")
            assert bob is not None
            self.assertFalse(bob.allows_command("ECHO", False))
        messages = {str(event["mistake"]) for event in self.logged}
        self.assertEqual(messages, {f"{self.path}: the last line has no end; the file may be cut"})
        self.assertEqual(len(self.logged), 3)
        self.flushLoggedErrors()

    def test_changed_while_it_is_read(self) -> None:
        """What was read of a file that has changed meanwhile is dropped; nothing is read twice."""
        reads = []

        def read(path: str, limit: int) -> bytes:
            reads.append(path)
            contents = read_file(path, limit)
            if len(reads) == 1:
                self.write("[ann]\n[bob]\n[eve]")
            return contents

        self.write("[ann]")
        file = UsersFile(str(self.path))
        self.patch(users_file, "read_file", read)
        self.write("[ann]\n[bob]")
        self.assertEqual(len(looked_at(file)), 1)
        self.assertEqual(len(looked_at(file)), 3)
        self.assertEqual(len(looked_at(file)), 3)
        self.assertEqual(len(reads), 2)

    def test_out_of_resources(self) -> None:
        """Without a thread or memory it is tried each time, which is logged once in a while."""
        for lacking in (OutOfThreads(), MemoryError(), OSError(errno.EMFILE, "too many")):
            with self.subTest(lacking=lacking):
                self.assert_tried_again(lacking)

    def assert_tried_again(self, lacking: Exception) -> None:
        """Let a hundred reads of a changed file fail, and the next one not."""
        now, tries, logged = 0.0, 0, len(self.logged)

        def threading(read: Callable[[], Users | None]) -> Awaitable[Users | None]:
            nonlocal tries
            tries += 1
            return fail(lacking) if tries <= 100 else unthreaded(read)

        self.write("[ann]\n[bob]")
        file = UsersFile(str(self.path), seconds=lambda: now, threading=threading)
        self.write("[ann]")
        for _ in range(100):
            file.look()
            self.assertEqual(len(file.current()), 2)
            now += COMPLAINT_INTERVAL / 50
        self.assertEqual((tries, len(self.logged) - logged), (100, 2))
        self.assertEqual(len(looked_at(file)), 1)
        self.flushLoggedErrors()

    def test_no_answer(self) -> None:
        """A file system that does not answer is logged once in a while; it is asked in a thread."""
        now = 0.0
        waiting: list[tuple[Deferred[Users | None], Callable[[], Users | None]]] = []

        def threading(read: Callable[[], Users | None]) -> Deferred[Users | None]:
            waiting.append((Deferred(), read))
            return waiting[-1][0]

        def answer() -> None:
            """Let the file system answer the one question that there is."""
            ((outcome, read),) = waiting
            waiting.clear()
            outcome.callback(read())

        self.write("[ann]\n[bob]")
        file = UsersFile(str(self.path), seconds=lambda: now, threading=threading)
        self.write("[ann]")
        asked = []
        real = os.stat

        def stat(*arguments: Any, **options: Any) -> os.stat_result:  # Any: as the original's
            asked.append(arguments)
            return real(*arguments, **options)

        self.patch(os, "stat", stat)
        for complaints in (0, 2):
            looked_at(file)
            for seconds, more in ((0.9, 0), (0.2, 1), (0.8, 1), (0.2, 2)):
                now += seconds * COMPLAINT_INTERVAL
                file.look()
                self.assertEqual(len(self.logged), complaints + more)
            self.assertEqual(asked, [])
            answer()
            asked.clear()
            now += COMPLAINT_INTERVAL
        self.assertEqual(len(file.current()), 1)

    def test_bug(self) -> None:
        """What cannot be read because of a bug is not tried again, and fills no log."""

        def broken(text: str, path: str) -> Users:
            raise ZeroDivisionError

        self.write("[ann]")
        file = UsersFile(str(self.path))
        self.patch(users_file, "read_users", broken)
        self.write("[bob]")
        for _ in range(4):
            self.assertIsNotNone(looked_at(file).get("ann"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_no_file(self) -> None:
        """A FIFO does not block, and is no users file; nor is one that is too large."""
        self.write("[ann]")
        file = UsersFile(str(self.path))
        self.path.unlink()
        os.mkfifo(self.path)
        self.assertEqual(self.mistakes(), ["it is not a regular file"])
        self.assertEqual(len(looked_at(file)), 1)
        self.path.unlink()
        self.patch(users_file, "MAX_BYTES", 11)
        self.write("[ann]#####")
        self.assertEqual(len(UsersFile(str(self.path)).current()), 1)
        self.write("[ann]######")
        self.assertEqual(self.mistakes(), ["it has more than 11 bytes"])
        self.flushLoggedErrors()

    def test_mode(self) -> None:
        """A file that was replaced, or whose mode has changed, is looked at anew."""
        self.write("[ann]")
        file = UsersFile(str(self.path))
        before = os.stat(self.path)
        other = self.path.with_name("other")
        other.write_text("[bob]\n")
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        other.rename(self.path)
        self.assertIsNotNone(looked_at(file).get("bob"))
        self.path.chmod(0o644)
        looked_at(file)
        looked_at(file)
        levels = [event["log_level"] for event in self.logged]
        self.assertEqual(levels.count(LogLevel.warn), 2)

    def test_many_mistakes(self) -> None:
        """A file of mistakes does not fill the log."""
        self.write("[ann]")
        file = UsersFile(str(self.path))
        self.write("".join(f"[user{i}]\nage = {i}\n" for i in range(1000)))
        looked_at(file)
        self.assertEqual(len(self.logged), MISTAKES_LOGGED + 1)
        self.flushLoggedErrors()

    def test_readable_by_all(self) -> None:
        """If the file is world-readable, that is logged as a warning."""
        self.write("[ann]")
        self.path.chmod(0o644)
        UsersFile(str(self.path))
        self.assertEqual([event["log_level"] for event in self.logged], [LogLevel.warn])

    def test_mistakes(self) -> None:
        """Files that cannot be read, and invalid hashes, are reported at the start."""
        self.assertEqual(self.mistakes(), ["No such file or directory"])
        self.path.write_bytes(b"\xff")
        self.assertEqual(self.mistakes(), ["byte 0 is not UTF-8"])
        self.write('[ann]\npassword = "$scrypt$ln=99,r=8,p=1$AA$AA"')
        self.assertEqual(
            self.mistakes(), ["user ann: password: the parameters of this hash are out of bounds"]
        )
        self.path.unlink()
        self.path.mkdir()
        self.assertEqual(self.mistakes(), ["Is a directory"])

    def test_without_the_extra(self) -> None:
        """An argon2 hash is a mistake if the extra is not installed."""
        self.write('[ann]\npassword = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$aGFzaA"')
        real = builtins.__import__

        def missing(name: str, *rest: Any) -> Any:  # Any: as the original's
            if name.partition(".")[0] == "argon2":
                raise ImportError("no argon2")
            return real(name, *rest)

        self.patch(builtins, "__import__", missing)
        self.assertEqual(self.mistakes(), ["user ann: password: argon2 requires twisted_net[auth]"])


class ChangeTests(UsersFileTestCase):
    """What has changed in the file holds for those who are logged in."""

    def setUp(self) -> None:
        super().setUp()
        self.sessions = Sessions(lambda: 0.0)
        self.told: list[bytes] = []

    def tell(self, line: bytes) -> None:
        """Take an event."""
        self.told.append(line)

    def log_in(self, file: UsersFile, name: str, proof: str | None = None) -> Session:
        """Return the session of a user."""
        session = self.sessions.open("h", 1, self.tell)
        permissions = looked_at(file).permissions(name)
        assert permissions is not None
        session.log_in(permissions, proof)
        return session

    def test_same_object(self) -> None:
        """Who is not changed is not reviewed; who is has the same permissions, changed."""
        self.write('[ann]\n[bob]\ncommands = ["PING"]')
        file = UsersFile(str(self.path))
        ann, bob = (looked_at(file).permissions(name) for name in ("ann", "bob"))
        assert ann is not None
        assert bob is not None
        self.write('[ann]\ncommands = ["PING"]\n[bob]\ncommands = ["PING"]')
        self.assertIs(looked_at(file).permissions("ann"), ann)
        self.assertIs(looked_at(file).permissions("bob"), bob)
        self.assertFalse(ann.allows_command("ECHO", False))
        self.assertEqual(looked_at(file).replace(looked_at(file)), [])

    def test_removed(self) -> None:
        """A removed user is logged out."""
        self.write("[ann]\n[bob]")
        file = UsersFile(str(self.path))
        ann, bob = self.log_in(file, "ann"), self.log_in(file, "bob")
        self.write("[bob]")
        self.assertEqual((ann.user, bob.user), ("ann", "bob"))
        looked_at(file)
        self.assertEqual((ann.user, bob.user), (None, "bob"))
        self.assertEqual(self.told, [b'{"event":"logged_out","code":"user_removed"}\n'])

    def test_proofs(self) -> None:
        """Who has logged in with a token is logged out with it; others of the user are not."""
        old, new = hash_token("old"), hash_token("new")
        self.write(f'[ann]\ntokens = ["{old}", "{new}"]')
        file = UsersFile(str(self.path))
        one, other, certified = (self.log_in(file, "ann", proof) for proof in (old, new, None))
        self.write(f'[ann]\ntokens = ["{new}"]')
        looked_at(file)
        self.assertEqual([one.user, other.user, certified.user], [None, "ann", "ann"])
        self.assertEqual(self.told, [b'{"event":"logged_out","code":"proof_removed"}\n'])

    def test_unlisted(self) -> None:
        """Who is not listed changes with ``default``, and is listed once the file has it."""
        self.write('[ann]\n[default]\ncommands = ["PING", "ECHO"]')
        file = UsersFile(str(self.path))
        eve = looked_at(file).unlisted("eve")
        self.sessions.open("h", 1, self.tell).log_in(eve)
        self.write('[ann]\n[default]\ncommands = ["PING"]')
        self.assertIs(looked_at(file).unlisted("eve"), eve)
        self.assertFalse(eve.allows_command("ECHO", False))
        self.write('[ann]\n[default]\ncommands = ["PING"]\n[eve]\ncommands = ["ECHO"]')
        self.assertIs(looked_at(file).permissions("eve"), eve)
        self.assertTrue(eve.allows_command("ECHO", False))
        self.write('[ann]\n[default]\ncommands = ["PING"]')
        looked_at(file)
        self.assertTrue(eve.withdrawn)
        self.assertEqual(self.told, [b'{"event":"logged_out","code":"user_removed"}\n'])

    def test_compared_outside(self) -> None:
        """What has changed is found where the file is read, not in the reactor's thread."""
        outside: list[bool] = []
        compared: list[bool] = []
        compare = Users.compare

        def watch(users: Users, before: Users) -> None:
            compared.append(bool(outside))
            compare(users, before)

        async def threading(read: Callable[[], Users | None]) -> Users | None:
            outside.append(True)
            try:
                return read()
            finally:
                outside.pop()

        self.patch(Users, "compare", watch)
        self.write("[ann]")
        file = UsersFile(str(self.path), threading=threading)
        self.write("[ann]\n[bob]")
        self.assertEqual(len(looked_at(file)), 2)
        self.assertEqual(compared, [True])

    def test_pace(self) -> None:
        """Many are reviewed in many steps; what they may do has changed before."""

        def pacing(work: Iterable[int]) -> Awaitable[list[int]]:
            self.work = iter(work)
            return Deferred()

        self.write("[ann]")
        file = UsersFile(str(self.path), pacing)
        sessions = [self.log_in(file, "ann") for _ in range(CLIENTS_AT_ONCE + 10)]
        self.write("[bob]")
        looked_at(file)
        permissions = sessions[0].permissions
        assert permissions is not None
        self.assertFalse(permissions.allows_command("ECHO", False))
        self.assertEqual(self.told, [])
        self.assertEqual(next(self.work), CLIENTS_AT_ONCE)
        self.assertEqual(len(self.told), CLIENTS_AT_ONCE)
        # Some leave meanwhile, and some log in as somebody else.
        bob = looked_at(file).permissions("bob")
        assert bob is not None
        sessions[-1].log_in(bob)
        self.sessions.close(sessions[-2], End.CLIENT_CLOSED)
        self.assertEqual(list(self.work), [10])
        self.assertEqual(len(self.told), CLIENTS_AT_ONCE + 8)
        self.assertEqual({session.user for session in sessions[:-2]}, {None})
        self.assertEqual(sessions[-1].user, "bob")

    def test_pace_of_subscribers(self) -> None:
        """Those with many subscriptions are reviewed fewer at once, and one at least."""

        def pacing(work: Iterable[int]) -> Awaitable[list[int]]:
            self.steps = list(work)
            return Deferred()

        self.write("[ann]")
        file = UsersFile(str(self.path), pacing)
        for count in (1000, 300, 300, 8, 1000):
            session = self.log_in(file, "ann")
            for i in range(count):
                self.sessions.topics.subscribe(self.mailbox_of(session), f"a.{i}")
        self.write('[ann]\nsubscribe = ["b"]')
        looked_at(file)
        self.assertEqual(self.steps, [1, 2, 2])
        self.assertEqual(len(self.sessions.topics), 0)

    def mailbox_of(self, session: Session) -> Mailbox:
        """Return the mailbox of a session."""
        if session.mailbox is None:
            session.mailbox = Mailbox(self.sessions.topics, NobodyListens())
        return session.mailbox


class NobodyListens:
    """A recipient that takes no messages."""

    def subscribed(self) -> None:
        """Do nothing."""

    wake = overflow = subscribed
