"""A client for plain datagrams: questions with time limits, and answers that fit them."""

from __future__ import annotations

import random
import struct
from collections import deque
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, DNSLookupError, MessageLengthError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import DatagramProtocol
from typing_extensions import override

from twisted_net.config.record import Record
from twisted_net.net.addresses import Source
from twisted_net.udp.amplification_guard import PAD
from twisted_net.udp.errors import (
    DatagramClientClosed,
    DatagramError,
    DatagramHostNotFound,
    DatagramRefused,
    DatagramTimeout,
    DatagramUnreachable,
    TooManyQuestions,
)
from twisted_net.udp.port import CappedPort
from twisted_net.udp.responder import MAX_PAYLOAD
from twisted_net.udp.sockets import scoped_source

DEFAULT_PORT = 9999

# An answer on a guarded socket is shorter than its question. TIME is answered with 32 bytes, and
# STATS with less than 1200, which every network carries whole (RFC 9000 §14).
_TIME = b"TIME".ljust(64)
_STATS = b"STATS".ljust(1200)
_ECHO = b"ECHO: "
_COMMANDS = (b"PING", b"TIME", b"STATS")

# No UTF-8 text ends with this byte, so that every number before it is taken for one.
_NUMBER = struct.Struct(">IB")
_NOT_TEXT = 0xFF

_RECEIVE_BUFFER = 1 << 16

# No socket, no way there, or a question that is too long for the way.
_CANNOT_SEND = (OSError, CannotListenError, MessageLengthError)


class DatagramClientSettings(Record, frozen=True):
    """
    How long, how often and how much; times in seconds.

    A question is asked anew after ``timeout``, then after twice that, and so on, each wait longer
    by up to a half, so that clients do not come back in step. With the defaults it is given up
    after 7.5 to 11 s. Half a second is above nearly all round trips of today's networks.
    """

    timeout: Annotated[
        float, Meta(gt=0, le=3600, description="seconds until a question is asked anew")
    ] = 0.5
    retries: Annotated[
        int,
        Meta(ge=0, le=20, description="times that a question is asked anew, where that is safe"),
    ] = 3
    max_waiting: Annotated[
        int, Meta(ge=0, description="questions that wait for the one under way")
    ] = 1000


class _Question:
    """What is asked, and who waits for the answer."""

    __slots__ = ("data", "fits", "refused", "result", "retries", "sent", "wait")

    def __init__(
        self,
        data: bytes,
        fits: Callable[[bytes], bool],
        retries: int,
        wait: float,
        given_up: Callable[[_Question], None],
    ) -> None:
        self.data = data
        self.fits = fits
        self.retries = retries
        self.wait = wait
        self.sent = 0
        self.refused = False
        self.result: Deferred[bytes] = Deferred(lambda _: given_up(self))


class _Listener(DatagramProtocol):
    """
    Tells a client what comes in at one of its sockets.

    :ivar server: the only source that is heard; None until it is known.
    """

    noisy = False

    def __init__(
        self,
        received: Callable[[bytes], None],
        refused: Callable[[], None],
        stopped: Callable[[], None],
    ) -> None:
        self._received = received
        self._refused = refused
        self._stopped = stopped
        self.server: Source | None = None

    @override
    def stopProtocol(self) -> None:
        self._stopped()

    @override
    def datagramReceived(self, datagram: bytes, addr: Source) -> None:
        # The kernel passes on nothing else once the socket is connected, but what came before.
        if addr == self.server:
            self._received(datagram)

    @override
    def connectionRefused(self) -> None:
        self._refused()


