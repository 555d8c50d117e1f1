"""
Connection of one client: runs its lines, writes its answers in order, and keeps its state.

It has parts, each with a module of its own: a :class:`LineFramer` cuts its input into lines, a
:class:`FlowControl` pauses its reading, a :class:`Throttle` its rate, an :class:`AnswerQueue` keeps
answers in order, a :class:`MailboxWriter` sends it messages of topics, and the server's
:class:`~twisted_net.tcp.connection_guard.ConnectionGuard` keeps it within its limits.

States
======

::

    connectionMade
          |                  pauseProducing
          v          --------------------------->
         OPEN                                      BLOCKED (the peer does not read)
          |          <---------------------------
          |                 resumeProducing
          |
          |  finish(end), readConnectionLost
          v
      FINISHING  (blocked or not; all its lines run, all their answers are written, then:)
          |
          |  hang_up(end), which OPEN and BLOCKED may skip to
          v
       HUNG UP   (the last bytes leave, our half ends, the peer has LINGER_TIMEOUT to end its own)
          |
          |  connectionLost                abort(end), from every state but LOST
          v                                              |
        LOST    <----- connectionLost ----- ABORTED <----+

======================  ========= ========= ========= ========= ========= =========
..                      OPEN      BLOCKED   FINISHING HUNG UP   ABORTED   LOST
======================  ========= ========= ========= ========= ========= =========
lines run               yes       no        yes (1)   no        no        no
is read                 yes (2)   no (3)    no        yes (4)   no        no
answers are written     yes       yes (5)   yes       no        no        no
``deliver`` writes      yes       yes (6)   yes       "closing" "closing" "closing"
topic messages leave    yes       no        yes (1)   no        no        no
_writable               True      False     either    either    either    either
_finish_reason          None      None      set       either    either    either
_end                    None      None      None      set       set       set
======================  ========= ========= ========= ========= ========= =========

1. Not while the peer does not read.
2. Not while lines are left over or the :class:`Throttle` is paused.
3. Only until the first lines come: a TLS handshake needs what the peer sends.
4. What comes is dropped; unread, it would reset the connection before the last answers arrive.
5. Those of commands that wait, ``max_pending`` at most, into the transport's buffer.
6. Up to ``max_output`` bytes, then it returns "output_full".

Who calls what, and when:

- The transport: ``connectionMade`` once, first; ``connectionLost`` once, last; between them
  ``dataReceived``, ``readConnectionLost`` (at most once), ``writeConnectionLost`` (once, after
  ``hang_up``), ``pauseProducing`` and ``resumeProducing`` in turn.
- The server: ``take_turn`` after ``turns.add``, while lines are left; ``finish`` when it drains;
  ``hang_up`` of one that is idle; ``abort`` of one whose time limit is over.
- The guard: ``deliver`` and ``hang_up`` of a client whose time to log in is over; ``abort``.
- The session, until LOST: ``deliver``, ``kill``, ``figures``, ``open_mailbox``.
- ``finish``, ``deliver`` and ``kill`` are allowed in every state, and the first reason to finish is
  kept; ``hang_up`` is allowed while ``_end`` is None, ``abort`` until LOST.

All but those of the transport may be called from within a handler, while :meth:`_run` is under way
(``_batch``): they then change the state alone, and ``_run`` does what follows. ``kill``,
``hang_up`` and ``abort`` make the line of that handler the last one that runs.
"""

from __future__ import annotations

from functools import partial

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from twisted_net.auth.users import Permissions
from twisted_net.commands.registry import Waiting, is_result
from twisted_net.reasons import End
from twisted_net.sessions.session import Session
from twisted_net.tcp.answer_queue import AnswerQueue, PendingAnswer
from twisted_net.tcp.connection_owner import AnswerTo, ConnectionOwner
from twisted_net.tcp.fanout import MailboxWriter
from twisted_net.tcp.flow_control import UNCOUNTED, FlowControl, Throttle
from twisted_net.tcp.line_framer import LineFramer
from twisted_net.tcp.rejection import LINGER_TIMEOUT, closing_event, end_output
from twisted_net.tcp.transport import StreamTransport
from twisted_net.topics.mailbox import Mailbox
from twisted_net.topics.registry import Topics
from twisted_net.turns.turn_scheduler import FREE_LINES, LONG_RUN


