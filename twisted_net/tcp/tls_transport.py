"""TLS transport: its halves end one by one, it decrypts in turns, and keeps few buffers."""

# mypy: disallow-untyped-calls=False
# Few of the methods that the transport derives from have types.

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any

from OpenSSL.SSL import Error, WantReadError, ZeroReturnError
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import BufferingTLSTransport
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from twisted_net.reasons import End
from twisted_net.tcp.rejection import LINGER_TIMEOUT, LayerEnded
from twisted_net.tcp.transport import limit_reads, report_output
from twisted_net.turns.paced_input import READ_SIZE, UNITS_PER_LOOK, PacedInput
from twisted_net.turns.tls_records import RecordCutter
from twisted_net.twisted_internals import tls_buffers_changes, tls_buffers_release

KEPT = 512
"""
Bytes that may come or go in one piece without the buffers being released after it: OpenSSL's grow
to a third more.
"""

RELEASE_INTERVAL = 0.1
"""
Seconds between two releases of buffers that have grown. Each takes 4 µs with what follows from it,
a tenth of a round trip: not for each of them.
"""

RELEASES_AT_ONCE = 256
"""Connections whose buffers are released in one reactor turn: that takes a millisecond."""

RECORDS_WITHOUT_DATA = 32
"""
Records without data that may follow each other, as KeyUpdates; BoringSSL's number.

Each KeyUpdate costs as much as ten records of data, and may ask for an answer. OpenSSL has no limit
for them; for records of no bytes it has this one.
"""

TLS_BYTES = 26_000
"""Bytes of an idle connection's TLS in memory: ``python -m benchmarks.idle`` measures them."""

HANDSHAKE_BYTES = 50_000
"""The same during the handshake, when OpenSSL has all its buffers."""

_ANSWERS_SIZE = 2**15
"""Bytes that are taken at once of what OpenSSL has to send."""

_log = Logger()


