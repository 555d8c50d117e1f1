"""DTLS session: one side of a DTLS 1.2 connection over OpenSSL, without a socket."""

from __future__ import annotations

from typing import Protocol

from cryptography import x509
from OpenSSL import SSL
from twisted.internet.error import MessageLengthError

from twisted_net.config.type_checks import check_arguments
from twisted_net.dtls.cookies import ClientHello
from twisted_net.dtls.errors import DtlsFailed
from twisted_net.dtls.records import MAX_PLAINTEXT, first_records, pack_records
from twisted_net.dtls.settings import DtlsClientSettings
from twisted_net.net.certificates import CIPHERS, load_authorities, load_certificate
from twisted_net.net.tls_reason import tls_reason

MAX_RETRANSMISSION = 60.0
"""Longest retransmission timeout, in seconds (RFC 6347 §4.2.4.1)."""

_DTLS_1_2 = 0xFEFD
_CIPHERS = CIPHERS + b":ECDHE+AESCCM"


class TakesIdentity(Protocol):
    """See :class:`~twisted_net.dtls.psk.PskServer`."""

    def take_identity(self) -> str | None:
        """Return the identity that a client has named since the last call, or None."""


class DtlsSession:
    """
    One side of a DTLS session.

    Pass each datagram of the peer to :meth:`receive`. After this and any other call, send what
    :meth:`datagrams` returns. During the handshake, call :meth:`retransmit` at :attr:`due`.

    OpenSSL measures the retransmission timeout by the wall clock; a call that is too early does
    nothing. If that clock is set back, a lost flight of a handshake under way is not retransmitted:
    the handshake ends by its own time limit.

    :param connection: its context is made by :func:`server_context` or :func:`client_context`.
    :param mtu: longest datagram sent, in bytes.
    :param psk: what has made the connection, if it is for pre-shared keys.
    :ivar psk_identity: the identity whose pre-shared key the client has, once established.
    :ivar established: whether the handshake is complete, so that data can be sent.
    :ivar ended: whether the peer has sent a close_notify.
    :ivar due: when to call :meth:`retransmit`; None if nothing awaits an answer.
    :ivar max_payload: longest payload that can be sent, in bytes; 0 until established.
    """

    __slots__ = (
        "_connection",
        "_mtu",
        "_psk",
        "due",
        "ended",
        "established",
        "max_payload",
        "psk_identity",
    )

    def __init__(
        self, connection: SSL.Connection, mtu: int, psk: TakesIdentity | None = None
    ) -> None:
        self._connection = connection
        self._psk = psk
        self.psk_identity: str | None = None
        self._mtu = mtu
        self.established = False
        self.ended = False
        self.due: float | None = None
        self.max_payload = 0
        connection.set_ciphertext_mtu(mtu)

    def accept(self, datagram: bytes, hello: ClientHello, now: float) -> None:
        """
        Start the handshake as a server.

        :param datagram: a ClientHello, or its first fragment.
        :param hello: the same, parsed; its cookie must have been verified.
        :raises DtlsFailed: if OpenSSL rejects the ClientHello.
        """
        connection = self._connection
        connection.set_app_data(hello.cookie)
        connection.set_accept_state()
        connection.bio_write(datagram)
        try:
            connection.DTLSv1_listen()
        except SSL.Error as error:
            raise DtlsFailed(tls_reason(error)) from None
        self._do_handshake(now)

    def connect(self, name: str, now: float) -> None:
        """
        Start the handshake as a client.

        :param name: the server's name, for SNI; empty to send none.
        """
        connection = self._connection
        connection.set_connect_state()
        if name:
            connection.set_tlsext_host_name(name.encode())
        self._do_handshake(now)

    def receive(self, datagram: bytes, now: float) -> list[bytes]:
        """
        Take in a datagram, and return the payloads of its records.

        Records that are forged or repeated are ignored, and those behind the first
        :data:`~twisted_net.dtls.records.MAX_RECORDS`.

        :raises DtlsFailed: if the session cannot continue; :meth:`datagrams` may then have an
            alert for the peer.
        """
        received: list[bytes] = []
        if not datagram or self.ended:
            return received
        self._connection.bio_write(first_records(datagram))
        if not self.established:
            self._do_handshake(now)
            if not self.established:
                return received
        try:
            while True:
                received.append(self._connection.recv(MAX_PLAINTEXT))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.ended = True
        except SSL.Error as error:
            raise DtlsFailed(tls_reason(error)) from None
        return received

    def send(self, payload: bytes) -> None:
        """
        Send a payload; the session must be established.

        :raises MessageLengthError: if it is empty, which DTLS cannot send, or longer than
            :attr:`max_payload`, which OpenSSL would send and networks would drop or fragment.
        :raises DtlsFailed: if the session cannot continue.
        """
        if not 0 < len(payload) <= self.max_payload:
            raise MessageLengthError(
                f"a datagram of {len(payload)} bytes; DTLS sends 1 to {self.max_payload} here"
            )
        try:
            self._connection.send(payload)
        except SSL.Error as error:
            raise DtlsFailed(tls_reason(error)) from None

    def close(self) -> None:
        """Send a close_notify, if the session is established."""
        if self.established:
            try:
                self._connection.shutdown()
            except SSL.Error:
                # It failed before: the peer cannot be notified.
                self.ended = True

    def retransmit(self, now: float) -> None:
        """
        Retransmit the last flight of the handshake, if its timeout is over.

        :raises DtlsFailed: after too many retransmissions.
        """
        try:
            self._connection.DTLSv1_handle_timeout()
        except SSL.Error as error:
            raise DtlsFailed(tls_reason(error)) from None
        self._set_due(now)

    def datagrams(self) -> list[bytes]:
        """Return the datagrams to send."""
        datagrams: list[bytes] = []
        try:
            while True:
                datagrams += pack_records(self._connection.bio_read(1 << 20), self._mtu)
        except SSL.WantReadError:
            return datagrams

    @property
    def certificate(self) -> x509.Certificate | None:
        """The peer's certificate, if it has sent one."""
        return self._connection.get_peer_certificate(as_cryptography=True)

    def check_name(self, name: str, numeric: bool) -> None:
        """
        Verify that the peer's certificate is for a host (RFC 6125, RFC 9525).

        :param numeric: whether *name* is an IP address.
        :raises DtlsFailed: if it is not.
        """
        # Imported here, as servers do not need it.
        from service_identity import CertificateError, VerificationError
        from service_identity.pyopenssl import verify_hostname, verify_ip_address

        try:
            (verify_ip_address if numeric else verify_hostname)(self._connection, name)
        except (VerificationError, CertificateError):
            raise DtlsFailed(f"the server's certificate is not for {name}") from None

    def _do_handshake(self, now: float) -> None:
        psk = self._psk
        if psk is not None:
            psk.take_identity()  # of another session, whose handshake failed
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            raise DtlsFailed(tls_reason(error)) from None
        else:
            self.established = True
            self.max_payload = min(self._connection.get_cleartext_mtu(), MAX_PLAINTEXT)
        if psk is not None:
            self.psk_identity = psk.take_identity() or self.psk_identity
        self._set_due(now)

    def _set_due(self, now: float) -> None:
        seconds = self._connection.DTLSv1_get_timeout()
        self.due = None if seconds is None else now + min(seconds, MAX_RETRANSMISSION)


