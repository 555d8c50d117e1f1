"""
Request collapsing: concurrent requests for the same response share one forwarded request.

RFC 9111 §4 allows it; RFC 9211 §2.7 calls such requests *collapsed*.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, NamedTuple, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_net.errors import FetchError
from twisted_net.http.bodies import BodyResponse, discard
from twisted_net.http.cache.tee import BodyTee
from twisted_net.http.call import Call, CallOverrides, Deadline
from twisted_net.http.calls.outcomes import canceller, result_of, started
from twisted_net.http.errors import BodyTooLarge, ClientClosed, FetchTimeout
from twisted_net.http.h1.timeouts import ExchangeTimeouts
from twisted_net.net.bounded_table import BoundedTable

log = Logger()

_T = TypeVar("_T")

MAX_UNSTORABLE_KEYS = 1000
"""Limit of keys remembered as unstorable; beyond it the one added longest ago is dropped."""

UNSTORABLE_SECONDS = 120.0
"""How long a key is remembered as unstorable: as long as Varnish's "hit-for-miss"."""

_REFRESHED_AFTER = 1.0
"""Seconds after which the time of a key that is remembered begins anew."""

CollapseKey = tuple[str, tuple[str, ...], bytes]
"""The URL, names of request fields, and a digest of the values of these fields."""


class LoneRequest(Protocol):
    """
    A forwarded request that its caller alone waits for, so far.

    :ivar key: selects the requests that may wait for its response.
    :ivar terms: as of :meth:`RequestCollapser.is_unstorable`.
    :ivar invalidated: as of :class:`CollapsedRequest`.
    """

    key: CollapseKey
    terms: Hashable
    invalidated: bool

    def shared(self) -> CollapsedRequest:
        """Become a request that others may wait for, by :meth:`RequestCollapser.collapse`."""
        ...

    def cancel(self) -> None:
        """Cancel it now."""
        ...


