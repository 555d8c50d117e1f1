"""Handler call: one handler that runs, from its start to its end; may be cancelled meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar, copy_context
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_net.sessions.session import Session

session_of_call: ContextVar[Session | None] = ContextVar("session_of_call", default=None)
"""The client whose command runs, for what an async handler awaits."""


class HandlerCall:
    """
    Calls a handler, and awaits what it returns, in a context of its own.

    It does what :meth:`Deferred.fromCoroutine` does, but needs no Deferred. To cancel one of these
    takes three more Deferreds and four Failures, and leaves a hundred objects to the garbage
    collector; a client that leaves cancels up to 64, and thousands may leave at once.

    :param ended: called once with the value of the handler, or with the Failure that ended it.
    """

    __slots__ = ("_adding", "_awaited", "_context", "_coroutine", "_early", "_ended")

    def __init__(self, ended: Callable[[object], None]) -> None:
        self._ended = ended
        self._context = copy_context()
        self._coroutine: Coroutine[object, object, object] | None = None
        self._awaited: Deferred[Any] | None = None  # Any: the handler knows of what
        self._adding = False
        self._early: object = None

    def begin(self, start: Callable[[], object], session: Session | None) -> None:
        """
        Call the handler.

        :param start: calls it; returns its value or an awaitable of it.
        :param session: see :data:`session_of_call`.
        """
        self._context.run(session_of_call.set, session)
        try:
            value = self._context.run(start)
        except BaseException:
            self._ended(Failure())
            return
        if isinstance(value, Deferred):
            self.await_deferred(value)
        elif isinstance(value, Awaitable):
            self._coroutine = value if isinstance(value, Coroutine) else _value_of(value)
            self._advance(None)
        else:
            self._ended(value)

    def await_deferred(self, deferred: Deferred[Any]) -> None:  # Any: of any value
        """Wait for a Deferred, in place of a handler that returns it."""
        self._awaited = deferred
        deferred.addBoth(self._ended)

    def cancel(self) -> None:
        """
        Cancel what the handler waits for.

        It ends by that unless it catches the CancelledError. Nothing happens while it runs, or once
        it has ended.
        """
        if self._awaited is not None:
            self._awaited.cancel()

    def _advance(self, result: object) -> None:
        """Resume the coroutine, until it waits or has ended."""
        coroutine, run = self._coroutine, self._context.run
        assert coroutine is not None
        while True:
            self._awaited = None
            try:
                if isinstance(result, Failure):
                    error = result.value
                    assert error is not None
                    awaited = run(coroutine.throw, error.with_traceback(result.tb))
                else:
                    awaited = run(coroutine.send, result)
            except StopIteration as stop:
                value: object = stop.value
                break
            except BaseException:
                # The error's traceback has this frame, which must not refer to the error.
                error = result = None
                value = Failure()
                break
            error = None
            if not isinstance(awaited, Deferred):
                result = awaited
                continue
            self._awaited = awaited
            self._adding = True
            awaited.addBoth(self._resume)
            if self._adding:
                self._adding = False
                return
            # It had fired already.
            result, self._early = self._early, None
        self._ended(value)

    def _resume(self, result: object) -> None:
        if self._adding:
            self._adding, self._early = False, result
        else:
            self._advance(result)


async def _value_of(awaitable: Awaitable[object]) -> object:
    return await awaitable