@check_arguments
def server_context() -> SSL.Context:
    """
    Return a server's context for DTLS 1.2, without a certificate.

    Cookies are verified before OpenSSL gets the ClientHello; its callback accepts those.
    """
    context = _context(SSL.DTLS_SERVER_METHOD)
    context.set_cookie_verify_callback(
        lambda connection, cookie: bool(cookie == connection.get_app_data())
    )
    return context


@check_arguments
def client_context(settings: DtlsClientSettings) -> SSL.Context:
    """
    Return a client's context for DTLS 1.2.

    :raises ConfigError: for files that cannot be used.
    """
    context = _context(SSL.DTLS_CLIENT_METHOD)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    if settings.psk:
        # Not at the top: few use it.
        from twisted_net.dtls.psk import use_client_key

        use_client_key(context, settings)
        return context
    if settings.verify:
        context.set_verify(SSL.VERIFY_PEER)
    if settings.ca:
        load_authorities(context, settings.ca)
    else:
        context.set_default_verify_paths()
    if settings.certificate:
        load_certificate(context, settings.certificate, settings.key or settings.certificate)
    return context


def _context(method: int) -> SSL.Context:
    context = SSL.Context(method)
    context.set_min_proto_version(_DTLS_1_2)
    context.set_max_proto_version(_DTLS_1_2)
    context.set_cipher_list(_CIPHERS)
    # Otherwise OpenSSL queries the socket, of which there is none, and ignores the MTU set.
    context.set_options(SSL.OP_NO_QUERY_MTU)
    # An idle session uses a quarter less memory without its buffers.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    return context
