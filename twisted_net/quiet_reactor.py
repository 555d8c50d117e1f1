"""
The quiet reactor: Twisted's epoll reactor without a log context per event, with batched writes.

Twisted's reactors put the log prefix of a connection (``CommandProtocol,7,127.0.0.1``) into a
context before each of its events, and remove it afterwards, in case something is logged in
between. That is a quarter of the cost of a small answer. Here, messages that a protocol logs have
no such prefix (``system`` is ``-``); lost connections, and errors that the reactor logs, have it.

The reactor also delays the writes of connections that support it until the events of a turn, or
:data:`EVENTS_PER_BATCH` of them, are handled, and then makes them one after the other. With 50
clients that have 16 requests in flight each, this costs a sixth less than receiving, running
Python and sending in turn for each client: the code of the kernel's receive and send paths stays
in the processor's cache, and a client is not woken for each answer. Redis, too, writes its replies
at the end of a turn.

Of many connections that end in one turn, as those of a peer that is lost do, it ends some: it stops
to poll the others at once, and ends them in the next turns. An end takes five times as long as an
answer, and thousands of them kept the answers of all others waiting.

Its clock is steady (:mod:`twisted_net.net.steady_clock`).

::

    twistd --reactor=quiet -n net
"""

# mypy: disallow-untyped-calls=False
# Few methods of the base classes have types.

from __future__ import annotations

from collections import OrderedDict
from errno import EINTR
from select import EPOLLIN, EPOLLOUT
from typing import Any, Protocol

from twisted.copyright import version as twisted_version
from twisted.internet import epollreactor
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionFdescWentAway
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST, installReactor
from twisted.logger import Logger
from twisted.python import log
from typing_extensions import override

from twisted_net.net.steady_clock import steady, stopwatch
from twisted_net.turns.steps import ENDS_AT_ONCE
from twisted_net.turns.turn_clock import TurnClock
from twisted_net.twisted_internals import quiet_reactor_changes

_DESCRIPTOR_LOST = ConnectionFdescWentAway("the file descriptor was closed")


EVENTS_PER_BATCH = 32
"""Limit of events that are handled before the writes that they caused: bounds their delay."""

EVENTS_PER_TURN = 256
"""Limit of events that are handled between two looks at the timers: some 3 ms; the rest follows."""

EVENTS_BUDGET = 0.003
"""
Seconds after which no more events are handled before a look at the timers.

256 clients that ask for INFO at once, four times each, took 0.4 s. The time is that of a clock,
though other programs may have had the processor for some of it: to read the processor time takes a
system call, and two in a turn cost a lone client a tenth of its request.
"""

BATCH_TIME = EVENTS_BUDGET / 4
"""
Seconds that a batch is to take: after a slower one the next ones are as much smaller, down to one
event, and they grow again, to twice the size at a time, while they are fast.
"""


class PendingWrite(Protocol):
    """A connection with data to write after the current batch of events."""

    def write_pending(self) -> None:
        """Write the data, unless the connection has been closed since."""


