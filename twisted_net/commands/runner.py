"""Command runner: permits, counts, audits, runs and times every command, for every door."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial

import msgspec
from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_net.commands.arguments import split_quoted
from twisted_net.commands.failures import forget_frames, loggable_failure
from twisted_net.commands.registry import (
    ANSWERED,
    Command,
    Commands,
    Request,
    Waiting,
    encode_error,
    encode_whole,
    shown_name,
)
from twisted_net.errors import (
    AuthRequired,
    CommandTimeout,
    EmptyMessage,
    Internal,
    NotPermitted,
    NotUTF8,
    TooBusy,
    TwistedNetError,
    UnknownCommand,
)
from twisted_net.net.characters import SPACES, check_control_characters, split_words
from twisted_net.net.fair_calls import FairCalls
from twisted_net.net.log_limiter import TracebackRate
from twisted_net.net.rate_limit import KeyedCounts
from twisted_net.net.redaction import shown_word
from twisted_net.net.steady_clock import steady, stopwatch
from twisted_net.net.worker_threads import Threads, WorkerThreads
from twisted_net.reasons import Audited, Caller, Refusal
from twisted_net.sessions import Session, Sessions

MAX_OVERDUE = 1000
"""
Handlers that may go on after the time limit of their commands. Nothing else bounds them, as they
no longer count for their client. At the bound, commands that wait are refused as ``busy``; those of
a user, or of an address without one, as soon as it has as many as are left for the others. What
runs alone is not refused: nobody's handlers keep others from logging in.
"""

session_of_call: ContextVar[Session | None] = ContextVar("session_of_call", default=None)
"""The client whose command runs, for what an async handler awaits."""

Permit = Callable[[Command, Session], None]
"""Called before a command runs; raises a CommandError if this client may not run it."""


@frozen
class RunnerLimits:
    """
    Bounds on commands that wait.

    :param timeout: seconds after which a waiting command is cancelled and answered ``timeout``.
    :param max_blocking: blocking commands that wait for a thread or run in one.
    :param blocking_threads: threads for blocking commands.
    """

    timeout: float
    max_blocking: int
    blocking_threads: int = 20


class CommandRunner:
    """
    Runs the commands of one server's clients.

    Every door (lines, WebSocket, Unix sockets, CoAP) runs commands through one of these, so that
    permissions, counters, the audit, MONITOR, the slow log and time limits are the same on all.
    A door that receives lines calls :meth:`answer`; one that receives a name and arguments calls
    :meth:`run`. Both return the encoded answer, or a :class:`Waiting` for :meth:`start`.

    A handler that ends by an exception other than :data:`ANSWERED`, be it ``SystemExit``, is
    logged with its client and answered :class:`~twisted_net.errors.Internal`.

    :param reactor: its clock times commands.
    :param permit: a check of the embedding application, beside the users' permissions.
    :param threads: those that run blocking commands; of its own if None.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        commands: Commands,
        sessions: Sessions,
        limits: RunnerLimits,
        permit: Permit | None = None,
        threads: Threads | None = None,
    ) -> None:
        self.reactor = steady(reactor)
        self.commands = commands
        self.sessions = sessions
        self.limits = limits
        self.seconds = stopwatch(reactor)
        self._permit = permit
        self._by_name = commands.by_name
        self._watchers = sessions.instruments.monitors.views
        self._slow = sessions.instruments.slow_log.settings.threshold
        if threads is None:
            threads = WorkerThreads(reactor, "command", limits.blocking_threads)
        self._threads = threads
        self._blocking = FairCalls(threads, limits.max_blocking)
        self._overdue = KeyedCounts()  # by owner
        self._tracebacks = TracebackRate()

    @property
    def blocking(self) -> int:
        """How many blocking commands wait for a thread or run in one."""
        return len(self._blocking)

    @property
    def busy_threads(self) -> int:
        """How many threads run a blocking command, be it one that was cancelled."""
        return self._threads.busy

    def start_threads(self) -> None:
        """Keep threads for the next blocking command again, after :meth:`stop_threads`."""
        self._threads.start()

    def stop_threads(self) -> None:
        """End threads that run nothing; one that is needed later ends after its command."""
        self._threads.stop()

    @property
    def watched(self) -> bool:
        """Whether some client uses MONITOR."""
        return bool(self._watchers)

    # --- doors that receive lines ---

    def answer(self, line: bytes, session: Session) -> bytes | Waiting:
        """
        Run the command in one line of a client. Never raises.

        The caller measures the time (it shares one clock reading between two lines) and calls
        :meth:`note_if_slow`.

        :param line: without its end.
        :return: a line of JSON with its LF, or what :meth:`start_line` takes.
        """
        session.messages += 1
        command = None
        name = ""
        try:
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise NotUTF8(error.start, line[error.start]) from None
            # What check_control_characters and split_words do, two calls cheaper for most lines.
            if text.isprintable():
                words = text.split()
            else:
                check_control_characters(text)
                words = split_words(text)
            if not words:
                raise EmptyMessage
            name = words[0]
            command = self._by_name.get(name) or self.commands.get(name)
            if command is None:
                return self._fall_back(text, name, session)
            if session.permissions is not None:
                session.permissions.check_command(command.name, command.admin)
            if self._permit is not None:
                self._permit(command, session)
            if command.admin:
                self._check_administrative(command, session)
            command.calls += 1
            if '"' in text:
                words = split_quoted(text)
            del words[0]
            if command.takes_any or (
                command.direct and command.min_arguments <= len(words) <= command.max_arguments
            ):
                # What Command.run does, a call and four checks cheaper: most lines come here.
                value = command.handler(*words)
                if type(value) is str:
                    return _join((command.result_prefix, _encode(value), b"}\n"))
                return command.answer(value)
            if command.admin:
                self.sessions.audit("command", session, self.commands.shown(line))
            request = Request(session, self.commands) if command.wants_request else None
            return command.run(words, request)
        except ANSWERED as error:
            self.count_refusal(error, command.name if command else shown_word(name), session)
            return encode_error(error, command.name if command else _refused_name(error, name))
        except BaseException:
            known = command.name if command else None
            return encode_error(self._failed(Failure(), known, session), known)

    def start_line(self, waiting: Waiting, line: bytes, session: Session) -> Deferred[bytes]:
        """
        Start a command that :meth:`answer` returned.

        :return: fires with the answer; fails only with CancelledError, if the caller cancels it.
        """
        execution = _Execution(self, waiting, session, partial(self.commands.shown, line))
        return execution.begin().addErrback(_encode_failure, waiting)

    def show(self, line: bytes, session: Session) -> None:
        """Show a line to the clients that watch by MONITOR."""
        self._show(self.commands.shown(line), session)

    # --- doors that receive a name and arguments ---

    def run(self, command: Command, words: list[str], session: Session) -> bytes | Waiting:
        """
        Count, admit and execute a command.

        :param words: its arguments.
        :return: a line of JSON with its LF, or what :meth:`start` takes.
        :raises CommandError, FetchError: if it is refused, or its handler ended by a bug.
        """
        session.count()
        self.admit(command, words, session)
        return self.execute(command, words, session)

    def admit(self, command: Command, words: Sequence[str], session: Session) -> None:
        """
        Show a command that came to MONITOR, and :meth:`check` it; its door has counted it.

        :raises CommandError: if the client may not run it.
        """
        if self._watchers:
            self._show(self.commands.shown_call(command, words), session)
        self.check(command, words, session)

    def admit_unknown(self, name: str, session: Session) -> None:
        """
        Show a command that came to MONITOR, and is none: refuse it as one that is not permitted.

        Nothing is done where it might run all, so that it may be told that there is no such one.

        :raises NotPermitted, AuthRequired: as for a command that there is.
        """
        if session.permissions is None:
            return
        if self._watchers:
            self._show(shown_word(name), session)
        with self.refusals_counted(shown_word(name), session):
            session.permissions.check_command(name.upper(), admin=False, known=False)

    def check(self, command: Command, words: Sequence[str], session: Session) -> None:
        """
        Check that a client may run a command, and audit it if it is administrative.

        :raises CommandError: if the client may not.
        """
        # Not by refusals_counted: a context manager takes 1 µs, and each CoAP request comes here.
        try:
            if session.permissions is not None:
                session.permissions.check_command(command.name, command.admin)
            if self._permit is not None:
                self._permit(command, session)
            if command.admin:
                self._check_administrative(command, session)
                self.sessions.audit("command", session, self.commands.shown_call(command, words))
        except ANSWERED as error:
            self.count_refusal(error, command.name, session)
            raise

    def execute(self, command: Command, words: list[str], session: Session) -> bytes | Waiting:
        """
        Run a command that was admitted.

        :raises CommandError, FetchError: as :meth:`run` does.
        """
        command.calls += 1
        request = Request(session, self.commands) if command.wants_request else None
        began = self.seconds()
        try:
            return command.run(words, request)
        except ANSWERED as error:
            self.count_refusal(error, command.name, session)
            raise
        except BaseException:
            raise self._failed(Failure(), command.name, session) from None
        finally:
            took = self.seconds() - began
            if took >= self._slow:
                self._note(self.commands.shown_call(command, words), session, took, waited=False)

    def start(self, waiting: Waiting, session: Session, show: Callable[[], str]) -> Deferred[bytes]:
        """
        Start a command that waits; its time limit holds whatever its handler does.

        At the limit the handler is cancelled. If it goes on all the same, the command is answered
        nevertheless, and what the handler returns later is dropped.

        :param show: returns the command as the slow log shows it.
        :return: fires with the answer, a line. Fails with a TwistedNetError that is to be answered
            (CommandTimeout, TooBusy, Internal, or what the handler raised), or with
            CancelledError if the caller cancels it, which cancels the handler too.
        """
        began = self.seconds()
        answer = _Execution(self, waiting, session, show).begin()
        took = self.seconds() - began
        if took >= self._slow:
            self._note(show(), session, took, waited=False)
        return answer

    def discard(self, waiting: Waiting) -> None:
        """
        Drop a command that :meth:`execute` returned, instead of starting it.

        A handler that was not called yet is not called; an awaitable that a plain one returned is
        cancelled, and its outcome ignored.
        """
        if not waiting.begun:
            return
        value = waiting.start()
        if isinstance(value, Coroutine):
            value.close()
        else:
            result = Deferred.fromCoroutine(_value_of(waiting))
            result.addErrback(lambda failure: None)
            result.cancel()

    # --- what both share ---

    def count_refusal(self, error: TwistedNetError, what: str, client: Audited) -> None:
        """Count and audit an error, if its code is a :class:`Refusal`; *what* is its command."""
        refusal = _REFUSALS.get(error.code)
        if refusal is not None and not getattr(error, "counted", False):
            self.sessions.refuse_line(client, refusal, what)

    @contextmanager
    def refusals_counted(self, what: str, session: Session) -> Iterator[None]:
        """Count the error that the block raises, if it raises one, and let it pass."""
        try:
            yield
        except ANSWERED as error:
            self.count_refusal(error, what, session)
            raise

    def note_if_slow(self, line: bytes, session: Session, took: float) -> None:
        """Enter a line that took this many seconds into the slow log, if that is slow."""
        if took >= self._slow:
            self._note(self.commands.shown(line), session, took, waited=False)

    def _fall_back(self, text: str, name: str, session: Session) -> bytes | Waiting:
        permissions = session.permissions
        if self.commands.fallback is None:
            if permissions is not None:
                permissions.check_command(name.upper(), admin=False, known=False)
            raise UnknownCommand(name)
        if permissions is not None:
            permissions.check_fallback(name.upper())
        request = Request(session, self.commands)
        return encode_whole(self.commands.fallback(request, text.strip(SPACES)))

    def _check_administrative(self, command: Command, session: Session) -> None:
        if session.permissions is None and not session.administrative:
            raise NotPermitted(command.name)

    def _show(self, shown: str, session: Session) -> None:
        sessions = self.sessions
        sessions.instruments.monitors.show(session, shown, sessions.wall(), self.seconds())

    def _note(self, shown: str, client: Audited, took: float, *, waited: bool) -> None:
        sessions = self.sessions
        sessions.instruments.slow_log.note(
            sessions.wall(), took, client.name, client.user, shown, waited=waited
        )

    def _note_waited(self, show: Callable[[], str], client: Audited, took: float) -> None:
        if took >= self.sessions.instruments.slow_log.settings.waiting_threshold:
            self._note(show(), client, took, waited=True)

    def _failed(self, failure: Failure, command: str | None, client: Audited) -> Internal:
        """Log a handler's bug, and return what its client is answered."""
        self.sessions.counters.failures += 1
        if self._may_log():
            self.log.failure(
                "the handler of {command} failed; called by {client} as {user}",
                loggable_failure(failure, self.commands.get(command or ""), self.commands),
                command=command or "an unknown command",
                client=client.name,
                user=client.user or "nobody",
            )
        return Internal()

    def _has_too_many_overdue(self, session: Session) -> bool:
        overdue = self.sessions.counters.overdue
        return overdue > 0 and self._overdue[session.owner] >= MAX_OVERDUE - overdue

    def _may_log(self) -> bool:
        """Whether one more line about a handler may be logged now; counts it if so."""
        return self._tracebacks.take(self.seconds())


