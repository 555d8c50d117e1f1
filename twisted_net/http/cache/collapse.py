"""Requests of a cache that are under way, so that many callers share one."""

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
from twisted_net.http.cache.tee import Recording
from twisted_net.http.call import Deadline
from twisted_net.http.errors import BodyTooLarge, ClientClosed, FetchTimeout

log = Logger()

MAX_KEYS = 1000
"""Most keys remembered; beyond it, the one noted longest ago is forgotten."""

SECONDS = 120.0
"""How long a key is remembered after it was last noted: as long as Varnish's "hit-for-miss"."""

FlightKey = tuple[str, tuple[str, ...], bytes]
"""URL, names of request fields, and a digest of what these are in the request."""


class Flight:
    """
    One request, whose answer others wait for.

    It ends with :meth:`land`, once what came is stored or known not to be. The caller who began
    it may leave; it goes on while anybody waits, and is cancelled when nobody does.

    :param key: for which requests it is.
    :param over: is called when it ends.
    :ivar vary: the request fields that the answer depends on, once they are known.
    :ivar spoilt: what comes is outdated already, since another request has changed it.
    """

    def __init__(self, key: FlightKey, over: Callable[[Flight], None]) -> None:
        self.key = key
        self._over = over
        self._landed = False
        self._led = True
        self._running: Deferred[IResponse] | None = None
        self._first: Deferred[IResponse] | None = None
        self._recording: Recording | None = None
        self._waiting: list[Deferred[FetchError | None]] = []
        self.vary: tuple[str, ...] | None = None
        self.spoilt = False

    @property
    def wanted(self) -> bool:
        """Whether others wait for it."""
        return bool(self._waiting)

    def lead(self, work: Coroutine[Any, Any, IResponse]) -> Deferred[IResponse]:
        """Run it; give the response for the one who began it."""
        first: Deferred[IResponse] = Deferred(lambda _: self._leave())
        self._first = first
        running = Deferred.fromCoroutine(work)
        self._running = running
        running.addCallbacks(self._answered, self._failed)
        return first

    def wait(self) -> Deferred[FetchError | None]:
        """Wait for its end; give the error that it ended with, if any."""
        waiter: Deferred[FetchError | None] = Deferred(self._forget)
        self._waiting.append(waiter)
        if self._recording is not None:
            self._recording.pull()
        return waiter

    def record(self, recording: Recording) -> None:
        """Leave the end to the body, which is stored as it comes."""
        self._recording = recording
        if self._waiting:
            recording.pull()

    def land(self, error: FetchError | None = None) -> None:
        """Let those who wait look what has come of it; the second time, nothing."""
        if self._landed:
            return
        self._landed = True
        self._over(self)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(error)

    def cancel(self) -> None:
        """End it at once."""
        if self._recording is not None:
            self._recording.abort()
        elif self._running is not None:
            self._running.cancel()

    def _forget(self, waiter: Deferred[FetchError | None]) -> None:
        self._waiting.remove(waiter)
        left = self._recording is not None and self._recording.left
        if not self._waiting and (left or not self._led):
            self.cancel()

    def _leave(self) -> None:
        self._led = False
        if not self._waiting:
            self.cancel()

    def _answered(self, response: IResponse) -> None:
        if self._recording is None:
            self.land()
        if self._led and self._first is not None:
            self._first.callback(response)
        elif self._recording is None:
            discard(response)
        else:
            self._recording.pull()

    def _failed(self, failure: Failure) -> None:
        self.land(failure.value if isinstance(failure.value, FetchError) else None)
        if self._led and self._first is not None:
            self._first.errback(failure)
        elif failure.check(FetchError, CancelledError) is None:
            log.failure("a request that the cache went on with failed", failure)


