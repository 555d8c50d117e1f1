"""Brings a client the messages of its topics: with those of others, or on its own."""

from __future__ import annotations

from abc import abstractmethod

from twisted.internet.protocol import Protocol

from twisted_net.tcp.flow_control import Throttle
from twisted_net.tcp.transport import Batch, StreamTransport
from twisted_net.topics import CHUNK, Mailbox


class SubscribedProtocol(Protocol):
    """The part of a client's connection that brings it the messages of its topics."""

    transport: StreamTransport

    __slots__ = ("_held_by", "_mailbox", "_throttle", "_writable", "transport")

    def __init__(self) -> None:
        self._throttle: Throttle | None = None  # only under a rate limit
        self._mailbox: Mailbox | None = None  # the session's, from the first subscription on
        self._held_by: object | None = None  # the answer that comes before messages of a topic
        self._writable = True

    @abstractmethod
    def _hold_output(self, size: int) -> None: ...

    def join(self, batch: Batch) -> bool:
        """
        Let all the messages that wait leave in a batch.

        :return: False where they are not for a batch: :meth:`send_messages` is to see to them.
        """
        mailbox = self._mailbox
        if (
            mailbox is None
            or self._held_by is not None
            or self._throttle is not None
            or not self._writable
            or mailbox.waiting > CHUNK
        ):
            return False
        transport = self.transport
        if not batch.takes(transport):
            return False
        # Nothing waits where it asked twice; a second chunk may not be in the batch.
        if chunk := mailbox.next_chunk():
            batch.add(transport, chunk)
        return True

    def send_messages(self) -> bool:
        """
        Write some of the messages that wait, if the peer reads and no answer is before them.

        :return: whether more of them wait for their turn.
        """
        mailbox, reads = self._mailbox, self._writable
        if mailbox is None or not mailbox.waiting or self._held_by is not None or not reads:
            return False
        chunk = mailbox.next_chunk()
        self.transport.write(chunk)
        if not self._writable:
            self._hold_output(len(chunk))
        if self._throttle is not None:
            self._throttle.charge(len(chunk))
        return mailbox.waiting > 0