@implementer(IHalfCloseableProtocol)
class TlsTransport(BufferingTLSTransport):
    """
    The server's side of one TLS connection; each of its halves ends alone (RFC 8446 §6.1).

    Twisted's own ends both at once: what a client asked before its close_notify is not answered,
    and a client that never returns a close_notify is waited for without a limit. Here it is as over
    TCP, for protocols that know of half-closed connections
    (:class:`~twisted.internet.interfaces.IHalfCloseableProtocol`):

    - a close_notify of the peer, or the end of its half of the connection below without one, calls
      ``readConnectionLost``, and what follows it is dropped;
    - ``loseWriteConnection`` sends ours, then ends our half of the connection below; when both have
      left, ``writeConnectionLost`` is called;
    - ``loseConnection`` sends ours and closes; it does not wait for the peer's.

    OpenSSL's buffers, which grow to what has once come or gone in one piece, up to 90 KB, and never
    shrink, are released after the handshake, and by the factory's :class:`GrownBuffers`.

    What comes, handshakes included, is decrypted in turns
    (:class:`~twisted_net.turns.paced_input.PacedInput`), and not while the protocol within reads
    nothing or the peer does not read what was written. A peer that sends more than
    :data:`RECORDS_WITHOUT_DATA` in a row is ended.

    Under any other protocol the connection closes when either half ends, as Twisted's does. One
    that fails, as by a broken record, is aborted if the alert has not left in
    :data:`~twisted_net.tcp.rejection.LINGER_TIMEOUT`.
    """

    factory: Any  # a TlsFactory, which imports this module
    transport: Any  # the connection below, which has no one type
    wrappedProtocol: Any  # the protocol within, for the same reason
    _tlsConnection: Any  # an SSL.Connection; None once the connection is lost
    _ending_output = False  # our half alone is to end
    _notified = False  # our close_notify has been sent
    _input_ended = False
    _linger: IDelayedCall | None = None
    _grown = False  # its buffers are to be released
    _without_data = 0  # records since the last that had data
    _whole = 0  # records that are to be decrypted, where all of them are whole
    _waiting = 0  # bytes that have come, and are not decrypted
    _input: PacedInput  # from makeConnection on

    def __init__(self, factory: Any, protocol: Any, connect: bool = True) -> None:  # Any: as above
        super().__init__(factory, protocol, connect)
        self._records = RecordCutter()
        self._data: list[bytes] = []  # decrypted in this turn

    # --- the connection below calls ---

    @override
    def makeConnection(self, transport: Any) -> None:  # Any: as above
        factory = self.factory
        limit_reads(transport, READ_SIZE)
        self._input = PacedInput(factory.turns, factory.seconds, transport, self._take_records)
        super().makeConnection(transport)
        self._count(0)

    @override
    def dataReceived(self, bytes: bytes) -> None:
        # Not kept either: what follows a close_notify is ignored (RFC 8446 §6.1).
        if not self._input_ended:
            self._records.keep(bytes)
            self._input.arrived(alone=not self._handshakeDone)

    def readConnectionLost(self) -> None:
        """The peer has ended its half of the connection below."""
        if self._reason is None:
            self._reason = Failure(CONNECTION_LOST)
        self._end_input()

    def output_waits(self, size: int) -> None:
        """Pass on how many bytes wait for the peer."""
        report_output(self.wrappedProtocol, size)

    def writeConnectionLost(self) -> None:
        """Our half has ended, after :meth:`loseWriteConnection`."""
        if IHalfCloseableProtocol.providedBy(self.wrappedProtocol):
            self.wrappedProtocol.writeConnectionLost()

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._input.stop()
        self.factory.kept.set(self, 0)
        super().connectionLost(reason)
        # Last, as Twisted takes a connection that ends without a close_notify for a failure of TLS.
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if not self.factory.protocols:
            self.factory.grown.stop()
            self.factory.turns.stop()

    # --- its turn has come ---

    def _take_records(self, limit: int, until: float) -> bool:
        """Decrypt records, and hand over their data together; return whether some are left."""
        records, left, seconds = self._records, self._records.ready, self.factory.seconds
        part = False
        while left and limit > 0 and not (self._lostTLSConnection or self._input_ended):
            begun = records.unfinished
            piece, ended = records.take(min(limit, UNITS_PER_LOOK))
            part = records.unfinished
            self._whole = 0 if begun or part else ended
            self._decrypt(piece, ended)
            limit -= ended
            left = records.ready
            if left and seconds() >= until:
                break
        self._hand_over()
        if self._lostTLSConnection or self._input_ended:
            records.clear()
            left = part = False
        if left or part or self._waiting:
            # Of a record that has begun, OpenSSL has a buffer.
            self._count(len(records) + READ_SIZE * part)
        return left

    def _count(self, waiting: int) -> None:
        """Count the memory that it takes, and what has come; last, as it may end the connection."""
        if self._tlsConnection is None:  # lost
            return
        self._waiting = waiting
        size = TLS_BYTES if self._handshakeDone else HANDSHAKE_BYTES
        self.factory.kept.set(self, size + waiting)

    def _decrypt(self, piece: bytes, ended: int) -> None:
        """Decrypt a piece, in which so many records end."""
        opening, before = not self._handshakeDone, len(self._data)
        if opening:
            self._whole = 0
        super().dataReceived(piece)
        if opening:
            self.release_buffers()
            if self._handshakeDone and not self._lostTLSConnection:
                self._count(0)
            return
        if len(piece) > KEPT and not self._grown:
            self._grow()
        if len(self._data) > before:
            self._without_data = 0
            return
        self._without_data += ended
        if self._without_data > RECORDS_WITHOUT_DATA and not self._lostTLSConnection:
            self.end(End.TOO_MANY_KEY_UPDATES)

    def _hand_over(self) -> None:
        """Hand over what has been decrypted."""
        if self._data:
            data, self._data = b"".join(self._data), []
            if not self._aborted:
                self.wrappedProtocol.dataReceived(data)

    # --- the factory calls ---

    def end(self, end: End) -> None:
        """End the connection now, for this reason."""
        self._reason = Failure(LayerEnded(end))
        self.abortConnection()

    @property
    def opening(self) -> bool:
        """Whether its handshake is under way."""
        return not self._handshakeDone

    def release_buffers(self) -> None:
        """Free the memory of the buffers, unless they have something in them."""
        self._grown = False
        # In the middle of a handshake OpenSSL has a buffer of its own above these.
        if self._handshakeDone and not self._lostTLSConnection and self._tlsConnection is not None:
            _buffers_release()(self._tlsConnection)

    # --- the protocol within calls ---

    def loseWriteConnection(self) -> None:
        """End our half once everything written has left; the peer's goes on."""
        if not self.disconnecting:
            self._ending_output = True
            super().loseConnection()

    @override
    def loseConnection(self) -> None:
        if not self._ending_output:
            super().loseConnection()
            return
        self._ending_output = False
        if self._notified:
            self._close()

    def pauseProducing(self) -> None:
        """Decrypt and read nothing for now."""
        self._input.pause()

    def resumeProducing(self) -> None:
        """Go on, in its turn with what has been read already."""
        self._input.resume()

    @override
    def registerProducer(self, producer: Any, streaming: bool) -> None:  # Any: of either kind
        if streaming:
            producer = _OutputProducer(self, producer)
        super().registerProducer(producer, streaming)

    def output_full(self, full: bool) -> None:
        """Decrypt nothing while the peer does not read: OpenSSL answers some records."""
        if not full:
            self._input.unblock()
        # Else it is OpenSSL that must read before it can write.
        elif not self._appSendBuffer:
            self._input.block()

    @override
    def unregisterProducer(self) -> None:
        # Small writes wait for the end of the turn; Twisted ends the connection without them.
        self._aggregator.flush()
        super().unregisterProducer()
        # Nothing tells any more when the peer has read everything; input left unread resets it.
        self._input.unblock()

    # --- in place of Twisted's own ---

    @override
    def _write(self, bytes: bytes) -> None:
        super()._write(bytes)
        if len(bytes) > KEPT and not self._grown:
            self._grow()

    def _grow(self) -> None:
        if not self._lostTLSConnection:
            self._grown = True
            self.factory.grown.add(self)

    @override
    def _flushReceiveBIO(self) -> None:
        whole, self._whole = self._whole, 0
        while not (self._lostTLSConnection or self._input_ended):
            try:
                data = self._tlsConnection.recv(2**15)
            except WantReadError:
                break
            except ZeroReturnError:
                self._end_input()
            except Error:
                failure = Failure()
                self._hand_over()
                self._tlsShutdownFinished(failure)
            else:
                self._data.append(data)
                whole -= 1
                if not whole:
                    # All that came was data: nothing is left to read, and nothing is to be sent.
                    # To find that out by two exceptions would take as long as to decrypt it.
                    return
        # To close the connection below after our half has ended loses it at once.
        if self._tlsConnection is not None:
            self._flushSendBIO()

    @override
    def _flushSendBIO(self) -> None:
        """Send all that OpenSSL has to send; Twisted takes 32 KiB of it, and leaves the rest."""
        # OpenSSL answers KeyUpdates after our close_notify, too: they would wait without a limit
        # for a peer that does not read. Nothing may follow it (RFC 8446 §6.1).
        send = _drop if self._notified else self.transport.write
        try:
            data = self._tlsConnection.bio_read(_ANSWERS_SIZE)
            while len(data) == _ANSWERS_SIZE:
                send(data)
                data = self._tlsConnection.bio_read(_ANSWERS_SIZE)
        except WantReadError:
            return
        send(data)

    @override
    def _shutdownTLS(self) -> None:
        """Send our close_notify, and end what is to end of the connection below."""
        if self._tlsConnection is None:  # lost
            return
        with contextlib.suppress(Error):
            self._tlsConnection.shutdown()
        self._flushSendBIO()
        self._notified = True
        if self._aborted:
            self._lostTLSConnection = True
        elif self._ending_output:
            self.transport.loseWriteConnection()
        else:
            self._close()

    def _close(self) -> None:
        """Close the connection below; that the peer sends no close_notify is no loss then."""
        self._lostTLSConnection = True
        self.transport.loseConnection()

    @override
    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        """Close: TLS has ended, or has failed."""
        if self._tlsConnection is None:  # lost
            return
        super()._tlsShutdownFinished(reason)
        # Before, the time limit of the handshake holds.
        if reason is None or not self._handshakeDone or self._tlsConnection is None:
            return
        if self._linger is None:
            clock = self.factory._clock
            self._linger = clock.callLater(LINGER_TIMEOUT, self._stop_lingering)

    def _stop_lingering(self) -> None:
        self._linger = None
        self.transport.abortConnection()

    def _end_input(self) -> None:
        """Take the peer's half for ended, and tell the protocol within."""
        if self._input_ended:
            return
        self._input_ended = True
        self._hand_over()
        if IHalfCloseableProtocol.providedBy(self.wrappedProtocol):
            self.wrappedProtocol.readConnectionLost()
        else:
            self._shutdownTLS()
            self._tlsShutdownFinished(None)


