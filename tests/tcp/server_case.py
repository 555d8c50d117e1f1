"""A server in memory with commands that wait, fail and block, for the tests of its parts."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.memory import Connection, Reactor
from twisted_net.commands.standard import standard_commands
from twisted_net.errors import CommandError
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.rejection import LINGER_TIMEOUT
from twisted_net.tcp.server import SWEEP_INTERVAL, CommandFactory

GRACE = LINGER_TIMEOUT + SWEEP_INTERVAL
"""Seconds after which no connection lingers any more."""


class Handlers:
    """
    Commands for tests, and what became of their calls.

    :ivar waits: the Deferreds of WAIT, oldest first; tests take out what they fire.
    :ivar words: the arguments of WAIT.
    :ivar log: the names of the handlers that ran, and of those cancelled.
    """

    def __init__(self, reactor: Reactor) -> None:
        self.waits: list[Deferred[object]] = []
        self.words: dict[Deferred[object], str] = {}
        self.log: list[str] = []
        self.commands = commands = standard_commands()
        declare = commands.command
        for name in ("WAIT", "SOON", "NOW", "BUG", "LATEBUG", "BIG", "FIRE", "STUBBORN"):
            declare(name)(getattr(self, name.lower()))
        declare("REFUSE")(self.refuse)
        declare("BLOCK", blocking=True)(self.block)
        declare("ODD")(self.odd)
        self._reactor = reactor

    def wait(self, word: str = "") -> Deferred[object]:
        """Wait until the test fires it."""
        deferred: Deferred[object] = Deferred(lambda _: self.log.append(f"cancelled {word}"))
        self.log.append(f"wait {word}")
        self.waits.append(deferred)
        self.words[deferred] = word
        return deferred

    async def soon(self, word: str) -> str:
        """Answer in the next turn."""
        deferred: Deferred[str] = Deferred()
        self._reactor.callLater(0, deferred.callback, word)
        return await deferred

    async def now(self, word: str) -> str:
        """Answer at once, though async."""
        return word

    def bug(self) -> None:
        """Fail."""
        raise ZeroDivisionError("a bug")

    async def latebug(self, kind: str = "") -> None:
        """Fail in a later turn, as if cancelled or timed out if the kind says so."""
        deferred: Deferred[None] = Deferred()
        kinds = {"cancelled": CancelledError, "timeout": DeferredTimeout}
        self._reactor.callLater(0, deferred.errback, kinds.get(kind, ZeroDivisionError)("bug"))
        await deferred

    async def odd(self) -> None:
        """Fail at once, as if cancelled."""
        raise CancelledError

    async def refuse(self) -> None:
        """Refuse in a later turn."""
        deferred: Deferred[None] = Deferred()
        self._reactor.callLater(0, deferred.errback, CommandError("no"))
        await deferred

    def block(self, word: str) -> str:
        """Answer from a thread."""
        self.log.append(f"block {word}")
        return word

    def big(self, size: int) -> str:
        """Return many bytes."""
        return "x" * size

    def fire(self) -> str:
        """Fire the oldest WAIT from within another handler."""
        self.waits.pop(0).callback("fired")
        return "FIRE"

    async def stubborn(self) -> str:
        """Return a value although it is cancelled."""
        try:
            await Deferred()
        except CancelledError:
            return "late"
        raise AssertionError


class ServerTestCase(SynchronousTestCase):
    """A server in memory, and its clients."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.handlers = Handlers(self.reactor)
        self.serve()

    def serve(self, **limits: Any) -> None:  # Any: fields of Limits
        """Make the server anew, with these limits."""
        self.factory = CommandFactory(
            self.reactor, self.handlers.commands, Limits(**limits), threads=self.reactor
        )

    def connect(self, send: bytes = b"", **how: Any) -> Connection:  # Any: of Reactor.connect
        """Connect a client that sends something, and let the server take its time."""
        client = self.reactor.connect(self.factory, **how)
        client.send(send)
        self.reactor.settle()
        return client

    def leave(self, *clients: Connection) -> None:
        """Let clients end their halves."""
        for client in clients:
            client.reads = True
            client.end()
        self.reactor.settle()

    def results(self, client: Connection) -> list[object]:
        """Return the results, or codes of errors, of the answers received."""
        return [answer.get("result", answer.get("code")) for answer in client.answers()]

    def ended(self) -> dict[str, int]:
        """Return the counts of the reasons that occurred."""
        return {
            end.value: count for end, count in self.factory.sessions.counters.ended.items() if count
        }

    def assert_over(self, **ended: int) -> None:
        """Nothing is left, and connections ended for these reasons."""
        self.assertEqual(self.reactor.connections, [])
        self.assertEqual(len(self.factory.sessions), 0)
        self.assertEqual(self.factory.sessions.memory.total, 0)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.ended(), ended)
        self.assertEqual(self.flushLoggedErrors(), [])