class Unstorable:
    """
    Remembers for a while which keys' last answers could not be stored.

    It is a hint and no more: to forget one too early costs a wait, too late a second request.

    :param max_keys: at least 1.
    :param seconds: how long a key is remembered.
    """

    def __init__(self, max_keys: int = MAX_KEYS, seconds: float = SECONDS) -> None:
        self._max_keys = max_keys
        self._seconds = seconds
        # By the time of the last note, the oldest first.
        self._until: dict[Hashable, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def note(self, key: Hashable, now: float) -> None:
        """Remember that the answer for *key* could not be stored."""
        self._until.pop(key, None)
        self._until[key] = now + self._seconds
        if len(self._until) > self._max_keys:
            del self._until[next(iter(self._until))]

    def forget(self, key: Hashable) -> None:
        """Note that the answer for *key* could be stored; nothing where it is not remembered."""
        self._until.pop(key, None)

    def includes(self, key: Hashable, now: float) -> bool:
        """Say whether *key* is remembered."""
        until = self._until.get(key)
        if until is None:
            return False
        if now >= until:
            del self._until[key]
            return False
        return True


class Flights:
    """
    All requests under way for one store.

    It remembers, within the limits of :class:`Unstorable`, for which keys
    the last answer could not be stored: who asks for such a one need not wait for another's.

    :param clock: for those who wait with an end to their time, and for how long that is
        remembered; without, they wait, and it is not.
    """

    def __init__(self, clock: IReactorTime | None = None) -> None:
        self._clock = clock
        self._flights: dict[FlightKey, Flight] = {}
        self._alone: set[Flight] = set()
        self._unstorable = Unstorable()
        self._background: set[Flight] = set()

    def find(self, key: FlightKey) -> Flight | None:
        """Give the flight for requests of this key."""
        return self._flights.get(key)

    def begin(self, key: FlightKey) -> Flight:
        """Open a flight; there is none of this key."""

        def over(flight: Flight) -> None:
            del self._flights[flight.key]

        flight = self._flights[key] = Flight(key, over)
        return flight

    def begin_alone(self, key: FlightKey) -> Flight:
        """Open a flight that nobody else finds."""
        flight = Flight(key, self._alone.remove)
        self._alone.add(flight)
        return flight

    def in_vain(self, key: FlightKey, default_ttl: float | None) -> bool:
        """
        Say whether the last answer for this key could not be stored.

        :param default_ttl: what the rules of the caller have for this URL: by others, it might be.
        """
        if self._clock is None:
            return False
        return self._unstorable.includes((key, default_ttl), self._clock.seconds())

    def note(self, flight: Flight, default_ttl: float | None, *, storable: bool) -> None:
        """Remember whether what came can be stored, by rules with this default."""
        if storable:
            self._unstorable.forget((flight.key, default_ttl))
        elif self._clock is not None:
            self._unstorable.note((flight.key, default_ttl), self._clock.seconds())

    def aside(self, flight: Flight, work: Coroutine[Any, Any, IResponse]) -> None:
        """Run a flight that nobody waits for; failures of the server are its own affair."""
        self._background.add(flight)

        def done(result: object) -> None:
            if isinstance(result, Failure) and result.check(FetchError, CancelledError) is None:
                log.failure("asking anew for what is stored failed", result)

        def answered(response: IResponse) -> None:
            if flight._recording is not None:
                flight._recording.pull()
            else:
                discard(response)

        flight.wait().addBoth(lambda _: self._background.discard(flight))
        flight.lead(work).addCallback(answered).addBoth(done)

    def spoil(self, key: str) -> None:
        """Note that what is under way for a URL must not be stored any more."""
        for flight in (*self._flights.values(), *self._alone):
            if flight.key[0] == key:
                flight.spoilt = True

    async def landing(self, flight: Flight, deadline: Deadline | None) -> FetchError | None:
        """
        Wait for the end of a flight, at most until *deadline*.

        :raises FetchTimeout: when that has passed.
        """
        waiting = flight.wait()
        if deadline is None or self._clock is None:
            return await waiting
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            waiting.cancel()

        left = max(0.0, deadline.at - self._clock.seconds())
        timer = self._clock.callLater(left, expire)
        try:
            return await waiting
        except CancelledError:
            if expired:
                raise deadline.exceeded("headers") from None
            raise
        finally:
            if timer.active():
                timer.cancel()

    def close(self) -> None:
        """End what runs by the side, and all the rest."""
        for flight in [*self._background, *self._flights.values(), *self._alone]:
            flight.cancel()
        self._background.clear()


def is_own(error: FetchError) -> bool:
    """Say whether an error comes from the terms of one call, and so is not that of others."""
    if isinstance(error, FetchTimeout):
        return error.total
    return isinstance(error, (BodyTooLarge, ClientClosed))
