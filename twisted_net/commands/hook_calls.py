"""Hook calls: logs what session hooks raise, and awaits those of clients that have gone."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_net.commands.handler_call import HandlerCall
from twisted_net.errors import TooBusy
from twisted_net.net.log_limiter import TracebackRate
from twisted_net.net.printable_failure import printable_failure
from twisted_net.sessions.hooks import Later
from twisted_net.sessions.session import Session

MAX_CLOSING = 1000
"""
Clients that have gone whose ``on_close`` hooks are awaited at one time.

Nothing else bounds them: who connects and leaves again holds nothing. Above it clients are refused
as they come (``busy``), so that there are no more than these and one for each connection.
"""


class ServerHookCalls:
    """
    What a server does for session hooks, see :class:`~twisted_net.sessions.hooks.HookCalls`.

    :param reactor: a steady clock.
    :param timeout: seconds after which a hook of a client that has gone is cancelled.
    """

    log = Logger()

    def __init__(self, reactor: IReactorTime, timeout: float) -> None:
        self._reactor = reactor
        self._timeout = timeout
        self._tracebacks = TracebackRate()
        self._closing: dict[HandlerCall, IDelayedCall] = {}
        self._overdue: set[HandlerCall] = set()
        self._waiters: list[Deferred[None]] = []

    def __len__(self) -> int:
        """Return how many clients that have gone have hooks which have not ended."""
        return len(self._closing) + len(self._overdue)

    def failed(self, name: str, session: Session) -> None:
        """See :meth:`~twisted_net.sessions.hooks.HookCalls.failed`."""
        failure = Failure()
        if failure.check(CancelledError, GeneratorExit):
            raise  # called where an exception is handled
        self._log(name, session, failure)

    def check_room(self) -> None:
        """See :meth:`~twisted_net.sessions.hooks.HookCalls.check_room`."""
        if len(self) >= MAX_CLOSING:
            raise TooBusy(MAX_CLOSING)

    def start(self, later: Later, session: Session) -> None:
        """See :meth:`~twisted_net.sessions.hooks.HookCalls.start`."""

        def ended(value: object) -> None:
            self._overdue.discard(call)
            timer = self._closing.pop(call, None)
            if timer is not None and timer.active():
                timer.cancel()
            # What it raised was logged as it did, so that this is a cancellation.
            assert not isinstance(value, Failure) or value.check(CancelledError, GeneratorExit)
            self._wake()

        def time_out() -> None:
            call.cancel()
            if call in self._closing:
                # It goes on all the same, and counts until it ends; nothing waits for it any more.
                del self._closing[call]
                self._overdue.add(call)
                self._wake()

        call = HandlerCall(ended)
        self._closing[call] = self._reactor.callLater(self._timeout, time_out)
        call.begin(lambda: later, session)

    def settled(self) -> Deferred[None]:
        """Return what fires when no hook of a client that has gone is awaited any more."""
        waiter: Deferred[None] = Deferred()
        self._waiters.append(waiter)
        self._wake()
        return waiter

    def _wake(self) -> None:
        while self._waiters and not self._closing:
            self._waiters.pop().callback(None)

    def _log(self, name: str, session: Session, failure: Failure) -> None:
        session.sessions.counters.failures += 1
        if self._tracebacks.take(self._reactor.seconds()):
            self.log.failure(
                "a hook of {hook} failed; called for {client} as {user}",
                printable_failure(failure),
                hook=name,
                client=session.name,
                user=session.user or "nobody",
            )