class CollapsedRequest:
    """
    A forwarded request whose response several callers may wait for.

    It ends with :meth:`finish`, once the response is stored or known not to be. The caller that
    started it may leave: it goes on while any caller waits, and is cancelled when none does.

    :param key: selects the requests that may wait for it.
    :param on_finish: called when it ends.
    :param overrides: what the call of its initiator does otherwise than the settings say.
    :ivar vary: the request fields that selected the response, once they are known.
    :ivar invalidated: whether another request has invalidated its response already.
    :ivar tee: receives and stores the body of its response, once there is one.
    :ivar failure: how the server has failed where this has ended with a response nevertheless: the
        error that a stale one was served in place of, or a status such as 503; else None.
    :ivar is_over: whether the time of all who waited has ended.
    """

    def __init__(
        self,
        key: CollapseKey,
        on_finish: Callable[[CollapsedRequest], None],
        overrides: CallOverrides | None = None,
    ) -> None:
        self.key = key
        self._overrides = overrides
        self._on_finish = on_finish
        self._finished = False
        self._initiator_waits = True
        self._running: Deferred[BodyResponse] | None = None
        self._initiator: Deferred[BodyResponse] | None = None
        # In order; and any one of many leaves at once.
        self._waiters: OrderedDict[Deferred[FetchError | None], None] = OrderedDict()
        self._deadline: Deadline | None = None  # of the work, where it may be extended
        self._limit: _WaitLimit | None = None  # of its initiator, once it has been
        self.tee: BodyTee | None = None
        self.vary: tuple[str, ...] | None = None
        self.failure: FetchError | int | None = None
        self.invalidated = self.is_over = False

    @property
    def has_waiters(self) -> bool:
        """Whether callers other than its initiator wait for it."""
        return bool(self._waiters)

    def start(
        self, work: Coroutine[Any, Any, BodyResponse], deadline: Deadline | None = None
    ) -> Deferred[BodyResponse]:
        """
        Run *work*; return the response for the caller that started it.

        :param deadline: of the work; it is extended for others who wait, and not for that caller.
            None if there is none, or if it is to stay as it is.
        """
        initiator = self._begin(deadline)
        self._follow(started(work))
        return initiator

    def follow(
        self, running: Deferred[BodyResponse], deadline: Deadline | None = None
    ) -> Deferred[BodyResponse]:
        """Do as :meth:`start` does, with work that runs already; nobody else uses *running*."""
        initiator = self._begin(deadline)
        self._follow(running)
        return initiator

    def follow_unshared(self, running: Deferred[BodyResponse]) -> Deferred[BodyResponse]:
        """Do as :meth:`run` does, with work that runs already; return it."""
        self._running = running
        return running.addBoth(self._end_unshared)

    async def run(self, work: Coroutine[Any, Any, BodyResponse]) -> BodyResponse:
        """Await *work* for the one caller that there can be, who cancels it by leaving."""
        return await result_of(self.follow_unshared(started(work)))

    @property
    def is_finished(self) -> bool:
        """Whether it has ended."""
        return self._finished

    @property
    def is_over_for_initiator(self) -> bool:
        """Whether the time of the caller that started it has ended, and that of others has not."""
        return self._limit is not None and self._limit.expired

    def fails_others(self, error: FetchError, overrides: CallOverrides | None) -> bool:
        """Return whether its error is that of a caller who waits for it, too."""
        # Another time limit, or another proxy, might have brought the response.
        return not is_caller_specific(error) and self._overrides == overrides

    def extend(self, deadline: Deadline | None, timeouts: ExchangeTimeouts) -> None:
        """Go on until the deadline of another caller, too."""
        own, initiator = self._deadline, self._initiator
        if own is None or initiator is None:
            return
        if deadline is not None and deadline.at <= own.at:
            return
        if self._limit is None and not initiator.called:
            self._limit = limit = _WaitLimit(self, initiator, own.at)
            timeouts.add(limit)
            initiator.addBoth(_leave, limit, timeouts)
        own.extend(deadline)

    def note_time(self, now: float) -> None:
        """Note that the time of a caller has ended."""
        self.is_over = self._deadline is not None and now >= self._deadline.at

    def wait(self) -> Deferred[FetchError | None]:
        """Wait for its end; return the error that it ended with, or None."""
        waiter: Deferred[FetchError | None] = Deferred(self._waiter_left)
        self._waiters[waiter] = None
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
        while self._waiters:
            # One by one: a caller that is woken may cancel another.
            waiter, _ = self._waiters.popitem(last=False)
            waiter.callback(error)

    def cancel(self) -> None:
        """Cancel it now."""
        if self.tee is not None:
            self.tee.abort()
        elif self._running is not None:
            self._running.cancel()

    def _waiter_left(self, waiter: Deferred[FetchError | None]) -> None:
        del self._waiters[waiter]
        if self._finished:
            return
        if self.is_over:
            # It ends by its own deadline, as a request does that nobody else waits for.
            return
        reader_left = self.tee is not None and self.tee.reader_left
        if not self._waiters and (reader_left or not self._initiator_waits):
            self.cancel()

    def _initiator_left(self, initiator: Deferred[BodyResponse]) -> None:
        self._initiator_waits = False
        if not self._waiters:
            self.cancel()

    def _begin(self, deadline: Deadline | None) -> Deferred[BodyResponse]:
        self._deadline = deadline
        initiator: Deferred[BodyResponse] = Deferred(canceller(self._initiator_left))
        self._initiator = initiator
        return initiator

    def _follow(self, running: Deferred[BodyResponse]) -> None:
        self._running = running
        running.addCallbacks(self._received, self._failed)

    def _end_unshared(self, outcome: BodyResponse | Failure) -> BodyResponse | Failure:
        if self.tee is None or isinstance(outcome, Failure):
            self.finish()
        return outcome

    def _received(self, response: BodyResponse) -> None:
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


