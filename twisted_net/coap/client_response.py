"""CoAP client response: what a server answered, and observations of a resource (RFC 7641)."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from twisted_net.coap.codec import Option, Options, code_name, uint_option
from twisted_net.coap.errors import UnexpectedCode
from twisted_net.coap.exchange import OutgoingMessage
from twisted_net.errors import CoapError
from twisted_net.net.untrusted_json import decode_json

DEFAULT_MAX_AGE = 60
"""Seconds for which a response without a Max-Age option is fresh (RFC 7252 §5.10.5)."""

_REORDERING_WINDOW = 128.0
"""Seconds after which a notification is newer whatever its number (RFC 7641 §3.4)."""


@frozen
class CoapResponse:
    """
    A server's response with its whole body.

    :param code: a :class:`~twisted_net.coap.codec.Code`, as a number.
    """

    code: int
    payload: bytes
    options: tuple[tuple[int, bytes], ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the code is a success (2.xx)."""
        return self.code >> 5 == 2

    @property
    def content_format(self) -> int | None:
        """Content format of the payload, as a number, or None without such an option."""
        return uint_option(self.options, Option.CONTENT_FORMAT)

    @property
    def max_age(self) -> int:
        """Seconds for which the response is fresh; 60 without such an option."""
        return max_age_of(self.options)

    @property
    def text(self) -> str:
        """The payload as text; bytes that are not UTF-8 are replaced."""
        return self.payload.decode(errors="replace")

    def json(self) -> Any:  # Any: it is any JSON
        """
        Decode the payload.

        :raises ValueError: if it is not JSON, or has more than 256 levels.
        """
        return decode_json(self.payload)

    def raise_for_code(self) -> CoapResponse:
        """
        Return this response if its code is a success.

        :raises UnexpectedCode: otherwise, with the code and the diagnostic payload.
        """
        if not self.ok:
            raise UnexpectedCode(code_name(self.code), self.text[:256])
        return self