class DatagramClient:
    """
    Asks one server, one question at a time; the others wait for their turn, in order.

    Datagrams carry no number by which an answer could be matched to its question. What is promised
    instead: an answer came from the server's address and port; it has the form that its question
    asks for; and it does not belong to an earlier question that was given up or asked twice, as the
    client leaves its port after such a one. An answer that the network itself doubles may be taken
    for that of an equal question right after it.

    Questions are padded, so that servers beyond loopback answer them.

    :param host: a numeric address, with its scope (``fe80::1%eth0``) where it is link-local, or a
        name, of which the first IPv4 address is asked.
    :param chance: gives a number from 0 to 1, drawn evenly.
    :ivar strays: datagrams that came in and were no answer to the question under way.
    """

    def __init__(
        self,
        reactor: Any,  # Any: it watches descriptors, tells the time and looks up names
        host: str,
        port: int = DEFAULT_PORT,
        settings: DatagramClientSettings | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._reactor = reactor
        self._host = host
        self._port = port
        self._settings = settings or DatagramClientSettings()
        self._chance = chance
        self._address: Source | None = None
        self._socket: CappedPort | None = None
        self._closing: set[Deferred[None]] = set()
        self._asking = 0
        self._waiting: deque[_Question] = deque()
        self._current: _Question | None = None
        self._timer: IDelayedCall | None = None
        self._closed = False
        self.strays = 0

    async def __aenter__(self) -> DatagramClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def ping(self) -> float:
        """Give the seconds that ``PING`` took to be answered, lost datagrams and waits included."""
        began: float = self._reactor.seconds()
        await self._ask_again(b"PING", lambda answer: answer == b"PONG")
        elapsed: float = self._reactor.seconds() - began
        return elapsed

    async def time(self) -> datetime:
        """Give the server's time."""
        return _read_time(await self._ask_again(_TIME, lambda a: _fits(_read_time, a)))

    async def stats(self) -> dict[str, int]:
        """Give the server's figures."""
        return _read_stats(await self._ask_again(_STATS, lambda a: _fits(_read_stats, a)))

    async def echo(self, text: str) -> str:
        """
        Let *text* come back.

        :raises ValueError: for text that the server would strip, or take for a command.
        """
        data = text.encode()
        if text != text.strip() or data.upper() in _COMMANDS:
            raise ValueError(
                f"the server would not echo {text[:64]!r}: it has white space "
                "around it, or is a command"
            )
        expected = _ECHO + data
        answer = await self._ask_again(data.ljust(len(expected) + 1), expected.__eq__)
        return answer.removeprefix(_ECHO).decode()

    async def increment(self, number: int) -> int:
        """
        Give *number* plus one, modulo 2**32, as the server counts.

        :raises ValueError: for a number that four bytes do not hold.
        """
        if not 0 <= number < 1 << 32:
            raise ValueError(f"a number from 0 to {(1 << 32) - 1} is needed, not {number}")
        expected = ((number + 1) & 0xFFFFFFFF).to_bytes(4, "big")
        answer = await self._ask_again(_NUMBER.pack(number, _NOT_TEXT), expected.__eq__)
        return int.from_bytes(answer, "big")

    async def ask(
        self,
        data: bytes,
        *,
        retries: int = 0,
        fits: Callable[[bytes], bool] = lambda answer: True,
    ) -> bytes:
        """
        Send *data* as it stands, and give the first answer that fits.

        :param retries: times that it is asked anew; only where the server may do it more than once.
        :param fits: tells an answer to this question from others; it must not raise.
        :raises DatagramTimeout: where none comes in time.
        :raises DatagramRefused: where the server says that the question is too long or too short.
        :raises DatagramUnreachable: where nobody listens there, or the question cannot be sent.
        :raises DatagramHostNotFound: for a name without an address.
        :raises TooManyQuestions: where as many wait as may.
        :raises DatagramClientClosed: after :meth:`close`, or when it is called meanwhile.
        """
        if len(data) > MAX_PAYLOAD:
            raise ValueError(f"{len(data)} bytes are more than the {MAX_PAYLOAD} of a datagram")
        if self._asking > self._settings.max_waiting:
            raise TooManyQuestions(self._settings.max_waiting)
        self._asking += 1
        try:
            if self._address is None and not self._closed:
                self._address = (await self._look_up(), self._port)
            if self._closed:
                raise DatagramClientClosed
            question = _Question(data, fits, retries, self._settings.timeout, self._given_up)
            self._waiting.append(question)
            self._next(self._address)
            return await question.result
        finally:
            self._asking -= 1

    async def close(self) -> None:
        """Fail what is under way and what waits; afterwards no socket and no timer is left."""
        self._closed = True
        questions = [*([self._current] if self._current else []), *self._waiting]
        self._waiting.clear()
        self._drop_timer()
        self._current = None
        self._leave_port()
        for question in questions:
            question.result.errback(DatagramClientClosed())
        for closing in list(self._closing):
            await closing

    async def _ask_again(self, data: bytes, fits: Callable[[bytes], bool]) -> bytes:
        return await self.ask(data, retries=self._settings.retries, fits=fits)

    async def _look_up(self) -> str:
        host = self._host
        if isIPAddress(host) or isIPv6Address(host):
            return host
        try:
            address: str = await self._reactor.resolve(host)
        except DNSLookupError:
            raise DatagramHostNotFound(host) from None
        return address

    # --- one question after the other ---

    def _next(self, address: Source | None) -> None:
        while address is not None and self._current is None and self._waiting:
            question = self._current = self._waiting.popleft()
            try:
                self._send(question, address)
            except _CANNOT_SEND as error:
                # Not by _end, which would call this: a thousand may be waiting.
                self._current = None
                question.result.errback(DatagramUnreachable(str(error)))

    def _open(self, address: Source) -> CappedPort:
        def stopped() -> None:
            if self._socket is opened:
                self._socket = None

        listener = _Listener(self._received, self._unreachable, stopped)
        opened = CappedPort(
            0,
            listener,
            "::" if ":" in address[0] else "",
            MAX_PAYLOAD + 1,
            self._reactor,
            receive_buffer=_RECEIVE_BUFFER,
        )
        opened.startListening()
        try:
            opened.connect(*address)
        except OSError:
            self._socket = opened
            self._leave_port()
            raise
        # As the kernel writes it, which is how the sources of datagrams are written.
        peer = opened.socket.getpeername()
        listener.server = scoped_source(peer) if len(peer) == 4 else peer
        return opened

    def _send(self, question: _Question, address: Source) -> None:
        if self._socket is None:
            self._socket = self._open(address)
        question.sent += 1
        self._socket.write(question.data)
        # The write may have told that nobody listens, which may have been the end.
        if question is self._current and self._timer is None:
            wait = question.wait * (1 + self._chance() / 2)
            self._timer = self._reactor.callLater(wait, self._late, question, address)

    def _late(self, question: _Question, address: Source) -> None:
        self._timer = None
        if question.retries:
            question.retries -= 1
            question.wait *= 2
            try:
                self._send(question, address)
            except _CANNOT_SEND as error:
                self._end(DatagramUnreachable(str(error)))
        elif question.refused:
            self._end(DatagramUnreachable())
        else:
            self._end(DatagramTimeout(question.sent))

    def _received(self, data: bytes) -> None:
        question = self._current
        if question is None:
            self.strays += 1
        elif question.fits(data):
            self._end(data)
        elif data == PAD or data.startswith(b"ERROR: "):
            self._end(DatagramRefused(data))
        else:
            self.strays += 1

    def _unreachable(self) -> None:
        question = self._current
        if question is None:
            return
        # Perhaps it is just being restarted.
        question.refused = True
        if not question.retries:
            self._end(DatagramUnreachable())

    def _given_up(self, question: _Question) -> None:
        """Forget a question whose caller has cancelled it; Twisted fails its result."""
        if question is self._current:
            self._drop_timer()
            self._current = None
            self._leave_port()
            self._next(self._address)
        elif question in self._waiting:
            self._waiting.remove(question)

    def _end(self, outcome: bytes | DatagramError) -> None:
        question, self._current = self._current, None
        assert question is not None
        self._drop_timer()
        if question.sent != 1 or not isinstance(outcome, bytes):
            # A further answer may be on its way, which is not to be taken for the next one's.
            self._leave_port()
        if isinstance(outcome, bytes):
            question.result.callback(outcome)
        else:
            question.result.errback(outcome)
        self._next(self._address)

    def _drop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _leave_port(self) -> None:
        socket, self._socket = self._socket, None
        if socket is None:
            return
        closing = socket.stopListening()
        if closing is not None:
            self._closing.add(closing)
            closing.addCallback(lambda _: self._closing.discard(closing))


def _fits(read: Callable[[bytes], object], answer: bytes) -> bool:
    try:
        read(answer)
    except ValueError:
        return False
    return True


def _read_time(answer: bytes) -> datetime:
    stamp = datetime.fromisoformat(answer.decode())
    if stamp.tzinfo is None:
        raise ValueError("a time without its offset")
    return stamp


def _read_stats(answer: bytes) -> dict[str, int]:
    figures: dict[str, int] = msgspec.json.decode(answer, type=dict[str, int])
    return figures
