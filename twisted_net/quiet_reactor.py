"""
The quiet reactor: epoll without a log context around each event, and with writes in a row.

Twisted's reactors put the log prefix of a connection (``CommandProtocol,7,127.0.0.1``) into a
context before each event of it, and take it out afterwards, in case something is logged
meanwhile. That is a quarter of what a small answer costs. Here what a protocol logs on its own
carries no such prefix (``system`` is ``-``); a connection that ends, and any error that the
reactor logs, has it as ever.

And it lets connections that can do so write once the events of a turn are through, or
:data:`EVENTS_AT_ONCE` of them, one after the other. To receive, to run Python and to send by turns
costs a sixth more where 50 clients have 16 requests under way each: the ways in and out then drive
each other from the processor's cache, and a client that was about to sleep is woken for each
answer. Redis writes its replies at the end of a turn too.

::

    twistd --reactor=quiet -n net
"""

# mypy: disallow-untyped-calls=False
# Few of the methods that these classes derive from have types.

from __future__ import annotations

from errno import EINTR
from select import EPOLLIN, EPOLLOUT
from typing import Protocol

from twisted.copyright import version as twisted_version
from twisted.internet import epollreactor
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor
from twisted.internet.posixbase import _NO_FILEDESC
from twisted.logger import Logger
from twisted.python import log
from typing_extensions import override

from twisted_net.twisted_internals import changed

LEANED_ON = (
    (
        EPollReactor,
        "doPoll",
        "EINTR KeyError OSError _doReadOrWrite _poller _selectables callWithLogger errno len log "
        "poll",
    ),
    (
        EPollReactor,
        "_doReadOrWrite",
        "BaseException CONNECTION_DONE CONNECTION_LOST _NO_FILEDESC _POLL_DISCONNECTED _POLL_IN "
        "_POLL_OUT _disconnectSelectable _reads doRead doWrite err exc_info fileno log sys",
    ),
    (
        EPollReactor,
        "_disconnectSelectable",
        "ConnectionDone Failure IHalfCloseableDescriptor __class__ connectionLost error failure "
        "get providedBy readConnectionLost removeReader removeWriter",
    ),
)
"""The code of Twisted that :class:`QuietEPollReactor` replaces or calls."""


EVENTS_AT_ONCE = 32
"""Events that are handled before the writes are made that they led to: no answer waits for more."""


class PendingWrite(Protocol):
    """A connection that has something to write once some events are handled."""

    def write_pending(self) -> None:
        """Write it, if that is still wanted: the connection may have ended since."""


class QuietEPollReactor(EPollReactor):
    """
    Twisted's epoll reactor, which calls a log context up only where something went wrong.

    :ivar pending_writes: those that write once some events are handled; they add themselves.
    """

    def __init__(self) -> None:
        self.pending_writes: list[PendingWrite] = []
        super().__init__()

    @override
    def doPoll(self, timeout: float | None) -> None:
        try:
            most = len(self._selectables)
            events = self._poller.poll(-1 if timeout is None else timeout, most)
        except OSError as error:
            if error.errno == EINTR:
                return
            raise
        for begin in range(0, len(events), EVENTS_AT_ONCE):
            self._handle(events[begin : begin + EVENTS_AT_ONCE])
            if self.pending_writes:
                self._write_pending()

    def _handle(self, events: list[tuple[int, int]]) -> None:
        selectables = self._selectables
        why: BaseException | int | None
        for fd, event in events:
            selectable = selectables.get(fd)
            if selectable is None:
                continue  # an earlier event of this turn has closed it
            if event == EPOLLIN:
                reading = True
            elif event == EPOLLOUT:
                reading = False
            else:
                log.callWithLogger(selectable, self._doReadOrWrite, selectable, fd, event)
                continue
            try:
                if selectable.fileno() == -1:
                    why = _NO_FILEDESC
                elif reading:
                    why = selectable.doRead()
                else:
                    why = selectable.doWrite()
            except BaseException as error:
                why, reading = error, False
                log.callWithLogger(selectable, log.err)
            if why:
                log.callWithLogger(selectable, self._disconnectSelectable, selectable, why, reading)

    def _write_pending(self) -> None:
        for connection in self.pending_writes:
            try:
                connection.write_pending()
            except BaseException as error:
                log.callWithLogger(connection, log.err)
                log.callWithLogger(connection, self._disconnectSelectable, connection, error, False)
        self.pending_writes.clear()

    # The loop calls it by this name, and EPollReactor's is bound to its own doPoll.
    doIteration = doPoll


def install() -> None:
    """Make it the reactor of this process; the stock one, with a warning, on another Twisted."""
    if changes := changed(LEANED_ON):
        Logger().warn(
            "Twisted {version} is not one that the quiet reactor was made for, so this is the "
            "stock epoll reactor, which is slower: {changes} changed",
            version=twisted_version,
            changes=", ".join(changes),
        )
        epollreactor.install()
    else:
        installReactor(QuietEPollReactor())
