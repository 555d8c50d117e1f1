"""Execution of commands that wait: their handlers, their time limits, their answers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from twisted_net.commands.failures import forget_frames
from twisted_net.commands.handler_call import HandlerCall
from twisted_net.commands.records import CommandRecords
from twisted_net.commands.registry import ANSWERED, Commands, Waiting
from twisted_net.errors import CommandTimeout, TooBusy, TwistedNetError
from twisted_net.net.fair_calls import FairCalls
from twisted_net.reasons import Caller
from twisted_net.sessions.registry import Sessions
from twisted_net.sessions.session import Session

MAX_OVERDUE = 1000
"""
Handlers that may go on after the time limit of their commands. Nothing else bounds them, as they
no longer count for their client. At the bound, commands that wait are refused as ``busy``; those of
a user, or of an address without one, as soon as it has as many as are left for the others. What
runs alone is not refused: nobody's handlers keep others from logging in.
"""

Answered = Callable[["bytes | TwistedNetError"], None]
"""Takes what a command has come to: the answer, a line, or the error that is to be answered."""


class Executor:
    """
    Executes the commands of one server that wait, within its limits.

    :param seconds: returns the seconds of a steady clock.
    :param blocking: calls blocking handlers.
    :param timeout: seconds until a command is answered ``timeout``.
    :ivar records: where refusals, failures and slow commands are recorded.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        commands: Commands,
        sessions: Sessions,
        records: CommandRecords,
        seconds: Callable[[], float],
        blocking: FairCalls,
        timeout: float,
    ) -> None:
        self.reactor = reactor
        self.commands = commands
        self.records = records
        self.seconds = seconds
        self.blocking = blocking
        self.timeout = timeout
        self._counters = sessions.counters

    def start(
        self, waiting: Waiting, session: Session, show: Callable[[], str], answered: Answered
    ) -> Execution:
        """
        Start a command.

        :param show: returns the command as the slow log shows it.
        :param answered: called once, within this call or later, but not after the command was
            cancelled; with CommandTimeout, TooBusy, Internal or what the handler raised if not
            with an answer.
        """
        execution = Execution(self, waiting, session, show, answered)
        execution.begin()
        return execution

    def check_overdue(self, session: Session) -> None:
        """
        Check that a client may start one more command.

        :raises TooBusy: if it has as many handlers that are overdue as are left for the others.
        """
        overdue = self._counters.overdue
        if overdue > 0 and self._counters.overdue_of[session.owner] >= MAX_OVERDUE - overdue:
            raise TooBusy(MAX_OVERDUE)

    def add_overdue(self, session: Session) -> str:
        """Count a handler as overdue: its command is answered, and it may still run."""
        owner = session.owner
        self._counters.overdue_of.add(owner)
        session.overdue += 1
        self._counters.overdue += 1
        return owner

    def remove_overdue(self, session: Session, owner: str) -> None:
        """Count a handler as overdue no longer; *owner* is what :meth:`add_overdue` returned."""
        self._counters.overdue_of.remove(owner)
        session.overdue -= 1
        self._counters.overdue -= 1


def discard(waiting: Waiting) -> None:
    """
    Drop a command, instead of starting it.

    A handler that was not called yet is not called; an awaitable that a plain one returned is
    cancelled, and its outcome ignored.
    """
    if not waiting.begun:
        return
    value = waiting.start()
    if isinstance(value, Coroutine):
        value.close()
    else:
        call = HandlerCall(lambda outcome: None)
        call.begin(lambda: value, None)
        call.cancel()