class WaitOutcome(NamedTuple):
    """
    How the wait for another caller's request has ended.

    :ivar failure: how the server has failed, as in :attr:`CollapsedRequest.failure`, or the error
        that the request or the own time has ended with.
    :ivar asked_at: when it began, by the clock of the cache.
    :ivar final: whether that is the end of this call too, as it is not of the other caller's
        limits.
    """

    request: CollapsedRequest
    asked_at: float
    failure: FetchError | int | None
    final: bool


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
        until = self._until.get(key)
        if until is not None and 0.0 <= now + self._seconds - until < _REFRESHED_AFTER:
            # As good as known: most responses of a service come soon after each other.
            self._until.move_to_end(key)
            return
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
    :ivar has: ``has(key)`` returns whether there is a request in progress with a key.
    """

    def __init__(self, clock: IReactorTime | None = None) -> None:
        self._clock = clock
        self._timeouts = None if clock is None else ExchangeTimeouts(clock)
        self._requests: dict[CollapseKey, CollapsedRequest | LoneRequest] = {}
        self.has = self._requests.__contains__
        self._unshared: set[CollapsedRequest | LoneRequest] = set()
        self._unstorable = UnstorableKeys()
        self._background: set[CollapsedRequest] = set()

    def find(self, key: CollapseKey) -> CollapsedRequest | None:
        """Return the request in progress with this key, or None."""
        request = self._requests.get(key)
        if request is None or isinstance(request, CollapsedRequest):
            return request
        return request.shared()

    def begin_lone(self, request: LoneRequest, now: float) -> None:
        """Register a request that others may ask for; there must be none with its key."""
        if self._clock is not None and self._unstorable.includes((request.key, request.terms), now):
            self._unshared.add(request)
        else:
            self._requests[request.key] = request

    def end_lone(self, request: LoneRequest) -> None:
        """Note that a lone request has ended."""
        if self._requests.get(request.key) is request:
            del self._requests[request.key]
        else:
            self._unshared.remove(request)

    def collapse(
        self, request: LoneRequest, running: Deferred[BodyResponse], deadline: Deadline | None
    ) -> tuple[CollapsedRequest, Deferred[BodyResponse]]:
        """
        Register a request that others may wait for in the place of a lone one.

        :param running: fires with its response; nobody else uses it.
        :param deadline: as of :meth:`CollapsedRequest.start`.
        :return: the request, and what fires with the response for its caller: *running* itself
            where nobody else will wait.
        """
        unshared = request in self._unshared
        self.end_lone(request)
        collapsed = self.begin_unshared(request.key) if unshared else self.begin(request.key)
        collapsed.invalidated = request.invalidated
        if unshared:
            return collapsed, collapsed.follow_unshared(running)
        return collapsed, collapsed.follow(running, deadline)

    def begin(self, key: CollapseKey, overrides: CallOverrides | None = None) -> CollapsedRequest:
        """Register a new request; there must be none in progress with this key."""

        def on_finish(request: CollapsedRequest) -> None:
            del self._requests[request.key]

        request = self._requests[key] = CollapsedRequest(key, on_finish, overrides)
        return request

    def begin_unshared(self, key: CollapseKey) -> CollapsedRequest:
        """Register a new request that :meth:`find` does not return: nobody waits for it."""
        request = CollapsedRequest(key, self._unshared.remove)
        self._unshared.add(request)
        return request

    def is_unstorable(self, key: CollapseKey, terms: Hashable) -> bool:
        """
        Return whether the last response for this key could not be stored.

        :param terms: those of the caller's rules for this URL, by
            :meth:`~twisted_net.http.cache.rules.Rules.storing_terms`: by others, the response might
            be storable.
        """
        if self._clock is None:
            return False
        return self._unstorable.includes((key, terms), self._clock.seconds())

    def note_storable(
        self, request: CollapsedRequest | LoneRequest, terms: Hashable, *, storable: bool
    ) -> None:
        """Remember whether the response can be stored, by rules with these terms."""
        if storable:
            self._unstorable.discard((request.key, terms))
        elif self._clock is not None:
            self._unstorable.add((request.key, terms), self._clock.seconds())

    def run_in_background(
        self, request: CollapsedRequest, work: Coroutine[Any, Any, BodyResponse]
    ) -> None:
        """Run a request that no caller waits for; errors of the server are ignored."""
        self._background.add(request)

        def done(result: object) -> None:
            if isinstance(result, Failure) and result.check(FetchError, CancelledError) is None:
                log.failure("background revalidation failed", result)

        def received(response: BodyResponse) -> None:
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

    def wait(self, request: CollapsedRequest, call: Call, asked_at: float) -> Deferred[WaitOutcome]:
        """
        Wait for the end of a request, at most until the deadline of *call*.

        A deadline that has passed as that caller's has, whose request it was, is the outcome too:
        no other request is made for a call that is over.

        :param asked_at: the time by the clock of the cache.
        :return: fires with the outcome; cancelling it leaves the request to the others.
        """
        deadline, timeouts = call.deadline, self._timeouts
        if timeouts is not None:
            request.extend(deadline, timeouts)
        waiting = request.wait()
        limit = None
        if deadline is not None and timeouts is not None:
            limit = _WaitLimit(request, waiting, deadline.at)
            timeouts.add(limit)
        ended: Deferred[Any] = waiting  # Any: what it fires with is replaced
        return ended.addBoth(self._ended, request, call, asked_at, limit)

    def _ended(
        self,
        result: FetchError | Failure | None,
        request: CollapsedRequest,
        call: Call,
        asked_at: float,
        limit: _WaitLimit | None,
    ) -> WaitOutcome | Failure:
        deadline, clock, timeouts = call.deadline, self._clock, self._timeouts
        expired = limit is not None and limit.expired
        if limit is not None and timeouts is not None:
            _leave(None, limit, timeouts)
        if isinstance(result, Failure) and not expired:
            return result
        if deadline is not None and (
            expired or (result is not None and clock is not None and clock.seconds() >= deadline.at)
        ):
            return WaitOutcome(request, asked_at, deadline.exceeded("headers"), True)
        assert not isinstance(result, Failure)
        failure = request.failure if result is None else result
        final = not isinstance(failure, FetchError) or request.fails_others(failure, call.overrides)
        return WaitOutcome(request, asked_at, failure, final)

    def close(self) -> None:
        """Cancel all requests in progress, those in the background first."""
        for request in [*self._background, *self._requests.values(), *self._unshared]:
            request.cancel()
        self._background.clear()


class _WaitLimit:
    """The end of the time of a caller that waits; see :class:`.Timed`."""

    __slots__ = ("_request", "_waiting", "due", "expired")

    def __init__(
        self,
        request: CollapsedRequest,
        waiting: Deferred[Any],  # Any: of its initiator, and of others
        due: float,
    ) -> None:
        self._request = request
        self._waiting = waiting
        self.due = due
        self.expired = False

    def expire(self, now: float) -> None:
        """End the wait."""
        self.expired = True
        self._request.note_time(now)
        self._waiting.cancel()

    def forget(self) -> None:
        """Refer to nothing: the request may refer to this."""
        del self._request, self._waiting


def _leave(result: _T, limit: _WaitLimit, timeouts: ExchangeTimeouts) -> _T:
    """Watch a wait no more, and leave no timer behind; those who wait share one."""
    timeouts.discard(limit)
    limit.forget()
    if not len(timeouts):
        timeouts.stop()
    return result


async def shared_outcome(
    collapsed: CollapsedRequest, waiting: Deferred[BodyResponse], call: Call, own: Deadline
) -> BodyResponse:
    """
    Return the response to a shared request for the caller that started it.

    :param waiting: what :meth:`CollapsedRequest.start` returned.
    :param own: the deadline of that caller's *call*, which may be extended for others.
    """
    deadline = call.deadline
    try:
        return await result_of(waiting)
    except CancelledError:
        if collapsed.is_over_for_initiator:
            raise own.exceeded("headers") from None
        raise
    finally:
        if collapsed.is_finished and deadline is not None and deadline.at != own.at:
            # It was extended for others. What follows is this caller's alone.
            call.deadline = own


def is_caller_specific(error: FetchError) -> bool:
    """Return whether an error is due to the limits of one caller, and so is not that of others."""
    if isinstance(error, FetchTimeout):
        return error.total
    return isinstance(error, (BodyTooLarge, ClientClosed))
