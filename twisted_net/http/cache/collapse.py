"""
Request collapsing: concurrent requests for the same response share one forwarded request.

RFC 9111 §4 allows it; RFC 9211 §2.7 calls such requests *collapsed*.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IResponse

from twisted_net.errors import FetchError
from twisted_net.http.bodies import discard
from twisted_net.http.cache.tee import BodyTee
from twisted_net.http.call import Deadline
from twisted_net.http.calls.outcomes import result_of, started
from twisted_net.http.errors import BodyTooLarge, ClientClosed, FetchTimeout
from twisted_net.net.bounded_table import BoundedTable

log = Logger()

MAX_UNSTORABLE_KEYS = 1000
"""Limit of keys remembered as unstorable; beyond it the one added longest ago is dropped."""

UNSTORABLE_SECONDS = 120.0
"""How long a key is remembered as unstorable: as long as Varnish's "hit-for-miss"."""

CollapseKey = tuple[str, tuple[str, ...], bytes]
"""The URL, names of request fields, and a digest of the values of these fields."""


class CollapsedRequest:
    """
    A forwarded request whose response several callers may wait for.

    It ends with :meth:`finish`, once the response is stored or known not to be. The caller that
    started it may leave: it goes on while any caller waits, and is cancelled when none does.

    :param key: selects the requests that may wait for it.
    :param on_finish: called when it ends.
    :ivar vary: the request fields that selected the response, once they are known.
    :ivar invalidated: whether another request has invalidated its response already.
    :ivar tee: receives and stores the body of its response, once there is one.
    """

    def __init__(self, key: CollapseKey, on_finish: Callable[[CollapsedRequest], None]) -> None:
        self.key = key
        self._on_finish = on_finish
        self._finished = False
        self._initiator_waits = True
        self._running: Deferred[IResponse] | None = None
        self._initiator: Deferred[IResponse] | None = None
        self._waiters: list[Deferred[FetchError | None]] = []
        self.tee: BodyTee | None = None
        self.vary: tuple[str, ...] | None = None
        self.invalidated = False

    @property
    def has_waiters(self) -> bool:
        """Whether callers other than its initiator wait for it."""
        return bool(self._waiters)

    def start(self, work: Coroutine[Any, Any, IResponse]) -> Deferred[IResponse]:
        """Run *work*; return the response for the caller that started it."""
        initiator: Deferred[IResponse] = Deferred(lambda _: self._initiator_left())
        self._initiator = initiator
        running = started(work)
        self._running = running
        running.addCallbacks(self._received, self._failed)
        return initiator

    def wait(self) -> Deferred[FetchError | None]:
        """Wait for its end; return the error that it ended with, or None."""
        waiter: Deferred[FetchError | None] = Deferred(self._waiter_left)
        self._waiters.append(waiter)
        if self.tee is not None:
            self.tee.start()
        return waiter

    def store_body(self, tee: BodyTee) -> None:
        """Let *tee* end it, once the body is stored."""
        self.tee = tee
        if self._waiters:
            tee.start()

    def finish(self, error: FetchError | None = None) -> None:
        """Wake all waiters with its outcome; once finished, do nothing."""
        if self._finished:
            return
        self._finished = True
        self._on_finish(self)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(error)

    def cancel(self) -> None:
        """Cancel it now."""
        if self.tee is not None:
            self.tee.abort()
        elif self._running is not None:
            self._running.cancel()

    def _waiter_left(self, waiter: Deferred[FetchError | None]) -> None:
        self._waiters.remove(waiter)
        reader_left = self.tee is not None and self.tee.reader_left
        if not self._waiters and (reader_left or not self._initiator_waits):
            self.cancel()

    def _initiator_left(self) -> None:
        self._initiator_waits = False
        if not self._waiters:
            self.cancel()

    def _received(self, response: IResponse) -> None:
        if self.tee is None:
            self.finish()
        if self._initiator_waits and self._initiator is not None:
            self._initiator.callback(response)
        elif self.tee is None:
            discard(response)
        else:
            self.tee.start()

    def _failed(self, failure: Failure) -> None:
        self.finish(failure.value if isinstance(failure.value, FetchError) else None)
        if self._initiator_waits and self._initiator is not None:
            self._initiator.errback(failure)
        elif failure.check(FetchError, CancelledError) is None:
            log.failure("a collapsed request failed after its caller had left", failure)


