"""TLS of a client: what is written leaves at once, what comes is decrypted in the turns of all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, cast

from OpenSSL.SSL import Connection, Error, SysCallError, WantReadError, ZeroReturnError
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    ISSLTransport,
    IStreamClientEndpoint,
)
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import classImplements, implementer

from twisted_net.http.h1.prompt_send import send_promptly
from twisted_net.http.h1.tls_calls import AT_ONCE, TlsCalls, tls_calls
from twisted_net.http.h1.tls_sessions import Resumption
from twisted_net.turns.paced_input import UNITS_PER_LOOK, Below, PacedInput
from twisted_net.turns.paced_reads import SMALL_READ, Pace
from twisted_net.turns.tls_records import RecordCutter, has_alert
from twisted_net.twisted_internals import verify_failure

RECORDS_WITHOUT_DATA = 32
"""
Records without data that may follow each other, as session tickets and KeyUpdates; BoringSSL's
number. OpenSSL has no limit for them, and answers KeyUpdates to a server that reads nothing.
"""

_RECORD = 2**14
"""Bytes of data in one record, at most (RFC 8446 §5.1)."""


@implementer(IStreamClientEndpoint)
class TlsEndpoint:
    """
    Connects with TLS; its protocols get the connection before the handshake.

    :param endpoint: makes the connection below.
    :param creator: makes the connection of OpenSSL.
    :param pace: the turns in which what comes is decrypted.
    :param resumption: of a session, for its one connection; None for none.
    """

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        creator: IOpenSSLClientConnectionCreator,
        pace: Pace,
        resumption: Resumption | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._creator = creator
        self._pace = pace
        self._resumption = resumption

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        factory = ClientTlsFactory(protocolFactory, self._creator, self._pace, self._resumption)
        connected = self._endpoint.connect(factory)
        return connected.addCallback(lambda tls: cast(ClientTlsTransport, tls).wrappedProtocol)


class ClientTlsFactory(Factory):
    """
    Builds TLS around the protocols of another factory.

    :ivar wrappedFactory: the other factory, by the name that Twisted's creators know.
    :ivar creator: makes the connections of OpenSSL.
    :ivar pace: the turns in which what comes is decrypted.
    :ivar resumption: of a session, for its one connection; None for none.
    """

    noisy = False

    def __init__(
        self,
        wrappedFactory: IProtocolFactory,
        creator: IOpenSSLClientConnectionCreator,
        pace: Pace,
        resumption: Resumption | None = None,
    ) -> None:
        self.wrappedFactory = wrappedFactory
        self.creator = creator
        self.pace = pace
        self.resumption = resumption

    @override
    def buildProtocol(self, addr: IAddress | None) -> ClientTlsTransport | None:
        inner = self.wrappedFactory.buildProtocol(cast(IAddress, addr))
        return None if inner is None else ClientTlsTransport(self, inner)


@implementer(IConsumer, IPushProducer)
class ClientTlsTransport(Protocol):
    """
    The client's side of one TLS connection: the transport of the protocol within it.

    Twisted's own joins what is written in one turn, and sends it in the next one; here it leaves at
    once. What is written before the handshake is complete waits for that.

    Where the server ends the connection without a close_notify, the protocol within hears of a
    connection that was lost, not of one that is done: a body may be cut (RFC 8446 §6.1). One that
    sends more than :data:`RECORDS_WITHOUT_DATA` in a row is failed.

    What comes is decrypted in turns (:class:`~twisted_net.turns.paced_input.PacedInput`), and not
    while the protocol within is paused; the end of the connection is told after the rest of it.

    :param factory: what policies expect a TLS connection of Twisted's to have.
    :param inner: the protocol within.
    :ivar wrappedProtocol: it; None when the connection is lost.
    :ivar disconnecting: whether it is to end.
    """

    transport: Any  # Any: of TCP, in no common interface
    _input: PacedInput  # from makeConnection on

    def __init__(self, factory: ClientTlsFactory, inner: IProtocol) -> None:
        self.factory = factory
        # Any: it is not None as long as anything can be delivered.
        self.wrappedProtocol: Any = inner
        self.disconnecting = False
        self._records = RecordCutter()
        self._seconds = factory.pace.seconds
        self._turns = factory.pace.turns
        self._resumption = factory.resumption
        self._connection: Connection | None = None  # as long as the connection below lasts
        self._calls: TlsCalls | None = None  # of it
        self._established = False  # the handshake is complete
        self._over = False  # nothing is decrypted or encrypted any more
        self._paused = False
        self._ending = False  # there is an alert in the piece that is being decrypted
        self._without_data = 0  # records since the last that had data
        self._unsent: list[bytes] = []  # what was written and cannot be encrypted yet
        self._output: _Output | None = None
        self._reason: Failure | None = None  # of the end, known before the connection below ends
        self._lost: Failure | None = None  # the end below, which waits behind what has come

    # --- the connection below calls ---

    @override
    def connectionMade(self) -> None:
        below = cast(Below, self.transport)
        self._input = PacedInput(self._turns, self._seconds, below, self._take_records)
        connection = self.factory.creator.clientConnectionForTLS(cast(Any, self))  # Any: as above
        connection.set_connect_state()
        if self._resumption is not None:
            self._resumption.begin(connection)
        self._connection = connection
        self._calls = tls_calls(connection)
        self.wrappedProtocol.makeConnection(self)
        self._shake_hands()

    @override
    def dataReceived(self, data: bytes) -> None:
        # What follows a close_notify is ignored (RFC 8446 §6.1).
        if self._over:
            return
        dear = len(data) > SMALL_READ or self._turns.busy or not self._established
        if not (dear or self._paused or self._input.due) and self._records.is_record(data):
            # The usual case, a short response: no more than is done of one without TLS.
            self._decrypt(data, 1, whole=True)
            if self._without_data:
                # A KeyUpdate costs as much as a hundred records of data.
                self._turns.mark_busy()
            return
        little = self._established and len(data) <= SMALL_READ
        self._records.keep(data)
        # A record of a handshake costs as much as a hundred of data.
        self._input.arrived(alone=dear, little=little)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._reason is None and reason.check(ConnectionDone):
            reason = Failure(CONNECTION_LOST)
        self._lost = reason
        if self._over or not self._records.ready:
            self._finish()

    # --- its turn has come ---

    def _take_records(self, limit: int, until: float) -> bool:
        """Decrypt records; return whether some are left."""
        records = self._records
        left = records.ready
        began = self._seconds()
        while left and limit > 0 and not (self._over or self._paused):
            begun = records.missing
            piece, ended = records.take(min(limit, UNITS_PER_LOOK))
            self._ending = ended > 1 and has_alert(piece, begun)
            self._decrypt(piece, ended, whole=not (begun or records.unfinished))
            limit -= max(ended, 1)
            left = records.ready
            if left and self._seconds() >= until:
                break
        if self._over:
            records.clear()
            left = False
        if not self._turns.running:
            self._turns.spend(began, self._seconds())
        if not left and self._lost is not None:
            self._finish()
        return left

    def _decrypt(self, piece: bytes, ended: int, *, whole: bool) -> None:
        """Decrypt a piece, in which so many records end, and nothing else where *whole*."""
        calls = self._calls
        assert calls is not None
        calls.put_input(piece)
        established = self._established
        if not established:
            self._shake_hands()
            whole = False
        received: list[bytes] = []
        error = None
        while self._established and not self._over:
            try:
                data = calls.decrypt()
            except Error as raised:
                # Without its frames: this one, which keeps it, is among them.
                error = raised.with_traceback(None)
                break
            if not data:
                break
            received.append(data)
            if whole and len(received) == ended:
                # All that came was data: nothing is left to read, and nothing is to be sent. To
                # find that out by two exceptions would take as long as to decrypt it.
                break
        count = len(received)
        if received:
            # Together, as without TLS: what follows a response in a record of its own would else
            # be taken for the response to the next request, which its caller may make at once.
            self.wrappedProtocol.dataReceived(received[0] if count == 1 else b"".join(received))
        if whole and count == ended:
            self._without_data = 0
            return
        if error is not None and not self._over:
            if isinstance(error, ZeroReturnError):
                self._end_of_input()
            else:
                self._fail(Failure(error))
        if not self._over:
            if established and count < ended and self._resumption is not None:
                self._resumption.got_record(cast(Connection, self._connection))
            self._flush()
            if self._unsent and self._established:
                # Another handshake, which may be over, has kept it.
                self._send_unsent()
            self._count_without_data(ended, count)

    def _count_without_data(self, records: int, with_data: int) -> None:
        if not self._established:
            return
        self._without_data = 0 if with_data else self._without_data + records
        if self._without_data > RECORDS_WITHOUT_DATA:
            self._fail(Failure(Error([("", "", "too many records without data")])))

    # --- the handshake ---

    def _shake_hands(self) -> None:
        """Go on with the handshake; send what waits for it when it is complete."""
        connection = self._connection
        if connection is None or self._over:
            return
        try:
            connection.do_handshake()
        except WantReadError:
            self._flush()
        except Error as error:
            self._fail(Failure(_explained(error, connection)))
        else:
            # A policy may have found the certificate wanting, and have ended the connection.
            if not self._over:
                self._established = True
                if self._resumption is not None:
                    self._resumption.established(connection)
                self._flush()
                self._send_unsent()

    def failVerification(self, reason: Failure) -> None:
        """Drop the connection, as a policy finds that the server's certificate is not for it."""
        self._reason = reason
        self.abortConnection()

    # --- the protocol within calls ---

    def write(self, data: bytes) -> None:
        """Encrypt data and send it, or keep it until the handshake is complete."""
        if self._over or (self.disconnecting and self._output is None):
            return
        if type(data) is not bytes:
            # A producer may write what it reads into: as in TCP's transport, which joins it, that
            # is sent as it is now.
            data = bytes(data)
        if self._established and not self._unsent:
            self._send(data)
        else:
            self._keep(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Encrypt data and send it."""
        self.write(b"".join(data))

    def pauseProducing(self) -> None:
        """Decrypt and read nothing for now."""
        self._paused = True
        self._input.pause()

    def resumeProducing(self) -> None:
        """Go on, in its turn with what has been read already."""
        self._paused = False
        self._input.resume()

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # Any: of either kind
        """
        Pause a push producer while what it writes cannot leave.

        :raises ValueError: for a pull producer: none of this package is one.
        """
        if not streaming:
            raise ValueError("a pull producer cannot write to a TLS connection")
        if self._over:
            producer.stopProducing()
            return
        self._output = _Output(producer)
        self.transport.registerProducer(self._output, True)

    def unregisterProducer(self) -> None:
        """Let go of the producer."""
        if self._output is not None:
            self._output = None
            self.transport.unregisterProducer()
            self._notify_end()

    def loseConnection(self) -> None:
        """
        End the connection once all has been sent: by a close_notify, which the server answers.

        How long it may take is for the caller to limit. Before the handshake it is dropped.
        """
        if self.disconnecting or self._over:
            return
        if not self._established:
            self.abortConnection()
            return
        self.disconnecting = True
        self._notify_end()

    def abortConnection(self) -> None:
        """Drop the connection, and what has been read already."""
        if self.wrappedProtocol is None:
            return
        self._over = self.disconnecting = True
        self._records.clear()
        if self._lost is None:
            self.transport.abortConnection()
        else:
            # Its end waits behind what was left. It is told in a turn, as by a transport.
            self._reason = None
            self._lost = Failure(ConnectionAborted())
            self.resumeProducing()

    def getHandle(self) -> Connection | None:
        """Return the connection of OpenSSL; None when the connection is lost."""
        return self._connection

    def is_ending(self, unread: bytes = b"") -> bool:
        """
        Return whether the server has ended the connection by an alert that is not decrypted yet.

        :param unread: what waits to be read.
        """
        return self._over or self._ending or self._records.has_alert(unread)

    def getPeerCertificate(self) -> Any:  # Any: as ISSLTransport's
        """Return the server's certificate; None before there is one."""
        return None if self._connection is None else self._connection.get_peer_certificate()

    def __getattr__(self, name: str) -> Any:  # Any: what the connection below has besides
        return getattr(self.transport, name)

    # --- within ---

    def _keep(self, data: bytes) -> None:
        self._unsent.append(data)
        if self._output is not None:
            self._output.hold(True)

    def _send_unsent(self) -> None:
        waiting, self._unsent = self._unsent, []
        if waiting:
            self._send(b"".join(waiting))
        if not self._unsent and self._output is not None:
            self._output.hold(False)
        self._notify_end()

    def _send(self, data: bytes) -> None:
        """Encrypt data, and hand it to the connection below."""
        calls = self._calls
        assert calls is not None
        sent, size = 0, len(data)
        while sent < size:
            try:
                taken = calls.encrypt(data[sent : sent + _RECORD])
            except Error:
                self._fail(Failure())
                return
            self._flush()
            sent += taken
            if not taken:
                # The server wants another handshake, of TLS 1.2.
                self._keep(data[sent:])
                break

    def _flush(self) -> None:
        """Send what OpenSSL has to send."""
        calls = self._calls
        assert calls is not None
        while data := calls.take_output():
            send_promptly(self.transport, data)
            if len(data) < AT_ONCE:
                return

    def _notify_end(self) -> None:
        """Send our close_notify, if the connection is to end and all has been sent."""
        if not self.disconnecting or self._over or self._unsent or self._output is not None:
            return
        connection = self._connection
        assert connection is not None
        both = True
        with contextlib.suppress(Error):
            both = connection.shutdown()
        self._flush()
        if both:
            self.transport.loseConnection()

    def _end_of_input(self) -> None:
        """End the connection, as the server has sent its close_notify."""
        # However the connection below ends now, nothing is missing.
        self._reason = Failure(CONNECTION_DONE)
        connection = self._connection
        assert connection is not None
        with contextlib.suppress(Error):
            connection.shutdown()
        self._close()

    def _fail(self, failure: Failure) -> None:
        """End the connection, as TLS has failed; the server gets an alert."""
        if self._resumption is not None:
            self._resumption.failed()
        if failure.check(SysCallError):
            failure = Failure(CONNECTION_LOST)
        self._reason = self._reason or failure
        if not self._over:
            self._close()

    def _close(self) -> None:
        self._over = self.disconnecting = True
        self._flush()
        output, self._output = self._output, None
        if output is None:
            self.transport.loseConnection()
        else:
            # The connection would end only after all that it writes, none of which can leave.
            self.transport.unregisterProducer()
            output.stopProducing()
            self.transport.abortConnection()

    def _finish(self) -> None:
        """Pass the end on to the protocol within."""
        inner, reason = self.wrappedProtocol, self._reason or self._lost
        self._input.stop()
        self._records.clear()
        self._over = True
        if self._connection is not None and self._resumption is not None:
            self._resumption.end(self._connection)
        # They refer to this.
        self._connection = self._calls = self.wrappedProtocol = self._output = None
        self._reason = self._lost = None
        self._unsent.clear()
        inner.connectionLost(reason)


# Not by a decorator: what it has besides is that of the connection below.
classImplements(ClientTlsTransport, ISSLTransport)


@implementer(IPushProducer)
class _Output:
    """Pauses a producer while the server does not read, or TLS cannot encrypt what it writes."""

    __slots__ = ("_held", "_paused", "_producer")

    def __init__(self, producer: IPushProducer) -> None:
        self._producer = producer
        self._held = False  # by TLS
        self._paused = False  # by the connection below

    def hold(self, held: bool) -> None:
        """Pause the producer, or let it go on, as TLS cannot encrypt or can."""
        before, self._held = self._held, held
        if held is not before and not self._paused:
            self._tell(held)

    def pauseProducing(self) -> None:
        """The server does not read."""
        before, self._paused = self._paused, True
        if not (before or self._held):
            self._tell(True)

    def resumeProducing(self) -> None:
        """All has left."""
        before, self._paused = self._paused, False
        if before and not self._held:
            self._tell(False)

    def stopProducing(self) -> None:
        """The connection is lost."""
        self._producer.stopProducing()

    def _tell(self, paused: bool) -> None:
        if paused:
            self._producer.pauseProducing()
        else:
            self._producer.resumeProducing()


def _explained(error: Error, connection: Connection) -> Error:
    """Return an error of a handshake, with what is wrong with the server's certificate."""
    why = verify_failure(connection)
    entries = error.args[0] if error.args else None
    if why is None or not isinstance(entries, list):
        return error
    return Error(
        [
            (*entry[:-1], f"{entry[-1]}: {why}") if "verify failed" in str(entry[-1]) else entry
            for entry in entries
        ]
    )
