"""Hook gate: lets a peer's requests wait for, or be refused by, the hooks of an application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_net.coap.codec import Code
from twisted_net.coap.resources import RequestRefused
from twisted_net.coap.responses import ServerRequest
from twisted_net.coap.waiting_requests import WaitingRequests
from twisted_net.commands.registry import ANSWERED, Waiting
from twisted_net.commands.runner import CommandRunner
from twisted_net.errors import NotPermitted
from twisted_net.net.addresses import Source
from twisted_net.reasons import End
from twisted_net.sessions.session import Session


class HookGate:
    """
    Calls the hooks of an application for the peers of a CoAP server.

    :param waiting: the limits of requests that wait, which hold for these.
    :param close: ends the session of a peer that was refused.
    """

    def __init__(
        self,
        runner: CommandRunner,
        waiting: WaitingRequests,
        close: Callable[[Source, End], None],
    ) -> None:
        self._runner = runner
        self._hooks = runner.sessions.hooks
        self._waiting = waiting
        self._close = close
        # Of peers whose ``on_open`` hooks are awaited: the requests that wait for them.
        self._opening: dict[Session, list[Deferred[bytes]]] = {}

    def opening(self, request: ServerRequest) -> Deferred[bytes] | None:
        """
        Return what a request is to wait for before it is served; None for nothing.

        A peer whose address may be forged is none yet: it must prove the address first.

        :raises CommandError, FetchError: if the application refuses the peer.
        :raises RequestRefused: if the request cannot wait.
        """
        session = request.session
        if not session.shown and self._hooks:
            if not request.verified:
                raise RequestRefused(Code.UNAUTHORIZED, "")
            self._open(request, session)
        if not session.opening:
            return None
        self._waiting.admit(request)
        waiters = self._opening[session]
        waiter: Deferred[bytes] = Deferred(lambda cancelled: waiters.remove(cancelled))
        waiters.append(waiter)
        return waiter

    def subscribing(self, request: ServerRequest, topic: str) -> Deferred[bytes] | None:
        """
        Call the hooks for a peer that is to read or observe a topic.

        :return: what is to be awaited; None for nothing, as for a notification.
        :raises CommandError, FetchError: if it is refused, or another topic is to take its place.
        :raises RequestRefused: if the request cannot wait.
        """
        if request.incoming is None:
            return None
        decided = self._hooks.subscribing(request.session, topic)
        if isinstance(decided, str):
            _check_same(topic, decided)
            return None
        try:
            self._waiting.admit(request)
        except BaseException:
            decided.close()
            raise
        return self._start("SUBSCRIBE", decided, partial(_check_same, topic), request.session)

    def _open(self, request: ServerRequest, session: Session) -> None:
        """Call the hooks for a peer that has come; ``session.opening`` says whether they go on."""
        refused: list[Failure] = []
        try:
            later = self._hooks.opened(session)
        except ANSWERED:
            self._refuse(session, request.source)
            raise
        if later is None:
            return
        session.opening = True
        self._opening[session] = []

        def ended(outcome: bytes | Failure) -> None:
            session.opening = False
            if isinstance(outcome, Failure):
                refused.append(outcome)
                # Its peer may be lost, and have another session by now.
                if not session.ended:
                    self._refuse(session, request.source)
            for waiter in self._opening.pop(session):
                waiter.callback(outcome)

        self._start("on_open", later, lambda value: None, session).addBoth(ended)
        if refused:
            refused[0].raiseException()

    def _start(
        self,
        name: str,
        later: Awaitable[object],
        check: Callable[[object], None],
        session: Session,
    ) -> Deferred[bytes]:
        def encode(value: object) -> bytes:
            check(value)
            return b""

        waiting = Waiting(name, lambda: later, encode, alone=True, begun=True)
        return self._runner.start(waiting, session, lambda: name)

    def _refuse(self, session: Session, source: Source) -> None:
        session.sessions.audit("refused", session, "on_open")
        self._close(source, End.REFUSED)


def _check_same(topic: str, decided: object) -> None:
    """
    Check that hooks have left a topic as it is: a resource has no other.

    :raises NotPermitted: if they have not.
    """
    if decided != topic:
        raise NotPermitted(topic)
