"""Clients and connections for sessions that no server has."""

from __future__ import annotations

from collections.abc import Mapping

from twisted_net.topics.mailbox import Mailbox
from twisted_net.topics.registry import Topics


class FakeConnection:
    """
    What carries a session, in name alone.

    :ivar killed: how often it was to be ended.
    :ivar reasons: what it was to say then.
    :ivar woken: how often it was told that messages wait.
    """

    def __init__(self) -> None:
        self.killed = 0
        self.reasons: list[str] = []
        self.woken = 0

    def subscribed(self) -> None:
        """Nothing is to be done."""

    def wake(self) -> None:
        """Count it."""
        self.woken += 1

    def overflow(self) -> None:
        """Nothing is to be done."""

    def open_mailbox(self, topics: Topics) -> Mailbox:
        """Return a mailbox of this connection's."""
        return Mailbox(topics, self)

    def kill(self, reason: str = "") -> None:
        """Count it."""
        self.killed += 1
        self.reasons.append(reason)

    def figures(self) -> Mapping[str, object]:
        """Give figures that can be told from others."""
        return {"pending": 3, "buffered": 7}


class FakeClient:
    """
    A client that keeps what it is sent, or cannot be sent anything.

    :ivar got: what it was sent.
    :ivar failure: why it cannot, in a word.
    """

    def __init__(self, failure: str | None = None) -> None:
        self.got: list[bytes] = []
        self.failure = failure

    def deliver(self, line: bytes) -> str | None:
        """Take a line, or say why not."""
        if self.failure is None:
            self.got.append(line)
        return self.failure
