"""One client of the command server: its lines in, its answers out, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sized
from typing import Protocol

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from twisted_net.auth.users import Permissions
from twisted_net.commands.registry import Waiting, encode_error
from twisted_net.commands.runner import CommandRunner
from twisted_net.errors import UnterminatedLine
from twisted_net.net.addresses import UNIX
from twisted_net.net.turn_scheduler import FREE_LINES, TurnScheduler
from twisted_net.reasons import End
from twisted_net.sessions import Session, Sessions, encode_event
from twisted_net.tcp.connection_guard import ConnectionGuard
from twisted_net.tcp.fanout import Fanout
from twisted_net.tcp.flow_control import FlowControl, Throttle
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.line_framer import LineFramer
from twisted_net.tcp.rejection import LINGER_TIMEOUT, end_output
from twisted_net.tcp.subscribing import SubscribedProtocol

UNCOUNTED = 4096
"""Bytes after the last line of a piece that need not be counted, as they are few."""

AnswerTo = Callable[[bytes, Session], bytes | Waiting]
"""Answers a line of a client, as :meth:`~twisted_net.commands.runner.CommandRunner.answer` does."""


class Server(Protocol):
    """
    What a connection asks of its server, which is :class:`~twisted_net.tcp.server.CommandFactory`.

    :ivar turn_time: seconds for the lines of one connection in a turn.
    """

    log: Logger
    answer: AnswerTo
    fanout: Fanout
    guard: ConnectionGuard
    limits: Limits
    reactor: IReactorTime
    runner: CommandRunner
    seconds: Callable[[], float]
    sessions: Sessions
    turn_time: float
    turns: TurnScheduler

    @property
    def watched(self) -> Sized:
        """Whoever watches what clients ask."""

    def opened(self, connection: CommandProtocol) -> None:
        """Take in a client that is connected."""

    def closed(self, connection: CommandProtocol) -> None:
        """Let go of a client whose connection is lost."""

    def watch(self, connection: CommandProtocol, timeout: float, end: End) -> None:
        """Abort a connection with this reason in so many seconds; a later call replaces this."""

    def unwatch(self, connection: CommandProtocol) -> None:
        """Forget the time limit of a connection."""


class _Place:
    """The place of one answer in the queue of its connection; None while it is waited for."""

    __slots__ = ("answer", "waited")

    def __init__(self, answer: bytes | None = None) -> None:
        self.answer = answer
        self.waited: Deferred[None] | None = None


@implementer(IHalfCloseableProtocol, IPushProducer)
class CommandProtocol(SubscribedProtocol):
    """
    One client: its lines in, its answers out, in order.

    Lines run as they come, at most ``turn_budget`` of them in one reactor turn, and their
    answers leave in one write. A line whose handler waits keeps its place in the queue of
    answers, and the lines after it run meanwhile, up to ``max_pending``. The connection is
    not read while lines are left over or the peer does not read.

    As a producer it is the transport's: :meth:`pauseProducing` says that the peer does not
    read what we write.
    """

    __slots__ = (
        "_end",
        "_factory",
        "_flow",
        "_framer",
        "_input_ended",
        "_last_wish",
        "_lines",
        "_next",
        "_pending_limit",
        "_queue",
        "_running",
        "_slow",
        "_turn_due",
        "quiet",
        "session",
    )

    session: Session  # from connectionMade on, as is what follows
    _flow: FlowControl

    def __init__(self, factory: Server) -> None:
        super().__init__()
        self._factory = factory
        guard = factory.guard
        self._framer = LineFramer(guard.line_limit(logged_in=False), guard.lines_at_once)
        self._pending_limit = guard.pending_limit(logged_in=False)  # 0: a command runs alone
        self._queue: deque[_Place] | None = None  # from the first answer that is waited for
        self._turn_due = False
        self._slow = False  # its last turn took all the time that it may
        self._input_ended = False
        self._last_wish: End | None = None  # why to end once all is answered
        self._end: End | None = None  # why we ended it; no answer follows
        self._lines: list[bytes | None] | None = None  # not run yet, from the index _next on
        self._next = 0
        self._running = False
        self.quiet = 0  # looks of the factory's since the last byte came

    @override
    def connectionMade(self) -> None:
        self._flow = FlowControl(self.transport)
        sessions = self._factory.sessions
        peer: object = self.transport.getPeer()
        if isinstance(peer, IPv4Address | IPv6Address):
            # Answers written in later turns would wait for the peer's delayed ACK, 40 ms.
            self.transport.setTcpNoDelay(True)
            self.session = sessions.open(peer.host, peer.port, self.deliver, self)
        else:
            # The peer of a UNIX socket has no address: a running number tells them apart.
            self.session = sessions.open(UNIX, sessions.counters.opened + 1, self.deliver, self)
        self.session.identity = getattr(self.transport, "identity", None)
        self.transport.registerProducer(self, True)
        self._factory.opened(self)
        self._limit_rates(None)
        self._factory.guard.enter(self, self._admit)

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._end is not None:
            return
        self.quiet = 0
        self.session.received += len(data)
        if self._throttle is not None:
            self._throttle.charge(len(data))
        framer = self._framer
        if self._lines is not None:
            framer.keep(data)
            self._hold_input(len(framer))
            return
        lines = framer.feed(data)
        if not lines:
            self._hold_input(len(framer))
            return
        if self._flow.input_size or len(data) > UNCOUNTED:
            self._hold_input(len(framer))
        if self.session.messages == 0 and self._factory.guard.rejects_foreign(self, lines[0]):
            return
        self._lines = lines
        factory = self._factory
        others_wait = factory.turns.busy and (self._slow or len(lines) > FREE_LINES)
        if others_wait or not self._writable:
            self._go_on()
        elif (
            len(lines) == 1
            and self._queue is None
            and self._throttle is None
            and not factory.watched
        ):
            self._run_one(lines[0])
        else:
            self._run()

    def readConnectionLost(self) -> None:
        """The peer has ended its half: answer what it asked, then end ours."""
        self._input_ended = True
        if self._end is not None:
            self.transport.loseConnection()
        else:
            self.finish(End.CLIENT_CLOSED)

    def writeConnectionLost(self) -> None:
        """Our half has ended, as :meth:`hang_up` wished; the peer has a while to end its own."""
        assert self._end is not None
        self._factory.watch(self, LINGER_TIMEOUT, self._end)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._end is None:
            clean = reason.check(ConnectionDone) is not None
            self._end = End.CLIENT_CLOSED if clean else End.CONNECTION_LOST
        self._cancel_turn()
        if self._throttle is not None:
            self._throttle.stop()
        self._factory.guard.leave(self)
        self._lines = None
        queue, self._queue = self._queue, None
        for place in queue or ():
            if place.waited is not None:
                place.waited.cancel()
        self._factory.sessions.close(self.session, self._end)
        self._factory.closed(self)

    # --- IPushProducer: what the transport says of the peer ---

    def pauseProducing(self) -> None:
        """The peer does not read: run nothing more until it does."""
        # We go on to read until lines come: a TLS handshake needs what the peer sends.
        if self._writable:
            self._writable = False
            self._cancel_turn()
            self._factory.watch(self, self._factory.limits.write_timeout, End.WRITE_TIMEOUT)

    def resumeProducing(self) -> None:
        """The peer has read everything."""
        self._writable = True
        if self._flow.output_size or self.session.mailbox is not None:
            self._flow.output_read()
            self._hold()
        self._factory.unwatch(self)
        if self.session.mailbox is not None:
            self._factory.fanout.add(self)
        self._go_on()

    def stopProducing(self) -> None:
        """The connection is lost; :meth:`connectionLost` follows."""

    # --- what the factory and others ask for ---

    @property
    def idle(self) -> bool:
        """Whether nothing is due to this client, and it listens to no topic."""
        mailbox = self.session.mailbox
        sessions = self._factory.sessions
        if mailbox is not None and sessions.topics.count(mailbox):
            return False  # it listens
        if self.session in sessions.instruments.monitors:
            return False  # it watches
        return self._lines is None and self._queue is None and self._writable and not self._end

    def deliver(self, line: bytes) -> str | None:
        """Send a line that is no answer, or say in a word why it cannot be sent."""
        if self._end is not None:
            return "closing"
        if not self._writable:
            if not self._flow.add_event(len(line), self._factory.limits.max_output):
                return "output_full"
            self._hold()
        self.transport.write(line)
        self.session.written += len(line)
        return None

    def weigh_messages(self) -> None:
        """Count the bytes of messages that wait; called from time to time, not for each of them."""
        mailbox = self.session.mailbox
        if mailbox is not None and mailbox.waiting:
            self._hold()

    def logging_in(self) -> bool:
        """Whether a command runs that must run alone, as AUTH does."""
        return self._pending_limit == 0

    def finish(self, end: End) -> None:
        """Take no more lines, answer those that were taken, then hang up."""
        if self._last_wish is None:
            self._last_wish = end
        self._go_on()

    def hang_up(self, end: End) -> None:
        """End the connection once the peer has read what was written; further lines are dropped."""
        mailbox = self.session.mailbox
        while mailbox is not None and self._writable and mailbox.waiting:
            self.transport.write(mailbox.next_chunk())
        self.session.close_mailbox()
        self._end = end
        self._cancel_turn()
        self.transport.unregisterProducer()
        # Until the last byte has left; writeConnectionLost sets the time that follows.
        self._factory.watch(self, self._factory.limits.write_timeout, End.WRITE_TIMEOUT)
        if self._input_ended:
            self.transport.loseConnection()
            return
        end_output(self.transport)
        self._flow.set_reading(True)

    def abort(self, end: End) -> None:
        """End the connection now."""
        self.session.close_mailbox()
        self._end = end
        self._cancel_turn()
        self.transport.abortConnection()

    # --- Connection of its session ---

    def kill(self) -> None:
        """Send the client away: at once, but for one who asks for it and gets its answer."""
        if self._end is not None:
            return
        if self._running:
            self.finish(End.KILLED)
        elif self._writable:
            self.deliver(_KILLED)
            self.hang_up(End.KILLED)
        else:
            self.abort(End.KILLED)

    def figures(self) -> dict[str, object]:
        """Give the lines that are not answered, and the bytes that wait at both ends."""
        pending = 0 if self._lines is None else len(self._lines) - self._next
        if self._queue is not None:
            pending += len(self._queue)
        return {"pending": pending, "buffered": len(self._framer) + self._flow.output_size}

    def subscribed(self) -> None:
        """Let no message overtake the answer to SUBSCRIBE, where others are before it."""
        self._mailbox = self.session.mailbox
        if self._queue is not None:
            # That answer is there already, and leaves together with the one that is last now.
            self._held_by = self._queue[-1]

    def wake(self) -> None:
        """Messages wait."""
        self._factory.fanout.add(self)

    def overflow(self) -> None:
        """Too many messages would wait, and the client chose to be disconnected then."""
        self.abort(End.SLOW_SUBSCRIBER)

    # --- its limits ---

    def _admit(self, permissions: Permissions) -> None:
        """
        Take the client for a user, under the limits of users that have logged in.

        :raises TooManyConnections: where this user has as many connections as it may.
        """
        guard = self._factory.guard
        guard.log_in(self, permissions)
        self._framer.max_length = guard.line_limit(logged_in=True)
        if self._pending_limit:
            self._pending_limit = guard.pending_limit(logged_in=True)
        self._limit_rates(permissions.name)

    def _limit_rates(self, user: str | None) -> None:
        """Apply the rates that hold for this client, where there are some."""
        factory = self._factory
        meter = factory.guard.meter(self.session, user)
        if meter is None:
            return
        if self._throttle is None:
            self._throttle = Throttle(factory.reactor, meter, self._go_on)
        else:
            self._throttle.meter = meter

    def _hold_input(self, size: int) -> None:
        """Note how many bytes have come that are not run yet."""
        self._flow.input_size = size
        self._hold()

    def _hold_output(self, size: int) -> None:
        """Note that so many more bytes wait for a peer that does not read."""
        self._flow.output_size += size
        self._hold()

    def _hold(self) -> None:
        """Let the guard know how many bytes this connection holds."""
        mailbox = self.session.mailbox
        waiting = 0 if mailbox is None else mailbox.waiting
        self._factory.guard.hold(self, self._flow.kept + waiting)

    # --- lines and answers ---

    def _run(self) -> None:
        """Run lines, up to the budgets of one turn, and write their answers at once."""
        lines = self._lines
        assert lines is not None
        factory = self._factory
        following, session = self._next, self.session
        answer_to: AnswerTo = factory.answer
        if self._throttle is not None:
            answer_to = self._answer_metered
        if factory.watched:
            answer_to = self._shown(answer_to)
        answers: list[bytes] = []
        self._running = True
        seconds = factory.seconds
        now = seconds()
        until = now + factory.turn_time
        queue, limit = self._queue, self._pending_limit
        budget, batch = factory.limits.turn_budget, lines
        if following or len(lines) > budget:
            batch = lines[following : following + budget]
        for line in batch:
            if queue is not None and len(queue) >= limit:
                break
            following += 1
            answer = answer_to(line, session) if line is not None else self._refuse_long()
            if queue is None and type(answer) is bytes:
                answers.append(answer)
            else:
                # No place leaves the queue while lines run.
                queue = self._enqueue(answer, line)
                limit = self._pending_limit
            began, now = now, seconds()
            if now >= until:
                self._took_long(line, now - began)
                break
        self._running = False
        if following == len(lines):
            self._lines, self._next = self._cut_rest() if self._framer.rest else None, 0
        else:
            self._next = following
        queue = self._queue
        if queue is not None:
            self._take_due(queue, answers)
        if answers:
            self._write(b"".join(answers))
        # Nothing follows nearly every turn; that is found out here, as it is cheaper.
        settled = self._lines is None and self._queue is None and self._last_wish is None
        if not (settled and self._writable and self._flow.reading):
            self._go_on()

    def _run_one(self, line: bytes | None) -> None:
        """Do what :meth:`_run` would for a line that comes alone: most do, where nobody waits."""
        factory = self._factory
        seconds = factory.seconds
        began = seconds()
        self._running = True
        answer = factory.answer(line, self.session) if line is not None else self._refuse_long()
        self._running = False
        took = seconds() - began
        if took >= factory.turn_time:
            self._took_long(line, took)
        self._lines = self._cut_rest() if self._framer.rest else None
        if type(answer) is bytes:
            self._write(answer)
        else:
            answers: list[bytes] = []
            self._take_due(self._enqueue(answer, line), answers)
            if answers:
                self._write(b"".join(answers))
        settled = self._lines is None and self._queue is None and self._last_wish is None
        if not (settled and self._writable and self._flow.reading):
            self._go_on()

    def _cut_rest(self) -> list[bytes | None] | None:
        """Cut more lines off what the client has sent; None where there is no whole one."""
        lines = self._framer.feed(b"") or None
        self._hold_input(len(self._framer))
        return lines

    def _refuse_long(self) -> bytes:
        return self._factory.guard.refuse_long_line(self.session, self._framer.max_length)

    def _answer_metered(self, line: bytes, session: Session) -> bytes | Waiting:
        """Answer a line, or refuse it where its rate is used up."""
        assert self._throttle is not None
        refusal = self._factory.guard.refuse_command(self._throttle.meter, line, session)
        return self._factory.answer(line, session) if refusal is None else refusal

    def _took_long(self, line: bytes | None, took: float) -> None:
        """End a turn whose time is over with this line; the others come first in the next."""
        self._factory.runner.note_if_slow(line or b"", self.session, took)
        self._slow = True
        self._factory.turns.mark_busy()

    def take_turn(self) -> None:
        """Run some of the lines that are left; its turn has come."""
        self._turn_due = self._slow = False
        self._run()

    def _go_on(self) -> None:
        """Do what is next: write the answers that are due, take a turn, read, or hang up."""
        if self._end is not None or self._running:
            return
        queue = self._queue
        if queue is not None and queue[0].answer is not None:
            answers: list[bytes] = []
            self._take_due(queue, answers)
            if not self._write(b"".join(answers)):
                return
            queue = self._queue
        # Only now: to write may have used up the rate.
        throttled = self._throttle is not None and self._throttle.paused
        if self._lines is not None:
            if (
                not self._turn_due
                and self._writable
                and not throttled
                and (queue is None or len(queue) < self._pending_limit)
            ):
                self._turn_due = True
                self._factory.turns.add(self)
        elif queue is None and self._last_wish is not None:
            if self._input_ended and self._framer.unfinished:
                self.session.count()
                self.transport.write(encode_error(UnterminatedLine()))
            self.hang_up(self._last_wish)
            return
        # Whoever is told to wait here keeps its bytes in its own buffers: nothing of ours grows.
        wanted = self._lines is None and self._writable and self._last_wish is None
        self._flow.set_reading(wanted and not throttled)

    def _take_due(self, queue: deque[_Place], answers: list[bytes]) -> None:
        """Move the answers at the head of the queue, up to the first that is waited for."""
        while queue and (answer := queue[0].answer) is not None:
            answers.append(answer)
            if queue.popleft() is self._held_by:
                self._held_by = None
                self._factory.fanout.add(self)
        if not queue:
            self._queue = None

    def _cancel_turn(self) -> None:
        """Let no turn come that was to come."""
        if self._turn_due:
            self._turn_due = False
            self._factory.turns.discard(self)

    def _write(self, answers: bytes) -> bool:
        """Write answers; say whether the connection goes on."""
        self.transport.write(answers)
        self.session.written += len(answers)
        if not self._writable:
            self._hold_output(len(answers))
        if self._throttle is not None:
            self._throttle.charge(len(answers))
        return self._end is None

    def _shown(self, answer_to: AnswerTo) -> AnswerTo:
        """Show lines to those who watch before they are answered."""
        runner = self._factory.runner

        def show_and_answer(line: bytes, session: Session) -> bytes | Waiting:
            runner.show(line, session)
            return answer_to(line, session)

        return show_and_answer

    def _enqueue(self, answer: bytes | Waiting, line: bytes | None) -> deque[_Place]:
        """
        Put the answer to a line behind those that are waited for, or start to wait for it.

        :return: the queue, in which it has its place.
        """
        place = _Place()
        if isinstance(answer, Waiting):
            if answer.alone:
                self._pending_limit = 0
            waited = self._factory.runner.start_line(answer, line or b"", self.session)
            place.waited = waited.addCallbacks(self._settle, _drop, callbackArgs=(place, answer))
        else:
            place.answer = answer
        if self._queue is None:
            self._queue = deque((place,))
        else:
            self._queue.append(place)
        return self._queue

    def _settle(self, answer: bytes, place: _Place, waiting: Waiting) -> None:
        """Put the answer of a handler into the place that was kept for it."""
        place.answer = answer
        if waiting.alone:
            logged_in = self.session.user is not None
            self._pending_limit = self._factory.guard.pending_limit(logged_in)
        if self._queue is not None:
            self._go_on()


def _drop(failure: Failure) -> None:
    """Ignore the answer of a command that was cancelled because the connection is lost."""
    failure.trap(CancelledError)


_KILLED = encode_event({"event": "closing", "reason": End.KILLED.value})
