"""Attempts: one request over a wire, which is waited for, taken from the pool or made."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import lru_cache
from math import inf
from typing import Any, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.web.iweb import UNKNOWN_LENGTH

from twisted_net.errors import FetchError
from twisted_net.http.bodies import BodyResponse, BytesProducer, discard
from twisted_net.http.call import Call, Deadline
from twisted_net.http.calls.outcomes import result_of
from twisted_net.http.errors import FetchTimeout
from twisted_net.http.fields import expects_continue
from twisted_net.http.h1.exchange import ExchangeLimits, Expectation
from twisted_net.http.h1.heads import CHUNKED
from twisted_net.http.h1.requests import RequestEncoder
from twisted_net.http.h1.timeouts import LATE
from twisted_net.http.h1.wire import Wire
from twisted_net.http.origins import OriginState
from twisted_net.http.pool import ConnectionPool
from twisted_net.http.proxies import proxy_refusal
from twisted_net.http.request import OutgoingRequest
from twisted_net.http.settings import HttpSettings
from twisted_net.http.ssrf_guard import SsrfGuard
from twisted_net.http.urls import HttpTarget

_T = TypeVar("_T")


class Attempts:
    """
    Makes single attempts: takes or makes a connection, sends, and waits for the header.

    They fail with errors of this package only. The URL is checked first; with a guard, its
    destination too.

    :ivar headers_timeout: that of the settings.
    """

    def __init__(
        self,
        clock: IReactorTime,
        pool: ConnectionPool,
        settings: HttpSettings,
        *,
        guard: SsrfGuard | None = None,
    ) -> None:
        self._clock = clock
        self._pool = pool
        self._settings = settings
        self._guard = guard
        self.headers_timeout = settings.headers_timeout

    def send(self, request: OutgoingRequest, call: Call) -> Awaitable[BodyResponse]:
        """Make one attempt; return the response when its header has come."""
        call.body_unsent = False
        expect = request.fields.joined("expect")
        if expect is None or not expects_continue(expect):
            return self._send(request, call)
        without = request.with_fields(request.fields.without(["expect"]))
        if request.producer is None or request.producer.length == 0:
            # RFC 9110 §10.1.1: there is nothing that could wait.
            return self._send(without, call)
        return self._send_expecting(request, without, call)

    async def _send_expecting(
        self, request: OutgoingRequest, without: OutgoingRequest, call: Call
    ) -> BodyResponse:
        """
        Make an attempt whose body waits for a 100 (RFC 9110 §10.1.1).

        :param without: the same request without ``Expect``, which is sent after a 417: on the way
            is a server or a proxy that does not know it.
        """
        expectation = Expectation(self._settings.continue_timeout)
        try:
            response = await self._send(request, call, expectation)
        finally:
            call.body_unsent = not expectation.begun
        if response.code != 417 or not (
            call.body_unsent or isinstance(request.producer, BytesProducer)
        ):
            return response
        discard(response)
        call.body_unsent = False
        call.attempts += 1
        return await self._send(without, call)

    async def _send(
        self, request: OutgoingRequest, call: Call, expectation: Expectation | None = None
    ) -> BodyResponse:
        target = request.target
        deadline = call.deadline
        if self._guard is not None:
            self._guard.check_url(target.scheme, target.host, target.port)
        if deadline is not None and deadline.at <= self._clock.seconds():
            # No connection and no request is started that would be cancelled at once.
            raise deadline.exceeded("connect")
        if call.overrides is not None:
            target = call.overrides.target(target)
        sent, closes = self._encode(request, target)
        wire = await self._wire(target, call)
        response = await result_of(
            wire.send(
                request.method,
                sent,
                request.producer,
                self.limits(call),
                closes=closes,
                expectation=expectation,
                target=target,
            )
        )
        if response.code == 407 and wire.proxy is not None:
            discard(response)
            raise proxy_refusal(target.host, 407, unsent=False)
        return response

    def encode_direct(self, request: OutgoingRequest) -> tuple[bytes, bool] | None:
        """
        Return what :meth:`idle_wire` is for: the head of a request, and whether it closes.

        :param request: without a body, or with one in memory.
        :return: None if such a request takes more, as one that is sent to a proxy, or is none.
        """
        target = request.target
        if "expect" in request.fields or self._pool.forward_proxy(target) is not None:
            return None
        try:
            return self._encode(request, target)
        except ValueError:
            return None  # an attempt refuses it

    def idle_wire(
        self, target: HttpTarget, call: Call, origin: OriginState, now: float
    ) -> Wire | None:
        """
        Return a wire for one request of a call, if that takes only an idle one.

        :param origin: that of the target.
        :return: None if it takes anything else, as waiting for a slot or a connection: then nothing
            was done.
        """
        deadline = call.deadline
        if (
            call.overrides is not None
            or (deadline is not None and deadline.at <= now)
            or not self._is_allowed(target)
            or not origin.acquire_free()
        ):
            return None
        wire = self._pool.take_idle(origin)
        if wire is None:
            origin.release()
        else:
            wire.holds_slot = True
        return wire

    def _is_allowed(self, target: HttpTarget) -> bool:
        """Return whether the guard lets a request to a URL begin."""
        if self._guard is None:
            return True
        try:
            self._guard.check_url(target.scheme, target.host, target.port)
        except FetchError:
            return False
        return True

    def limits(self, call: Call) -> ExchangeLimits:
        """Return the limits of one exchange of a call."""
        limits = self._settings if call.overrides is None else call.overrides
        return ExchangeLimits(
            limits.headers_timeout, limits.silence_timeout, call.deadline, call.max_body
        )

    def _encode(self, request: OutgoingRequest, target: HttpTarget) -> tuple[bytes, bool]:
        """Return the head of a request, and whether it closes the connection."""
        proxy = self._pool.forward_proxy(target)
        fields = request.fields
        if proxy is not None and proxy.authorization is not None:
            fields = fields.replaced([("Proxy-Authorization", proxy.authorization)])
        producer = request.producer
        length = None
        if producer is not None:
            length = CHUNKED if producer.length is UNKNOWN_LENGTH else cast(int, producer.length)
        return _encoder(target.authority).encode(
            request.method,
            target.path if proxy is None else target.url,
            fields,
            length=length,
        )

    async def _wire(self, target: HttpTarget, call: Call) -> Wire:
        """Wait for a slot, then return a wire for one request."""
        deadline = call.deadline
        origin = self._pool.origins.get(target.origin)
        turn = origin.acquire()
        if turn is not None:
            await self._timed(turn, "queue", self._settings.queue_timeout, deadline)
        try:
            wire = self._pool.take_idle(origin)
            if wire is None:
                limits = self._settings if call.overrides is None else call.overrides
                limit = limits.connect_timeout
                connecting = self._pool.connect(target, self._remaining(limit, deadline))
                wire = await self._timed(connecting, "connect", limit, deadline)
        except BaseException:
            origin.release()
            raise
        wire.holds_slot = True
        return wire

    def _remaining(self, limit: float | None, deadline: Deadline | None) -> float:
        """Return how many seconds something with a limit may take until the deadline."""
        seconds = inf if limit is None else limit
        return seconds if deadline is None else min(seconds, deadline.at - self._clock.seconds())

    async def _timed(
        self, waiting: Deferred[_T], phase: str, limit: float | None, deadline: Deadline | None
    ) -> _T:
        """Await *waiting*, for at most *limit* seconds and until the deadline."""
        seconds = limit
        passed = None
        if deadline is not None:
            remaining = deadline.at - self._clock.seconds()
            if limit is None or remaining < limit:
                seconds, passed = max(0.0, remaining), deadline
        if seconds is None or seconds == inf:
            # A deadline that was extended for one who has none.
            return await result_of(waiting)
        timer = _WaitTimer(self._clock, waiting, seconds, limit, passed)
        try:
            return await result_of(waiting)
        except CancelledError:
            if timer.expired:
                raise timer.error(phase) from None
            raise
        finally:
            timer.stop()


class _WaitTimer:
    """
    Cancels a Deferred that is waited for, at the end of a time.

    It is not a function within the coroutine, which would set itself again by its name: that would
    refer to itself, and be left to the garbage collector.

    :param seconds: the time.
    :param limit: of this wait; None for none.
    :param deadline: that of the call, where it comes before that of the wait; else None. It may be
        extended meanwhile.
    :ivar expired: whether the time has ended.
    """

    def __init__(
        self,
        clock: IReactorTime,
        waiting: Deferred[Any],  # Any: whatever is waited for
        seconds: float,
        limit: float | None,
        deadline: Deadline | None,
    ) -> None:
        self.expired = False
        self._clock = clock
        self._waiting = waiting
        self._seconds = self._waited = seconds
        self._limit = limit
        self._deadline = deadline
        self._began = clock.seconds()
        self._due = self._began + seconds
        self._timer: IDelayedCall | None = clock.callLater(seconds, self._expire)

    def error(self, phase: str) -> FetchTimeout:
        """Return the error of a wait for *phase* whose time has ended."""
        if self._deadline is not None:
            return self._deadline.exceeded(phase, self._waited)
        return FetchTimeout(phase, self._seconds, waited=self._waited)

    def stop(self) -> None:
        """Let the wait take any time."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _expire(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        deadline, limit = self._deadline, self._limit
        if deadline is not None and deadline.at > now:
            # It has been extended.
            self._due = deadline.at
            if limit is not None and self._began + limit < self._due:
                self._seconds, self._due, self._deadline = limit, self._began + limit, None
            if self._due > now:
                self._waited = self._due - self._began
                if self._due < inf:
                    self._timer = self._clock.callLater(self._due - now, self._expire)
                return
        self.expired = True
        if now - self._due > LATE:
            # The reactor was held up: who knows what has come meanwhile?
            self._waited = 0.0
        self._waiting.cancel()


@lru_cache(maxsize=1024)
def _encoder(authority: str) -> RequestEncoder:
    return RequestEncoder(authority)