class _Execution:
    """
    One waiting command: its handler, its time limit, its answer.

    It lets go of the answer as soon as that has fired: the answer refers to it by its canceller,
    and the two would otherwise live until the cyclic garbage collector runs.
    """

    __slots__ = (
        "_answer",
        "_began",
        "_caller",
        "_cancelled",
        "_overdue",
        "_result",
        "_runner",
        "_session",
        "_show",
        "_timed_out",
        "_timer",
        "_waiting",
    )

    def __init__(
        self, runner: CommandRunner, waiting: Waiting, session: Session, show: Callable[[], str]
    ) -> None:
        self._runner = runner
        self._waiting = waiting
        self._session = session
        # As it is now: it may be logged out meanwhile.
        self._caller = Caller(session.name, session.user)
        self._show = show
        self._began = runner.seconds()
        self._cancelled = self._timed_out = False
        self._overdue: str | None = None  # whose it is, while it is overdue
        self._timer: IDelayedCall | None = None
        self._answer: Deferred[bytes] | None = None

    def begin(self) -> Deferred[bytes]:
        """Call the handler; return the answer, see :meth:`CommandRunner.start`."""
        runner, waiting = self._runner, self._waiting
        answer: Deferred[bytes] = Deferred(self._cancel)
        try:
            if not waiting.alone and runner._has_too_many_overdue(self._session):
                runner.discard(waiting)
                raise TooBusy(MAX_OVERDUE)
            if waiting.blocking:
                owner = self._session.owner
                self._result = runner._blocking.call(
                    waiting.start, owner, self._stop_outliving, self._check_permitted
                )
        except ANSWERED as error:
            runner.count_refusal(error, str(waiting.name), self._caller)
            answer.errback(error)
            return answer
        if not waiting.blocking:
            self._result = Deferred.fromCoroutine(_value_of(waiting, self._session))
        self._answer = answer
        # A fresh answer from a cache is there at once, and needs no timer.
        if not self._result.called:
            self._timer = runner.reactor.callLater(runner.limits.timeout, self._time_out)
        self._result.addBoth(self._ended)
        return answer

    def _check_permitted(self) -> None:
        """Refuse the command if it waited for a thread, and the client may not run it any more."""
        permissions = self._session.permissions
        command = self._runner.commands.get(self._waiting.name or "")
        if permissions is not None and command is not None:
            permissions.check_command(command.name, command.admin)

    def _ended(self, value: object) -> None:
        """The handler has ended: answer, unless the caller or the time limit came first."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        runner = self._runner
        outcome = self._outcome(value)
        if self._cancelled:
            return
        answer, self._answer = self._answer, None
        if answer is None:
            self._stop_outliving()
            return
        runner._note_waited(self._show, self._caller, runner.seconds() - self._began)
        if isinstance(outcome, bytes):
            answer.callback(outcome)
        else:
            runner.count_refusal(outcome, str(self._waiting.name), self._caller)
            answer.errback(outcome)

    def _outcome(self, value: object) -> bytes | TwistedNetError:
        """Encode what the handler returned, or make its failure an error that can be answered."""
        waiting, runner = self._waiting, self._runner
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
        if isinstance(error, CancelledError) and (self._timed_out or self._cancelled):
            return CommandTimeout(runner.limits.timeout)
        return runner._failed(failure, waiting.name, self._caller)

    def _time_out(self) -> None:
        self._timer = None
        self._timed_out = True
        if self._waiting.blocking:
            # A thread goes on whatever its Deferred does.
            self._outlive()
        self._result.cancel()
        answer, self._answer = self._answer, None
        if answer is not None:
            runner = self._runner
            self._outlive()
            if runner._may_log():
                runner.log.warn(
                    "the handler of {command} goes on after it was cancelled at its time limit",
                    command=self._waiting.name,
                )
            runner._note_waited(self._show, self._caller, runner.seconds() - self._began)
            answer.errback(CommandTimeout(runner.limits.timeout))

    def _outlive(self) -> None:
        """Count the handler as overdue: its command is answered, and it may still run."""
        self._overdue = owner = self._session.owner
        self._runner._overdue.add(owner)
        self._session.overdue += 1
        self._runner.sessions.counters.overdue += 1

    def _stop_outliving(self) -> None:
        """Count the handler no longer, if it was overdue: it has ended."""
        if self._overdue is not None:
            self._runner._overdue.remove(self._overdue)
            self._overdue = None
            self._session.overdue -= 1
            self._runner.sessions.counters.overdue -= 1

    def _cancel(self, answer: Deferred[bytes]) -> None:
        """The caller no longer wants the answer."""
        self._cancelled = True
        self._answer = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._result.cancel()


async def _value_of(waiting: Waiting, session: Session | None = None) -> object:
    """Call a handler for a client and await its value, if it is an awaitable."""
    # In the context of this coroutine alone: Twisted gives each one of its own.
    session_of_call.set(session)
    value = waiting.start()
    return await value if isinstance(value, Awaitable) else value


def _encode_failure(failure: Failure, waiting: Waiting) -> bytes:
    """Encode the error of a command that waited; let CancelledError pass."""
    failure.trap(TwistedNetError)
    error = failure.value
    assert isinstance(error, TwistedNetError)
    return waiting.refuse(error)


def _refused_name(error: TwistedNetError, word: str) -> str | None:
    """Return what the answer to an unknown name calls it: the same as if it were known."""
    return shown_name(word) if isinstance(error, AuthRequired | NotPermitted) else None


_join = b"".join
_encode = msgspec.json.Encoder().encode
_REFUSALS = {refusal.value: refusal for refusal in Refusal}