class QuietEPollReactor(EPollReactor):
    """
    Twisted's epoll reactor, with a log context only for errors and lost connections.

    :ivar pending_writes: connections to write after the current batch; they add themselves.
    :ivar ends_left: connections that may be ended in this turn.
    """

    def __init__(self) -> None:
        self.pending_writes: list[PendingWrite] = []
        self.ends_left = ENDS_AT_ONCE
        # Descriptors that are to end in one of the next turns, with the arguments for that. Any:
        # Twisted's reasons are of any form.
        self._ending: OrderedDict[Any, tuple[Any, bool]] = OrderedDict()
        self._turn: TurnClock | None = None
        self._batch_size = EVENTS_PER_BATCH
        super().__init__()
        steady(self)
        self._stopwatch = stopwatch(self)

    def measure_turns(self, clock: TurnClock | None) -> None:
        """Let a clock measure the turns, from the next poll on; None: none, which costs less."""
        self._turn = clock

    @override
    def doPoll(self, timeout: float | None) -> None:
        self.ends_left = ENDS_AT_ONCE
        if self._ending:
            self._end_some()
            timeout = 0  # others are left, or an end has made something due
        turn = self._turn
        if turn is not None:
            turn.poll_begins()
        try:
            limit = min(len(self._selectables), self._batch_size)
            events = self._poller.poll(-1 if timeout is None else timeout, limit)
        except OSError as error:
            if error.errno == EINTR:
                return
            raise
        if turn is not None:
            turn.began = turn.seconds()
        self._handle_batches(events)

    def _handle_batches(self, events: list[tuple[int, int]]) -> None:
        """Handle events, and those of other descriptors, while there is time."""
        seconds = self._stopwatch
        began = seconds()
        until = began + EVENTS_BUDGET
        left = min(len(self._selectables), EVENTS_PER_TURN)
        while events:
            asked = min(left, self._batch_size)
            self._handle(events)
            if self.pending_writes:
                self._write_pending()
            now = seconds()
            if self._batch_size < EVENTS_PER_BATCH or now - began >= BATCH_TIME:
                self._fit_batches(len(events), now - began)
            left -= len(events)
            if len(events) < asked or now >= until or left <= 0 or not self._selectables:
                return
            began = now
            # Asked anew, and not kept from before, as what has ended since may have a successor of
            # the same number. The kernel reports descriptors by turns, so that none is left out.
            events = self._poller.poll(0, min(left, self._batch_size))

    def _fit_batches(self, events: int, took: float) -> None:
        """Choose the size of the next batches by the time that so many events took."""
        fitting = int(events * BATCH_TIME / took) if took else EVENTS_PER_BATCH
        self._batch_size = max(min(fitting, 2 * self._batch_size, EVENTS_PER_BATCH), 1)

    def _handle(self, events: list[tuple[int, int]]) -> None:
        selectables = self._selectables
        why: BaseException | int | None
        for fd, event in events:
            selectable = selectables.get(fd)
            if selectable is None:
                continue  # closed by an earlier event of this turn
            if event == EPOLLIN:
                reading = True
            elif event == EPOLLOUT:
                reading = False
            elif event & EPOLLIN and not event & EPOLLOUT:
                reading = True  # of one that hangs up: what it sent comes first
            elif not event & (EPOLLIN | EPOLLOUT):
                reading = fd in self._reads
                self._end(selectable, CONNECTION_DONE if reading else CONNECTION_LOST, reading)
                continue
            else:
                log.callWithLogger(selectable, self._doReadOrWrite, selectable, fd, event)
                continue
            try:
                if selectable.fileno() == -1:
                    why = _DESCRIPTOR_LOST
                elif reading:
                    why = selectable.doRead()
                else:
                    why = selectable.doWrite()
            except BaseException as error:
                why, reading = error, False
                log.callWithLogger(selectable, log.err)
            if why:
                self._end(selectable, why, reading)

    def _end(self, selectable: Any, why: Any, reading: bool) -> None:  # Any: above
        """End a descriptor, or let it wait for its turn where many end in this one."""
        if self.ends_left > 0 or selectable.fileno() == -1:
            log.callWithLogger(selectable, self._disconnectSelectable, selectable, why, reading)
            return
        # No event of it would be news. It may be polled again as it is written to: once is enough.
        self.removeReader(selectable)
        self.removeWriter(selectable)
        self._ending.setdefault(selectable, (why, reading))

    @override
    def _disconnectSelectable(self, *ended: Any) -> None:  # Any: a descriptor, a reason, a flag
        self.ends_left -= 1
        self._ending.pop(ended[0], None)
        super()._disconnectSelectable(*ended)

    def _end_some(self) -> None:
        """End those that have waited longest."""
        ending = self._ending
        while ending and self.ends_left > 0:
            selectable, (why, reading) = ending.popitem(last=False)
            # Closed, or aborted and lost in a moment, since it began to wait.
            if selectable.fileno() == -1 or getattr(selectable, "_aborting", False):
                continue
            log.callWithLogger(selectable, self._disconnectSelectable, selectable, why, reading)

    @override
    def removeAll(self) -> list[Any]:  # Any: descriptors of any kind
        # The reactor stops: what would have ended in one of the next turns ends with the others.
        waiting, self._ending = self._ending, OrderedDict()
        removed = OrderedDict.fromkeys(super().removeAll())
        removed.update(OrderedDict.fromkeys(one for one in waiting if one.fileno() != -1))
        return list(removed)

    def _write_pending(self) -> None:
        for connection in self.pending_writes:
            try:
                connection.write_pending()
            except BaseException as error:
                log.callWithLogger(connection, log.err)
                log.callWithLogger(connection, self._disconnectSelectable, connection, error, False)
        self.pending_writes.clear()

    # The main loop calls doIteration, which EPollReactor binds to its own doPoll.
    doIteration = doPoll


def install() -> None:
    """Install the quiet reactor, or the stock one, with a warning, if Twisted has changed."""
    if changes := quiet_reactor_changes():
        Logger().warn(
            "the quiet reactor does not support Twisted {version}; using the stock epoll "
            "reactor, which is slower; changed methods: {changes}",
            version=twisted_version,
            changes=", ".join(changes),
        )
        epollreactor.install()
    else:
        installReactor(QuietEPollReactor())