class UnstorableKeys:
    """
    Remembers for a while for which keys the last response could not be stored.

    It is only a hint: dropping a key too early costs a caller's wait, too late a second request.

    :param max_keys: limit of keys; at least 1.
    :param seconds: how long a key is remembered.
    """

    def __init__(
        self, max_keys: int = MAX_UNSTORABLE_KEYS, seconds: float = UNSTORABLE_SECONDS
    ) -> None:
        self._seconds = seconds
        # In the order of the last add, the oldest first.
        self._until: BoundedTable[Hashable, float] = BoundedTable(max_keys)

    def __len__(self) -> int:
        return len(self._until)

    def add(self, key: Hashable, now: float) -> None:
        """Remember that the response for *key* could not be stored."""
        self._until[key] = now + self._seconds
        self._until.move_to_end(key)

    def discard(self, key: Hashable) -> None:
        """Forget *key*, as its response could be stored; unknown keys are ignored."""
        self._until.pop(key)

    def includes(self, key: Hashable, now: float) -> bool:
        """Return whether *key* is remembered."""
        until = self._until.get(key)
        if until is None:
            return False
        if not 0.0 < until - now <= self._seconds:
            del self._until[key]
            return False
        return True


class RequestCollapser:
    """
    All collapsed requests in progress for one store.

    It remembers, by :class:`UnstorableKeys`, for which keys the last response could not be stored:
    requests with such a key are not collapsed.

    :param clock: for waits with a deadline, and for the time that keys are remembered; without
        it, waits have no deadline and no key is remembered.
    """

    def __init__(self, clock: IReactorTime | None = None) -> None:
        self._clock = clock
        self._requests: dict[CollapseKey, CollapsedRequest] = {}
        self._unshared: set[CollapsedRequest] = set()
        self._unstorable = UnstorableKeys()
        self._background: set[CollapsedRequest] = set()

    def find(self, key: CollapseKey) -> CollapsedRequest | None:
        """Return the request in progress with this key, or None."""
        return self._requests.get(key)

    def begin(self, key: CollapseKey) -> CollapsedRequest:
        """Register a new request; there must be none in progress with this key."""

        def on_finish(request: CollapsedRequest) -> None:
            del self._requests[request.key]

        request = self._requests[key] = CollapsedRequest(key, on_finish)
        return request

    def begin_unshared(self, key: CollapseKey) -> CollapsedRequest:
        """Register a new request that :meth:`find` does not return."""
        request = CollapsedRequest(key, self._unshared.remove)
        self._unshared.add(request)
        return request

    def is_unstorable(self, key: CollapseKey, default_ttl: float | None) -> bool:
        """
        Return whether the last response for this key could not be stored.

        :param default_ttl: that of the caller's rules for this URL: with another one, the
            response might be storable.
        """
        if self._clock is None:
            return False
        return self._unstorable.includes((key, default_ttl), self._clock.seconds())

    def note_storable(
        self, request: CollapsedRequest, default_ttl: float | None, *, storable: bool
    ) -> None:
        """Remember whether the response can be stored, by rules with this default."""
        if storable:
            self._unstorable.discard((request.key, default_ttl))
        elif self._clock is not None:
            self._unstorable.add((request.key, default_ttl), self._clock.seconds())

    def run_in_background(
        self, request: CollapsedRequest, work: Coroutine[Any, Any, IResponse]
    ) -> None:
        """Run a request that no caller waits for; errors of the server are ignored."""
        self._background.add(request)

        def done(result: object) -> None:
            if isinstance(result, Failure) and result.check(FetchError, CancelledError) is None:
                log.failure("background revalidation failed", result)

        def received(response: IResponse) -> None:
            if request.tee is not None:
                request.tee.start()
            else:
                discard(response)

        request.wait().addBoth(lambda _: self._background.discard(request))
        request.start(work).addCallback(received).addBoth(done)

    def invalidate(self, key: str) -> None:
        """Mark the requests in progress for a URL, so that their responses are not stored."""
        for request in (*self._requests.values(), *self._unshared):
            if request.key[0] == key:
                request.invalidated = True

    async def wait(self, request: CollapsedRequest, deadline: Deadline | None) -> FetchError | None:
        """
        Wait for the end of a request, at most until *deadline*; return its error, or None.

        :raises FetchTimeout: when the deadline has passed.
        """
        waiting = request.wait()
        if deadline is None or self._clock is None:
            return await result_of(waiting)
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            waiting.cancel()

        remaining = max(0.0, deadline.at - self._clock.seconds())
        timer = self._clock.callLater(remaining, expire)
        try:
            return await result_of(waiting)
        except CancelledError:
            if expired:
                raise deadline.exceeded("headers") from None
            raise
        finally:
            if timer.active():
                timer.cancel()

    def close(self) -> None:
        """Cancel all requests in progress, those in the background first."""
        for request in [*self._background, *self._requests.values(), *self._unshared]:
            request.cancel()
        self._background.clear()


def is_caller_specific(error: FetchError) -> bool:
    """Return whether an error is due to the limits of one caller, and so is not that of others."""
    if isinstance(error, FetchTimeout):
        return error.total
    return isinstance(error, (BodyTooLarge, ClientClosed))