def _drop(data: bytes) -> None:
    """Send nothing."""


@implementer(IPushProducer)
class _OutputProducer:
    """Pauses the protocol within, and all decryption, while the peer does not read."""

    __slots__ = ("_producer", "_transport")

    def __init__(self, transport: TlsTransport, producer: IPushProducer) -> None:
        self._transport = transport
        self._producer = producer

    def pauseProducing(self) -> None:
        """The peer does not read, or OpenSSL must read before it can write."""
        self._transport.output_full(True)
        self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        """All has left."""
        self._transport.output_full(False)
        self._producer.resumeProducing()

    def stopProducing(self) -> None:
        """The connection is lost."""
        self._producer.stopProducing()


class GrownBuffers:
    """
    The connections of one factory whose buffers have grown, and are released soon.

    Those of a busy connection are released again and again, in turn with all others.

    :param clock: one call is scheduled while there are such connections.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._transports: deque[TlsTransport] = deque()
        self._timer: IDelayedCall | None = None

    def add(self, transport: TlsTransport) -> None:
        """Release the buffers of a connection that is not waiting for it already."""
        self._transports.append(transport)
        if self._timer is None:
            self._timer = self._clock.callLater(RELEASE_INTERVAL, self._release)

    def stop(self) -> None:
        """Release nothing: no connection is left."""
        self._transports.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _release(self) -> None:
        self._timer = None
        for _ in range(min(len(self._transports), RELEASES_AT_ONCE)):
            self._transports.popleft().release_buffers()
        if self._transports:
            self._timer = self._clock.callLater(RELEASE_INTERVAL, self._release)


@cache
def _buffers_release() -> Callable[[Any], object]:  # Any: an SSL.Connection
    """Return what releases the buffers of a connection; nothing, with an unknown pyOpenSSL."""
    if changes := tls_buffers_changes():
        _log.warn(
            "the buffers of idle TLS connections cannot be released with this pyOpenSSL; they "
            "take more memory; changed: {changes}",
            changes=", ".join(changes),
        )
        return lambda connection: None
    return tls_buffers_release()
