"""Fair calls: blocking functions of many clients in a few threads, in turns between the clients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_net.errors import TooBusy, TwistedNetError
from twisted_net.net.fair_backlog import FairBacklog
from twisted_net.net.worker_threads import Threads

_T = TypeVar("_T")


class FairCalls:
    """
    Calls blocking functions in threads, so that no client keeps the others waiting.

    See :class:`~twisted_net.net.fair_backlog.FairBacklog` for who is next. A cancelled call that
    waits is forgotten at once; one that runs cannot be stopped, and counts for its client until its
    function returns. A client that calls, disconnects and reconnects gets no more threads by that.

    :param limit: calls that wait for a thread or run in one.
    """

    def __init__(self, threads: Threads, limit: int) -> None:
        self._threads = threads
        self._limit = limit
        self._backlog: FairBacklog[BlockingCall] = FairBacklog(limit)
        self._dispatching = False

    def __len__(self) -> int:
        """Return how many calls wait or run."""
        return len(self._backlog)

    def call(
        self,
        function: Callable[[], _T],
        client: str,
        freed: Callable[[], None] | None = None,
        check: Callable[[], None] | None = None,
    ) -> Deferred[_T]:
        """
        Call *function* in a thread.

        :param client: whom it counts for, see :attr:`twisted_net.sessions.Session.owner`.
        :param freed: called once *function* cannot run any more: it has returned, or never ran.
        :param check: called in the reactor's thread when its turn has come; raises a
            TwistedNetError if *function* may not run any more.
        :return: fires with its value or exception. When cancelled it fires at once, while a
            function that already runs goes on, its outcome ignored. Fails with TooBusy if too many
            calls wait; later too, where other clients' calls take its place.
        """
        call = BlockingCall(self, function, client, freed or _ignore, check or _ignore)
        surplus = self._backlog.add(client, call)
        if surplus is not None:
            surplus.freed()
            surplus.result.errback(TooBusy(self._limit))
        self._next()
        return call.result

    def discard(self, call: BlockingCall) -> None:
        """Forget a call that was cancelled, if it waits."""
        if self._backlog.discard(call.client, call):
            call.freed()

    def _next(self) -> None:
        # One that fails at once, without a thread, is done within this loop.
        if self._dispatching:
            return
        self._dispatching = True
        threads = self._threads
        while (taken := self._backlog.take(threads.limit - threads.busy)) is not None:
            client, call = taken
            try:
                call.check()
            except TwistedNetError:
                self._done(call, client, Failure())
                continue
            threads.call(call.run).addBoth(partial(self._done, call, client))
        self._dispatching = False

    def _done(self, call: BlockingCall, client: str, value: object) -> None:
        self._backlog.finished(client)
        call.freed()
        if not call.result.called:
            call.result.callback(value)
        self._next()


class BlockingCall:
    """One call; equal to itself alone."""

    __slots__ = ("_function", "check", "client", "freed", "result")

    def __init__(
        self,
        calls: FairCalls,
        function: Callable[[], object],
        client: str,
        freed: Callable[[], None],
        check: Callable[[], None],
    ) -> None:
        self._function = function
        self.client = client
        self.freed = freed
        self.check = check
        # Any: a value of the function's type, or a Failure.
        self.result: Deferred[Any] = Deferred(lambda _: calls.discard(self))

    def run(self) -> object:
        """Call the function, in a thread, unless the call was cancelled by then."""
        return None if self.result.called else self._function()


def _ignore() -> None:
    """Do nothing."""
