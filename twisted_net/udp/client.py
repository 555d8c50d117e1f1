"""Datagram client: questions with timeouts and retries, one at a time, and matching answers."""

from __future__ import annotations

import random
import struct
from collections import deque
from collections.abc import Callable
from datetime import datetime

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, DNSLookupError, MessageLengthError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import DatagramProtocol
from typing_extensions import override

from twisted_net.config.type_checks import check_arguments, checked_range
from twisted_net.net.addresses import Source, format_address, is_numeric
from twisted_net.net.reactor import AnyReactor, full_reactor
from twisted_net.net.steady_clock import steady
from twisted_net.net.untrusted_json import JsonDecoder
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
from twisted_net.udp.limits import MAX_PAYLOAD, DatagramClientSettings
from twisted_net.udp.port import CappedPort
from twisted_net.udp.sockets import scoped_source

DEFAULT_PORT = 9999

# A guarded server answers only what is shorter than the question. The answer to TIME has 32 bytes,
# that to STATS less than 1200, which no network fragments (RFC 9000 §14).
_TIME = b"TIME".ljust(64)
_STATS = b"STATS".ljust(1200)
_ECHO = b"ECHO: "
_COMMANDS = (b"PING", b"TIME", b"STATS")

# No UTF-8 text ends with this byte, so the server takes every such datagram for binary.
_NUMBER = struct.Struct(">IB")
_NOT_TEXT = 0xFF

_RECEIVE_BUFFER = 1 << 16

# No socket, no route, or a question longer than the route allows.
_CANNOT_SEND = (OSError, CannotListenError, MessageLengthError)


class _DatagramQuestion:
    """A question, its retries, and the Deferred of its answer."""

    __slots__ = ("data", "fits", "refused", "result", "retries", "sent", "wait")

    def __init__(
        self,
        data: bytes,
        fits: Callable[[bytes], bool],
        retries: int,
        wait: float,
        cancelled: Callable[[_DatagramQuestion], None],
    ) -> None:
        self.data = data
        self.fits = fits
        self.retries = retries
        self.wait = wait
        self.sent = 0
        self.refused = False
        self.result: Deferred[bytes] = Deferred(lambda _: cancelled(self))