class Execution:
    """
    One waiting command: its handler, its time limit, its answer.

    It lets go of who waits for the answer as soon as that is there: the two would otherwise live
    until the cyclic garbage collector runs.
    """

    __slots__ = (
        "_answered",
        "_began",
        "_call",
        "_caller",
        "_cancelled",
        "_executor",
        "_in_thread",
        "_overdue",
        "_session",
        "_show",
        "_timed_out",
        "_timer",
        "_waiting",
    )

    def __init__(
        self,
        executor: Executor,
        waiting: Waiting,
        session: Session,
        show: Callable[[], str],
        answered: Answered,
    ) -> None:
        self._executor = executor
        self._waiting = waiting
        self._session = session
        # As it is now: it may be logged out meanwhile.
        self._caller = Caller(session.name, session.user)
        self._show = show
        self._began = executor.seconds()
        self._cancelled = self._timed_out = self._in_thread = False
        self._overdue: str | None = None  # whose it is, while it is overdue
        self._timer: IDelayedCall | None = None
        self._answered: Answered | None = answered  # until it is called, or cancelled
        self._call: HandlerCall | None = None  # while the handler runs

    def begin(self) -> None:
        """Call the handler."""
        executor, waiting = self._executor, self._waiting
        blocking = None
        try:
            if not waiting.alone:
                executor.check_overdue(self._session)
            if waiting.blocking and waiting.around is None:
                blocking = self._call_in_thread()
        except ANSWERED as error:
            discard(waiting)
            executor.records.count_refusal(error, str(waiting.name), self._caller)
            self._answer(error)
            return
        call = self._call = HandlerCall(self._ended)
        if blocking is not None:
            call.await_deferred(blocking)
        elif waiting.around is None:
            call.begin(waiting.start, self._session)
        else:
            handler = self._call_in_thread if waiting.blocking else waiting.start
            call.begin(partial(waiting.around, handler), self._session)
        # A fresh answer from a cache is there at once, and needs no timer.
        if self._call is not None:
            self._timer = executor.reactor.callLater(executor.timeout, self._time_out)

    def _call_in_thread(self) -> Deferred[object]:
        """
        Call the handler in a thread.

        :raises TooBusy: if too many wait for one.
        """
        self._in_thread = True
        return self._executor.blocking.call(
            self._waiting.start, self._session.owner, self._stop_outliving, self._check_permitted
        )

    def cancel(self) -> None:
        """
        Cancel the handler: nobody wants the answer any more, and none comes.

        Nothing happens once the command is answered.
        """
        if self._answered is None:
            return
        self._cancelled = True
        self._answered = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._call is not None:
            self._call.cancel()

    def _check_permitted(self) -> None:
        """Refuse the command if it waited for a thread, and the client may not run it any more."""
        permissions = self._session.permissions
        command = self._executor.commands.get(self._waiting.name or "")
        if permissions is not None and command is not None:
            permissions.check_command(command.name, command.admin)

    def _ended(self, value: object) -> None:
        """The handler has ended: answer, unless the caller or the time limit came first."""
        self._call = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._cancelled and isinstance(value, Failure) and value.check(CancelledError):
            forget_frames(value)
            return
        executor = self._executor
        outcome = self._outcome(value)
        if self._cancelled:
            return
        if self._answered is None:
            self._stop_outliving()
            return
        executor.records.note_if_waited(self._show, self._caller, executor.seconds() - self._began)
        if not isinstance(outcome, bytes):
            executor.records.count_refusal(outcome, str(self._waiting.name), self._caller)
        self._answer(outcome)

    def _answer(self, outcome: bytes | TwistedNetError) -> None:
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(outcome)

    def _outcome(self, value: object) -> bytes | TwistedNetError:
        """Encode what the handler returned, or make its failure an error that can be answered."""
        waiting, executor = self._waiting, self._executor
        failure: Failure
        if isinstance(value, Failure):
            failure = value
        else:
            try:
                return waiting.answer(value)
            except BaseException:
                failure = Failure()
        error = failure.value
        if isinstance(error, ANSWERED):
            forget_frames(failure)
            return error
        if isinstance(error, CancelledError) and self._timed_out:
            forget_frames(failure)
            return CommandTimeout(executor.timeout)
        return executor.records.note_failure(failure, waiting.name, self._caller)

    def _time_out(self) -> None:
        self._timer = None
        self._timed_out = True
        if self._in_thread:
            # A thread goes on whatever its Deferred does.
            self._outlive()
        if self._call is not None:
            self._call.cancel()
        if self._answered is not None:
            executor = self._executor
            self._outlive()
            executor.records.note_overdue(self._waiting.name)
            took = executor.seconds() - self._began
            executor.records.note_if_waited(self._show, self._caller, took)
            self._answer(CommandTimeout(executor.timeout))

    def _outlive(self) -> None:
        """Count the handler as overdue: its command is answered, and it may still run."""
        if self._overdue is None:
            self._overdue = self._executor.add_overdue(self._session)

    def _stop_outliving(self) -> None:
        """Count the handler no longer, if it was overdue: it has ended."""
        if self._overdue is not None:
            self._executor.remove_overdue(self._session, self._overdue)
            self._overdue = None