class Observation:
    """
    Observation of a resource: an asynchronous iterator over its states.

    The first item is the state at registration. If states arrive faster than they are iterated
    over, the oldest are dropped and counted in :attr:`skipped`; one is kept, whatever its size.
    Iteration ends after
    :meth:`cancel`, and after a response without an Observe option: the server does not notify, or
    no longer. Use it with ``async with``, or call :meth:`cancel`.

    A server that restarts loses its list of observers, and sends nothing: if no state arrived for
    the ``max_age`` of the last one, the client registers again (RFC 7641 §3.3.1), and
    :attr:`renewals` counts it. A state that is the same as before is not repeated then.

    If the server does not notify, though the response is a success, iteration raises
    ``ObservationRefused`` after that state.

    :param limit: states kept until they are iterated over.
    :param max_bytes: bytes of their payloads and options.
    :param release: makes the client ignore further responses to the request.
    :param deregister: makes the client do so, and deregister at the server.
    :ivar outgoing: the request that registered the observation.
    :ivar skipped: states that were dropped.
    :ivar renewals: how often it was registered again, as nothing was heard.
    """

    def __init__(
        self,
        limit: int,
        max_bytes: int,
        release: Callable[[OutgoingMessage], None],
        deregister: Callable[[OutgoingMessage], Awaitable[None]],
    ) -> None:
        self._limit = limit
        self._max_bytes = max_bytes
        self._bytes = 0
        self._release = release
        self._deregister = deregister
        self._states: deque[CoapResponse] = deque()
        self._waiting: Deferred[None] | None = None
        self._failure: CoapError | None = None
        self._ended = False
        self._last: tuple[int, float] | None = None
        self._arrived = 0
        self._transfer: Deferred[CoapResponse] | None = None
        self._newest: tuple[int, int | None, int] | None = None
        self._renewal: IDelayedCall | Deferred[None] | None = None
        self.outgoing: OutgoingMessage | None = None
        self.skipped = 0
        self.renewals = 0

    async def __aenter__(self) -> Observation:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.cancel()

    def __aiter__(self) -> AsyncIterator[CoapResponse]:
        return self

    async def __anext__(self) -> CoapResponse:
        while not self._states:
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            if self._ended:
                raise StopAsyncIteration
            self._waiting = Deferred()
            await self._waiting
        return self._take()

    def cancel(self) -> None:
        """
        End the observation; the server learns of it by the Reset of its next notification.

        A state whose blocks are being transferred is given up.

        A process that ends soon should :meth:`stop` it instead.
        """
        self.end(None)
        self.next_arrival()
        if self.outgoing is not None:
            self._release(self.outgoing)

    async def stop(self) -> None:
        """
        End the observation, and deregister at the server at once (RFC 7641 §3.6).

        :raises CoapError: if the server does not respond.
        """
        self.end(None)
        self.next_arrival()
        if self.outgoing is not None:
            await self._deregister(self.outgoing)

    def is_fresh(self, number: int | None, now: float) -> bool:
        """
        Return whether a notification is newer than all before it, and take note of it.

        :param number: value of its Observe option (RFC 7641 §3.4), or None without one.
        """
        if number is None:
            return True
        last, self._last = self._last, (number, now)
        if last is None or now > last[1] + _REORDERING_WINDOW:
            return True
        if 0 < (number - last[0]) & 0xFFFFFF < 1 << 23:
            return True
        self._last = last
        return False

    @property
    def ended(self) -> bool:
        """Whether no more states are accepted."""
        return self._ended

    def begin_order(self) -> None:
        """Take the next notification for the first: it responds to a registration."""
        self._last = None

    def next_arrival(self) -> int:
        """
        Count a state whose first block has arrived, and return its number.

        The transfer of the one before is cancelled. Left to itself, each would request one more
        block, and a server that notifies faster than it responds would fill the queue to it.
        """
        self._arrived += 1
        transfer, self._transfer = self._transfer, None
        if transfer is not None:
            transfer.cancel()
        return self._arrived

    def await_blocks(self, transfer: Deferred[CoapResponse]) -> None:
        """Set the transfer of the newest state, which :meth:`next_arrival` cancels."""
        self._transfer = transfer

    def is_superseded(self, arrival: int) -> bool:
        """Return whether a newer state has arrived than the one of this number."""
        return self._arrived != arrival

    def await_renewal(self, renewal: IDelayedCall | Deferred[None]) -> None:
        """Set what is to be cancelled at the end: the next registration, or its delayed call."""
        before, self._renewal = self._renewal, None
        if before is not None and not isinstance(before, Deferred):
            # A registration under way is what sets this one.
            _cancel(before)
        if self._ended:
            _cancel(renewal)
        else:
            self._renewal = renewal

    def put(self, state: CoapResponse, renewed: bool = False) -> None:
        """
        Add a state, unless the observation has ended.

        :param renewed: whether it responds to a registration again: then it is not added if it is
            the same as the one before.
        """
        if self._ended:
            return
        # Not the state itself, which may be long.
        known = state.code, state.content_format, hash(state.payload)
        if renewed and known == self._newest:
            return
        self._newest = known
        self._bytes += _size(state)
        self._states.append(state)
        while len(self._states) > 1 and (
            len(self._states) > self._limit or self._bytes > self._max_bytes
        ):
            self._take()
            self.skipped += 1
        self._wake()

    def end(self, failure: CoapError | None) -> None:
        """Accept no more states; iteration raises *failure* after those that were added."""
        if not self._ended:
            self._ended = True
            self._failure = failure
            self._cancel_renewal()
            self._wake()

    def _cancel_renewal(self) -> None:
        renewal, self._renewal = self._renewal, None
        if renewal is not None:
            _cancel(renewal)

    def _take(self) -> CoapResponse:
        state = self._states.popleft()
        self._bytes -= _size(state)
        return state

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)


def max_age_of(options: Options) -> int:
    """Return the seconds for which the response with these options is fresh."""
    value = uint_option(options, Option.MAX_AGE)
    return DEFAULT_MAX_AGE if value is None else value


def _cancel(renewal: IDelayedCall | Deferred[None]) -> None:
    if isinstance(renewal, Deferred) or renewal.active():
        renewal.cancel()


def _size(state: CoapResponse) -> int:
    return len(state.payload) + sum(len(value) for _, value in state.options)