class _ClientProtocol(DatagramProtocol):
    """
    Passes the datagrams of one of a client's sockets to the client.

    :ivar server: the only source that is accepted; None until it is known.
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
        # A connected socket receives nothing else, but datagrams may have come before.
        if addr == self.server:
            self._received(datagram)

    @override
    def connectionRefused(self) -> None:
        self._refused()


@check_arguments
class DatagramClient:
    """
    Asks one server, one question at a time; further questions are queued in order.

    Datagrams carry no ID that would match an answer to its question. Instead the client ensures
    that an answer came from the server's address and port, that it has the form its question asks
    for, and that it does not belong to an earlier question that failed or was sent twice: after
    such a question the client changes its port. An answer that the network duplicates may be taken
    for that of an equal question right after it.

    Questions are padded, so that guarded servers answer them.

    :param host: a numeric address, with its scope (``fe80::1%eth0``) if it is link-local, or a
        name, whose first IPv4 address is used.
    :param chance: returns a number drawn evenly from 0 to 1.
    :raises ValueError: for a port that is not from 1 to 65535.
    :ivar strays: received datagrams that did not answer the current question.
    """

    def __init__(
        self,
        reactor: AnyReactor,
        host: str,
        port: int = DEFAULT_PORT,
        settings: DatagramClientSettings | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._reactor = steady(full_reactor(reactor))
        self._host = host
        self._port = checked_range(port, "port", 1, 65_535)
        self._settings = settings or DatagramClientSettings()
        self._chance = chance
        self._address: Source | None = None
        self._socket: CappedPort | None = None
        self._closing: set[Deferred[None]] = set()
        self._asking = 0
        self._waiting: deque[_DatagramQuestion] = deque()
        self._current: _DatagramQuestion | None = None
        self._timer: IDelayedCall | None = None
        self._closed = False
        self.strays = 0

    async def __aenter__(self) -> DatagramClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def ping(self) -> float:
        """Return the round-trip time of ``PING`` in seconds, queueing and retries included."""
        began = self._reactor.seconds()
        await self._ask_again(b"PING", lambda answer: answer == b"PONG")
        return self._reactor.seconds() - began

    async def time(self) -> datetime:
        """Return the server's time."""
        return _read_time(await self._ask_again(_TIME, lambda a: _fits(_read_time, a)))

    async def stats(self) -> dict[str, int]:
        """Return the server's figures."""
        return _read_stats(await self._ask_again(_STATS, lambda a: _fits(_read_stats, a)))

    async def echo(self, text: str) -> str:
        """
        Return *text* as the server echoed it.

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

    @check_arguments
    async def increment(self, number: int) -> int:
        """
        Return *number* plus one, modulo 2**32, as the server computed it.

        :raises ValueError: for a number that four bytes do not hold.
        """
        checked_range(number, "number", 0, (1 << 32) - 1)
        expected = ((number + 1) & 0xFFFFFFFF).to_bytes(4, "big")
        answer = await self._ask_again(_NUMBER.pack(number, _NOT_TEXT), expected.__eq__)
        return int.from_bytes(answer, "big")

    @check_arguments
    async def ask(
        self,
        data: bytes,
        *,
        retries: int = 0,
        fits: Callable[[bytes], bool] = lambda answer: True,
    ) -> bytes:
        """
        Send *data* unchanged, and return the first matching answer.

        :param retries: times that it is sent again; more than 0 only if it is idempotent.
        :param fits: whether a datagram answers this question; it must not raise.
        :raises DatagramTimeout: if no answer comes in time.
        :raises DatagramRefused: if the server refuses the question as too long or too short.
        :raises DatagramUnreachable: if the port is closed, or the question cannot be sent.
        :raises DatagramHostNotFound: for a name without an address.
        :raises TooManyQuestions: if the queue is full.
        :raises DatagramClientClosed: if the client is closed before the answer comes.
        :raises ValueError: for *data* that no datagram can hold, and for other *retries* than 0
            to 100.
        """
        checked_range(retries, "retries", 0, 100)
        if len(data) > MAX_PAYLOAD:
            raise ValueError(f"{len(data)} bytes are too long for a datagram: {MAX_PAYLOAD} fit")
        if self._asking > self._settings.max_waiting:
            raise TooManyQuestions(self._settings.max_waiting)
        self._asking += 1
        try:
            if self._address is None and not self._closed:
                self._address = (await self._look_up(), self._port)
            if self._closed:
                raise DatagramClientClosed
            question = _DatagramQuestion(
                data, fits, retries, self._settings.timeout, self._cancelled
            )
            self._waiting.append(question)
            self._next(self._address)
            return await question.result
        finally:
            self._asking -= 1

    async def close(self) -> None:
        """Fail all questions; afterwards no socket and no timer is left."""
        self._closed = True
        questions = [*([self._current] if self._current else []), *self._waiting]
        self._waiting.clear()
        self._cancel_timer()
        self._current = None
        self._change_port()
        for question in questions:
            # The caller of one before may have cancelled it.
            if not question.result.called:
                question.result.errback(DatagramClientClosed())
        for closing in list(self._closing):
            await closing

    async def _ask_again(self, data: bytes, fits: Callable[[bytes], bool]) -> bytes:
        return await self.ask(data, retries=self._settings.retries, fits=fits)

    async def _look_up(self) -> str:
        host = self._host
        if is_numeric(host):
            return host
        try:
            return await self._reactor.resolve(host)
        except DNSLookupError:
            raise DatagramHostNotFound(host) from None

    # --- one question after the other ---

    def _next(self, address: Source | None) -> None:
        while address is not None and self._current is None and self._waiting:
            question = self._current = self._waiting.popleft()
            try:
                self._send(question, address)
            except _CANNOT_SEND as error:
                # Not by _end, which calls this method: a thousand questions may be queued.
                self._current = None
                question.result.errback(DatagramUnreachable(str(error)))

    def _open(self, address: Source) -> CappedPort:
        def stopped() -> None:
            if self._socket is opened:
                self._socket = None

        listener = _ClientProtocol(self._received, self._unreachable, stopped)
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
            self._change_port()
            raise
        # As the kernel writes it: sources of datagrams are compared with it.
        peer = opened.socket.getpeername()
        listener.server = scoped_source(peer) if len(peer) == 4 else peer
        return opened

    def _send(self, question: _DatagramQuestion, address: Source) -> None:
        if self._socket is None:
            self._socket = self._open(address)
        question.sent += 1
        self._socket.write(question.data)
        # The write may have reported a closed port, which may have ended the question.
        if question is self._current and self._timer is None:
            wait = question.wait * (1 + self._chance() / 2)
            self._timer = self._reactor.callLater(wait, self._late, question, address)

    def _late(self, question: _DatagramQuestion, address: Source) -> None:
        self._timer = None
        if question.retries:
            question.retries -= 1
            question.wait *= 2
            try:
                self._send(question, address)
            except _CANNOT_SEND as error:
                self._end(DatagramUnreachable(str(error)))
        elif question.refused:
            self._end(self._closed_port())
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
        # The server may be restarting.
        question.refused = True
        if not question.retries:
            self._end(self._closed_port())

    def _closed_port(self) -> DatagramUnreachable:
        return DatagramUnreachable(f"nobody listens at {format_address(self._host, self._port)}")

    def _cancelled(self, question: _DatagramQuestion) -> None:
        """Remove a question that its caller has cancelled; Twisted fails its result."""
        if question is self._current:
            self._cancel_timer()
            self._current = None
            self._change_port()
            self._next(self._address)
        elif question in self._waiting:
            self._waiting.remove(question)

    def _end(self, outcome: bytes | DatagramError) -> None:
        question, self._current = self._current, None
        assert question is not None
        self._cancel_timer()
        if question.sent != 1 or not isinstance(outcome, bytes):
            # A further answer may be on its way: it must not be taken for the next question's.
            self._change_port()
        if isinstance(outcome, bytes):
            question.result.callback(outcome)
        else:
            question.result.errback(outcome)
        self._next(self._address)

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _change_port(self) -> None:
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
        raise ValueError("the time has no UTC offset")
    return stamp


_read_stats: JsonDecoder[dict[str, int]] = JsonDecoder(dict[str, int])