@implementer(IHalfCloseableProtocol, IPushProducer)
class CommandProtocol(Protocol):
    """
    One client: its lines in, its answers out, in order.

    Lines run as they come, at most ``turn_budget`` of them in one reactor turn, and their
    answers leave in one write. A line whose handler waits keeps its place in the queue of
    answers, and the lines after it run meanwhile, up to ``max_pending``.

    As a producer it is the transport's, which pauses it while the peer does not read.

    :ivar idle_checks: idle checks of the server since the last byte was received.
    """

    # In slots, which are looked up faster than defaults on a class, and take less memory. What each
    # line looks at is here and not in a part, where it would cost a second look-up.
    __slots__ = (
        "_batch",
        "_end",
        "_factory",
        "_finish_reason",
        "_flow",
        "_framer",
        "_input_ended",
        "_lines",
        "_next",
        "_pending_limit",
        "_queue",
        "_slow",
        "_throttle",
        "_unproven",
        "_writable",
        "_writer",
        "idle_checks",
        "session",
        "transport",
    )

    transport: StreamTransport
    session: Session  # from connectionMade on
    _flow: FlowControl  # the same

    def __init__(self, factory: ConnectionOwner[CommandProtocol]) -> None:
        self._factory = factory
        guard = factory.guard
        self._framer = LineFramer(guard.line_limit(logged_in=False), guard.lines_at_once, ())
        self._unproven = True  # no command has succeeded yet: it may speak another protocol
        self._lines: list[bytes | None] | None = None  # not run yet, from the index _next on
        self._next = 0
        self._pending_limit = guard.pending_limit(logged_in=False)  # 0: a command runs alone
        self._queue: AnswerQueue | None = None  # from the first answer that is waited for
        self._batch: list[bytes | None] | None = None  # lines that run in this turn, while they run
        self._slow = False  # its last lines took long
        self._writable = True
        self._input_ended = False
        self._finish_reason: End | None = None  # why to end once all is answered
        self._end: End | None = None  # why it ended; no answer follows
        self._throttle: Throttle | None = None  # only under a rate limit
        self._writer: MailboxWriter | None = None  # from the first subscription on
        self.idle_checks = 0

    # --- the transport calls ---

    @override
    def connectionMade(self) -> None:
        factory = self._factory
        self._flow = FlowControl(self.transport)
        self.session = factory.open_session(self)
        self.transport.registerProducer(self, True)
        factory.opened(self)
        self.apply_limits(None)
        factory.guard.enter(self, self._admit)
        if self._end is None and (opening := factory.guard.open(self)) is not None:
            self._enqueue(opening, b"on_open")

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._end is not None:
            return
        self.idle_checks = 0
        self.session.received += len(data)
        if self._throttle is not None:
            self._throttle.charge(len(data))
        framer = self._framer
        if self._lines is not None:
            framer.keep(data)
            self._hold_input()
            return
        lines = framer.feed(data)
        if not lines:
            self._hold_input()
            if self._unproven:
                self._rejects(framer.head, whole=False)
            return
        if (self._flow.input_size or len(data) > UNCOUNTED) and not self._hold_input():
            return
        factory = self._factory
        self._lines = lines
        others_wait = factory.turns.busy and (self._slow or len(lines) > FREE_LINES)
        if others_wait or not self._writable:
            self._go_on()
        elif (
            len(lines) == 1
            and self._queue is None
            and not self._unproven
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
        """Our half has ended, after :meth:`hang_up`; the peer has a while to end its own."""
        assert self._end is not None
        self._factory.watch(self, LINGER_TIMEOUT, self._end)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._end is None:
            self._end = self._factory.guard.end_of(self, reason)
        factory = self._factory
        factory.turns.discard(self)
        if self._throttle is not None:
            self._throttle.stop()
        if self._writer is not None:
            self._writer.close()
        factory.guard.leave(self)
        self._lines = None
        queue, self._queue = self._queue, None
        if queue is not None:
            factory.cancellations.add(queue.running(), queue.size)
        factory.sessions.close(self.session, self._end)
        factory.closed(self)

    def pauseProducing(self) -> None:
        """The peer does not read: run nothing more until it does."""
        # We go on to read until lines come: a TLS handshake needs what the peer sends.
        if self._writable:
            self._writable = False
            if self._writer is not None:
                self._writer.paused = True
            self._factory.turns.discard(self)
            self._factory.watch(self, self._factory.limits.write_timeout, End.WRITE_TIMEOUT)

    def resumeProducing(self) -> None:
        """The peer has read everything."""
        self._writable = True
        if self._flow.output_size or self._writer is not None:
            self._flow.output_read()
            self._hold()
        self._factory.unwatch(self)
        if self._writer is not None:
            self._writer.resume()
        self._go_on()

    def stopProducing(self) -> None:
        """The connection is lost; :meth:`connectionLost` follows."""

    # --- the server and the guard call ---

    @property
    def idle(self) -> bool:
        """Whether nothing is due to this client, and it neither subscribes nor uses MONITOR."""
        sessions = self._factory.sessions
        if self._writer is not None and sessions.topics.count(self._writer.mailbox):
            return False
        idle = self._lines is None and self._queue is None and self._writable and not self._end
        return idle and self.session not in sessions.instruments.monitors

    def deliver(self, line: bytes) -> str | None:
        """Send a line that is no answer, or return in one word why it cannot be sent."""
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
        if self._writer is not None and self._writer.mailbox.waiting:
            self._hold()

    def logging_in(self) -> bool:
        """Whether a command runs that must run alone, as AUTH does, and may log the client in."""
        return not (self._pending_limit or self.session.login_refused or self.session.opening)

    def finish(self, end: End) -> None:
        """Take no more lines, answer those that were taken, then hang up; idempotent."""
        self._finish_reason = self._finish_reason or end
        self._go_on()

    def hang_up(self, end: End) -> None:
        """End the connection once the peer has read what was written; further lines are dropped."""
        factory = self._factory
        if self._writer is not None:
            self._writer.flush()
        self._stop(end)
        self.transport.unregisterProducer()
        # Until the last byte has left; writeConnectionLost sets the time that follows.
        factory.watch(self, factory.limits.write_timeout, End.WRITE_TIMEOUT)
        if self._input_ended:
            self.transport.loseConnection()
            return
        end_output(self.transport, self if self._writable else None)
        self._flow.set_reading(True)

    def abort(self, end: End) -> None:
        """End the connection now."""
        self._stop(end)
        self.transport.abortConnection()

    def _stop(self, end: End) -> None:
        self.session.close_mailbox()
        self._factory.turns.discard(self)
        self._drop_lines()
        self._end = end

    # --- its session calls ---

    def kill(self, reason: str = "") -> None:
        """Disconnect the client: at once, or after the answer if it asked for this itself."""
        if self._end is not None:
            return
        if self._batch is not None:
            self._drop_lines()
            self.finish(End.KILLED)
        elif self._writable:
            self.deliver(closing_event(End.KILLED, reason))
            self.hang_up(End.KILLED)
        else:
            self.abort(End.KILLED)

    def figures(self) -> dict[str, object]:
        """Return how many lines are not answered, and how many bytes wait at both ends."""
        left = 0 if self._lines is None else len(self._lines) - self._next
        buffered = len(self._framer) + self._flow.output
        return {"pending": len(self._queue or ()) + left, "buffered": buffered}

    def open_mailbox(self, topics: Topics) -> Mailbox:
        """Return a mailbox whose messages are sent to this client; called once at most."""
        self._writer = writer = MailboxWriter(self, self._factory.fanout, topics)
        writer.metered = self._throttle is not None
        writer.paused = not self._writable
        return writer.mailbox

    # --- its mailbox writer calls ---

    def last_pending(self) -> PendingAnswer | None:
        """Return the answer that leaves last of those that wait, or None if none does."""
        return None if self._queue is None else self._queue.last

    def wrote_messages(self, size: int) -> None:
        """Count bytes of messages that were just written."""
        if not self._writable:
            self._hold(size)
        if self._throttle is not None:
            self._throttle.charge(size)

    # --- its limits ---

    def _admit(self, permissions: Permissions) -> None:
        """
        Take the client for a user, under the limits of users that have logged in.

        :raises TooManyConnections: if this user has as many connections as it may.
        """
        self._factory.guard.log_in(self, permissions)
        self.apply_limits(permissions.name)

    def apply_limits(self, user: str | None) -> None:
        """Apply the limits of a client that is logged in as this user, or as none."""
        guard, logged_in = self._factory.guard, user is not None
        self._framer.max_length = guard.line_limit(logged_in)
        if self._pending_limit:
            self._pending_limit = guard.pending_limit(logged_in)
        self._throttle = guard.throttle(self.session, user, self._throttle, self._go_on)
        if self._writer is not None:
            self._writer.metered = self._throttle is not None

    def output_waits(self, size: int) -> None:
        """Note how many bytes the kernel has not taken; the transport calls it when they change."""
        self._flow.unsent = size
        self._hold()

    def _hold_input(self) -> bool:
        """Note how many bytes have come that are not run, or not answered; False if it is ended."""
        if self._flow.set_input(len(self._framer), self._lines, self._next, self._queue):
            self._hold()
        return self._end is None

    def _hold(self, output: int = 0) -> None:
        """Report to the guard how many bytes are held; *output* more wait for the peer to read."""
        self._flow.output_size += output
        waiting = 0 if self._writer is None else self._writer.mailbox.waiting
        self._factory.guard.hold(self, self._flow.kept, waiting)

    # --- lines and answers ---

    def _run(self) -> None:
        """Run lines, up to the budgets of one turn, and write their answers at once."""
        lines = self._lines
        assert lines is not None
        factory = self._factory
        following, session = self._next, self.session
        answer_to: AnswerTo = factory.answer
        if self._unproven or self._throttle is not None or factory.watched:
            answer_to = self._answer_checked
        answers: list[bytes] = []
        seconds = factory.seconds
        start = now = seconds()
        until = now + factory.turn_time
        queue, limit = self._queue, self._pending_limit
        budget, batch = factory.limits.turn_budget, lines
        if following or len(lines) > budget:
            batch = lines[following : following + budget]
        self._batch = batch
        for line in batch:
            if queue is not None:
                if factory.commands.runs_alone(line, session):
                    limit = self._pending_limit = 0
                if len(queue) >= limit:
                    break
            following += 1
            answer = answer_to(line, session) if line is not None else self._refuse_long()
            if queue is None and type(answer) is bytes:
                answers.append(answer)
            else:
                # No answer leaves the queue while lines run.
                queue = self._enqueue(answer, line)
                limit = self._pending_limit
            began, now = now, seconds()
            if now >= until:
                factory.runner.note_if_slow(line or b"", session, now - began)
                break
        self._batch = None
        self._slow = now - start >= LONG_RUN
        if self._slow:
            factory.turns.spend(start, now)
        if following == len(lines) or not batch:
            self._lines, self._next = self._cut_rest() if self._framer.rest else None, 0
            if self._unproven and self._lines is None:
                self._rejects(self._framer.head, whole=False)
        else:
            self._next = following
        queue = self._queue
        if queue is not None:
            answers += self._take_due(queue)
        if answers:
            self._write(b"".join(answers))
        # Nothing follows nearly every turn; that is found out here, as it is cheaper.
        settled = self._lines is None and self._queue is None and self._finish_reason is None
        if not (settled and self._writable and self._flow.reading):
            self._go_on()

    def _run_one(self, line: bytes | None) -> None:
        """Do what :meth:`_run` does, for the usual case of one line alone that nothing precedes."""
        factory = self._factory
        began = factory.seconds()
        self._batch = self._lines
        answer = factory.answer(line, self.session) if line is not None else self._refuse_long()
        queue = self._enqueue(answer, line) if type(answer) is not bytes else None
        self._batch = None
        took = factory.seconds() - began
        self._slow = took >= LONG_RUN
        if self._slow or took >= factory.turn_time:
            factory.runner.note_if_slow(line or b"", self.session, took)
            factory.turns.spend(began, began + took)
        self._lines = self._cut_rest() if self._framer.rest else None
        if type(answer) is bytes:
            self._write(answer)
        elif queue is not None and (answers := self._take_due(queue)):
            self._write(b"".join(answers))
        settled = self._lines is None and self._queue is None and self._finish_reason is None
        if not (settled and self._writable and self._flow.reading):
            self._go_on()

    def _drop_lines(self) -> None:
        """Run no more of the lines that have come."""
        self._framer.rest = b""
        if self._batch is not None:
            self._batch.clear()  # which ends the loop in _run

    def _cut_rest(self) -> list[bytes | None] | None:
        """Cut more lines off what the client has sent; None where there is no whole one."""
        self._lines = lines = self._framer.feed(b"") or None
        if lines is None:
            self._hold_input()
        return lines

    def _refuse_long(self) -> bytes:
        framer = self._framer
        if self._unproven and self._rejects(framer.take_long_head(), whole=False, too_long=True):
            return b""
        return self._factory.guard.refuse_long_line(self.session, framer.max_length)

    def _rejects(self, line: bytes, **kind: bool) -> bool:
        """Whether an unproven connection has ended, or does as a line opens another protocol."""
        return self._end is not None or self._factory.guard.rejects_foreign(self, line, **kind)

    def _check_success(self, answer: bytes) -> None:
        """Let a client whose command has succeeded send lines of any form."""
        if self._unproven and is_result(answer):
            self._unproven, self._framer.long_heads = False, None

    def _answer_checked(self, line: bytes, session: Session) -> bytes | Waiting:
        """Answer a line that may be another protocol's, that MONITOR may show, or over its rate."""
        factory = self._factory
        if self._unproven and self._rejects(line):
            return b""
        if factory.watched:
            factory.runner.show(line, session)
        if self._throttle is not None:
            refusal = factory.guard.refuse_command(self._throttle.meter, line, session)
            if refusal is not None:
                return refusal
        answer = factory.answer(line, session)
        if type(answer) is bytes:
            self._check_success(answer)
        return answer

    def take_turn(self) -> None:
        """Run some of the lines that are left; its turn has come."""
        self._run()

    def _go_on(self) -> None:
        """Do what is next: write the answers that are due, take a turn, read, or hang up."""
        if self._end is not None or self._batch is not None:
            return
        queue = self._queue
        if queue is not None and queue.due:
            if not self._write(b"".join(self._take_due(queue))):
                return
            queue = self._queue
        # Only now: to write may have used up the rate.
        throttled = self._throttle is not None and self._throttle.paused
        if self._lines is not None:
            room = queue is None or len(queue) < self._pending_limit
            if room and self._writable and not throttled:
                self._factory.turns.add(self)
        elif queue is None and self._finish_reason is not None:
            if self._input_ended and self._framer.unfinished:
                self.transport.write(self._factory.guard.refuse_unterminated(self.session))
            self.hang_up(self._finish_reason)
            return
        # A peer that has to wait keeps its bytes in its own buffers: nothing of ours grows.
        wanted = self._lines is None and self._writable and self._finish_reason is None
        if self._hold_input():
            self._flow.set_reading(wanted and not throttled)

    def _take_due(self, queue: AnswerQueue) -> list[bytes]:
        """Take the oldest answers out of the queue, up to the first that is waited for."""
        answers = queue.take_due()
        if not queue:
            self._queue = None
            if not self._pending_limit:  # a command has run alone, or waited for this to do so
                self._pending_limit = self._factory.guard.pending_limit(bool(self.session.user))
        if self._writer is not None:
            self._writer.answers_taken()
        return answers

    def _write(self, answers: bytes) -> bool:
        """Write answers; return whether the connection goes on."""
        self.transport.write(answers)
        self.session.written += len(answers)
        if not self._writable:
            self._hold(len(answers))
        if self._throttle is not None:
            self._throttle.charge(len(answers))
        return self._end is None

    def _enqueue(self, answer: bytes | Waiting, line: bytes | None) -> AnswerQueue:
        """Put an answer behind those that are waited for, or wait for it; return their queue."""
        pending = PendingAnswer()
        if isinstance(answer, Waiting):
            if answer.alone:
                self._pending_limit = 0
            start, settle = self._factory.runner.start_line, partial(self._settle, pending)
            pending.command = start(answer, line or b"", self.session, settle)
        else:
            pending.answer = answer
        if self._queue is None:
            self._queue = AnswerQueue()
        self._queue.append(pending, line or b"")
        return self._queue

    def _settle(self, pending: PendingAnswer, answer: bytes) -> None:
        """Keep the answer of a command that was waited for, and write it if it is due."""
        pending.answer = answer
        self._check_success(answer)
        if self._queue is not None:
            self._queue.settle(pending)
            self._go_on()
