"""Records of commands: counts, audits and logs refusals, slow commands and failures."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_net.commands.failures import loggable_failure
from twisted_net.commands.registry import Commands
from twisted_net.errors import Internal, TwistedNetError
from twisted_net.net.log_limiter import TracebackRate
from twisted_net.reasons import Audited, Refusal
from twisted_net.sessions.registry import Sessions
from twisted_net.sessions.session import Session


class CommandRecords:
    """
    What is recorded of the commands of one server's clients, whichever door they came through.

    :param seconds: returns the seconds of a steady clock.
    """

    log = Logger()

    def __init__(
        self, commands: Commands, sessions: Sessions, seconds: Callable[[], float]
    ) -> None:
        self._commands = commands
        self._sessions = sessions
        self._seconds = seconds
        self._slow_log = sessions.instruments.slow_log
        self._tracebacks = TracebackRate()

    def show(self, shown: str, session: Session) -> None:
        """Show a command to the clients that watch by MONITOR."""
        sessions = self._sessions
        sessions.instruments.monitors.show(session, shown, sessions.wall(), self._seconds())

    def count_refusal(self, error: TwistedNetError, what: str, client: Audited) -> None:
        """Count and audit an error, if its code is a :class:`Refusal`; *what* is its command."""
        refusal = _REFUSALS.get(error.code)
        if refusal is not None and not getattr(error, "counted", False):
            self._sessions.refuse_line(client, refusal, what)

    def note_if_slow(self, show: Callable[[], str], client: Audited, took: float) -> None:
        """Enter a command that held the reactor for so long into the slow log, if that is slow."""
        if took >= self._slow_log.settings.threshold:
            self._note(show(), client, took, waited=False)

    def note_if_waited(self, show: Callable[[], str], client: Audited, took: float) -> None:
        """Enter a command that waited for so long into the slow log, if that is slow."""
        if took >= self._slow_log.settings.waiting_threshold:
            self._note(show(), client, took, waited=True)

    def note_failure(self, failure: Failure, command: str | None, client: Audited) -> Internal:
        """Count and log a handler's bug, and return what its client is answered."""
        self._sessions.counters.failures += 1
        if self._may_log():
            self.log.failure(
                "the handler of {command} failed; called by {client} as {user}",
                loggable_failure(failure, self._commands.get(command or ""), self._commands),
                command=command or "an unknown command",
                client=client.name,
                user=client.user or "nobody",
            )
        return Internal()

    def note_overdue(self, command: str | None) -> None:
        """Log that a handler goes on after its time limit."""
        if self._may_log():
            self.log.warn(
                "the handler of {command} goes on after it was cancelled at its time limit",
                command=command,
            )

    def _note(self, shown: str, client: Audited, took: float, *, waited: bool) -> None:
        wall = self._sessions.wall()
        self._slow_log.note(wall, took, client.name, client.user, shown, waited=waited)

    def _may_log(self) -> bool:
        """Whether one more line about a handler may be logged now; counts it if so."""
        return self._tracebacks.take(self._seconds())


_REFUSALS = {refusal.value: refusal for refusal in Refusal}
