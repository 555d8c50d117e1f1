"""Command runner: permits, counts, audits, runs and times every command, for every door."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import msgspec
from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_net.commands.arguments import split_json_tail, split_quoted
from twisted_net.commands.execution import Execution, Executor
from twisted_net.commands.hook_calls import ServerHookCalls
from twisted_net.commands.records import CommandRecords
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
    EmptyMessage,
    NotPermitted,
    NotUTF8,
    TwistedNetError,
    UnknownCommand,
)
from twisted_net.net.characters import SPACES, check_control_characters, split_words
from twisted_net.net.fair_calls import FairCalls
from twisted_net.net.redaction import shown_word
from twisted_net.net.steady_clock import steady, stopwatch
from twisted_net.net.worker_threads import Threads, WorkerThreads
from twisted_net.sessions.registry import Sessions
from twisted_net.sessions.session import Session

Permit = Callable[[Command, Session], None]
"""
Called before a command runs; raises a CommandError if this client may not run it.

It is not asked for what does not run: HELP and the list of resources have commands that it would
refuse, and a name that is no command's is answered as such. Nor is it for a fallback.
"""


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
        if threads is None:
            threads = WorkerThreads(reactor, "command", limits.blocking_threads)
        self._threads = threads
        self._blocking = FairCalls(threads, limits.max_blocking)
        self._records = records = CommandRecords(commands, sessions, self.seconds)
        sessions.hooks.use_calls(ServerHookCalls(self.reactor, limits.timeout))
        self._executor = Executor(
            self.reactor, commands, sessions, records, self.seconds, self._blocking, limits.timeout
        )

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
                tail = command.tail
                words = split_json_tail(text, tail) if tail else split_quoted(text)
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
            request = Request(session, self.commands) if command.needs_request else None
            return command.run(words, request)
        except ANSWERED as error:
            shown = command.name if command else shown_word(name)
            self._records.count_refusal(error, shown, session)
            return encode_error(error, command.name if command else _refused_name(error, name))
        except BaseException:
            known = command.name if command else None
            return encode_error(self._records.note_failure(Failure(), known, session), known)

    def start_line(
        self, waiting: Waiting, line: bytes, session: Session, answered: Callable[[bytes], None]
    ) -> Execution:
        """
        Start a command that :meth:`answer` returned.

        :param answered: called once with the answer, within this call or later; not after the
            command was cancelled by what is returned.
        """
        settle = partial(_settle, waiting, answered)
        return self._executor.start(waiting, session, partial(self.commands.shown, line), settle)

    def show(self, line: bytes, session: Session) -> None:
        """Show a line to the clients that watch by MONITOR."""
        self._records.show(self.commands.shown(line), session)

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
            self._records.show(self.commands.shown_call(command, words), session)
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
            self._records.show(shown_word(name), session)
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
            self._records.count_refusal(error, command.name, session)
            raise

    def execute(self, command: Command, words: list[str], session: Session) -> bytes | Waiting:
        """
        Run a command that was admitted.

        :raises CommandError, FetchError: as :meth:`run` does.
        """
        command.calls += 1
        request = Request(session, self.commands) if command.needs_request else None
        began = self.seconds()
        try:
            return command.run(words, request)
        except ANSWERED as error:
            self._records.count_refusal(error, command.name, session)
            raise
        except BaseException:
            raise self._records.note_failure(Failure(), command.name, session) from None
        finally:
            took = self.seconds() - began
            show = partial(self.commands.shown_call, command, words)
            self._records.note_if_slow(show, session, took)

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
        answer: Deferred[bytes] = Deferred(lambda _: execution.cancel())
        execution = self._executor.start(waiting, session, show, partial(_fire, answer))
        took = self.seconds() - began
        self._records.note_if_slow(show, session, took)
        return answer

    # --- what both share ---

    @contextmanager
    def refusals_counted(self, what: str, session: Session) -> Iterator[None]:
        """Count the error that the block raises, if it raises one, and let it pass."""
        try:
            yield
        except ANSWERED as error:
            self._records.count_refusal(error, what, session)
            raise

    def note_if_slow(self, line: bytes, session: Session, took: float) -> None:
        """Enter a line that took this many seconds into the slow log, if that is slow."""
        self._records.note_if_slow(partial(self.commands.shown, line), session, took)

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


def _settle(
    waiting: Waiting, answered: Callable[[bytes], None], outcome: bytes | TwistedNetError
) -> None:
    """Pass an answer on, or the error in place of one, encoded."""
    answered(outcome if isinstance(outcome, bytes) else waiting.refuse(outcome))


def _fire(answer: Deferred[bytes], outcome: bytes | TwistedNetError) -> None:
    if isinstance(outcome, bytes):
        answer.callback(outcome)
    else:
        answer.errback(outcome)


def _refused_name(error: TwistedNetError, word: str) -> str | None:
    """Return what the answer to an unknown name calls it: the same as if it were known."""
    return shown_name(word) if isinstance(error, AuthRequired | NotPermitted) else None


_join = b"".join
_encode = msgspec.json.Encoder().encode
