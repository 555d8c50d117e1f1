"""What a CoAP client gets: a response, or the states of a resource that it observes."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
from attrs import frozen
from twisted.internet.defer import Deferred

from twisted_net.coap.codec import Option, code_name
from twisted_net.coap.errors import UnexpectedCode
from twisted_net.coap.exchange import OutgoingMessage
from twisted_net.errors import CoapError

_REORDERED = 128.0
"""Seconds after which a notification is newer whatever its number says (RFC 7641 §3.4)."""


@frozen
class Response:
    """
    What a server answered, its body whole.

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
        """The format of the payload, as a number, where the server says it."""
        return self._uint(Option.CONTENT_FORMAT)

    @property
    def max_age(self) -> int:
        """Seconds for which the answer holds; 60 where the server does not say."""
        value = self._uint(Option.MAX_AGE)
        return 60 if value is None else value

    @property
    def text(self) -> str:
        """The payload as text; bytes that are not UTF-8 are replaced."""
        return self.payload.decode(errors="replace")

    def json(self) -> Any:  # Any: it is any JSON
        """
        Decode the payload.

        :raises ValueError: where it is not JSON.
        """
        return msgspec.json.decode(self.payload)

    def raise_for_code(self) -> Response:
        """
        Give this response, if its code is a success.

        :raises UnexpectedCode: otherwise, with the code and the diagnostic payload.
        """
        if not self.ok:
            raise UnexpectedCode(code_name(self.code), self.text[:256])
        return self

    def _uint(self, number: int) -> int | None:
        for known, value in self.options:
            if known == number:
                return int.from_bytes(value, "big")
        return None


class Observation:
    """
    A resource that is being observed: iterate over its states with ``async for``.

    The first item is the state at the beginning. Where states come faster than they are taken,
    the oldest are dropped and counted in :attr:`skipped`. Iteration ends with :meth:`cancel`, and
    after a response without an Observe option: the server does not, or no longer, notify.
    Leave it with ``async with``, or call :meth:`cancel`.

    A server that was restarted has forgotten its observers, and tells nothing: who must know asks
    again where nothing came for the ``max_age`` of the last state (RFC 7641 §3.3.1).

    :param most: states kept for who iterates.
    :param forget: has the client lose interest in the request.
    :param deregister: has the server told so too.
    :ivar skipped: states that were not taken in time.
    """

    def __init__(
        self,
        most: int,
        forget: Callable[[OutgoingMessage], None],
        deregister: Callable[[OutgoingMessage], Awaitable[None]],
    ) -> None:
        self._most = most
        self._forget = forget
        self._deregister = deregister
        self._states: deque[Response] = deque()
        self._waiting: Deferred[None] | None = None
        self._failure: CoapError | None = None
        self._ended = False
        self._last: tuple[int, float] | None = None
        self.outgoing: OutgoingMessage | None = None
        self.skipped = 0

    async def __aenter__(self) -> Observation:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.cancel()

    def __aiter__(self) -> AsyncIterator[Response]:
        return self

    async def __anext__(self) -> Response:
        while not self._states:
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            if self._ended:
                raise StopAsyncIteration
            self._waiting = Deferred()
            await self._waiting
        return self._states.popleft()

    def cancel(self) -> None:
        """
        End the observation; the server learns of it at its next notification (a reset).

        A process that ends soon should :meth:`stop` instead.
        """
        self.end(None)
        if self.outgoing is not None:
            self._forget(self.outgoing)

    async def stop(self) -> None:
        """
        End the observation, and have the server forget it at once (RFC 7641 §3.6).

        :raises CoapError: where the server does not answer.
        """
        self.end(None)
        if self.outgoing is not None:
            await self._deregister(self.outgoing)

    def fresh(self, number: int | None, now: float) -> bool:
        """Tell whether a notification is newer than those before it (RFC 7641 §3.4)."""
        if number is None:
            return True
        last, self._last = self._last, (number, now)
        if last is None or now > last[1] + _REORDERED:
            return True
        if 0 < (number - last[0]) & 0xFFFFFF < 1 << 23:
            return True
        self._last = last
        return False

    def put(self, state: Response) -> None:
        """Take in a state."""
        if self._ended:
            return
        if len(self._states) >= self._most:
            self._states.popleft()
            self.skipped += 1
        self._states.append(state)
        self._wake()

    def end(self, failure: CoapError | None) -> None:
        """Add no more states; raise *failure* after those that there are."""
        if not self._ended:
            self._ended = True
            self._failure = failure
            self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)
