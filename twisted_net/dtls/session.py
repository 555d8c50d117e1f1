"""One DTLS session: OpenSSL between datagrams and datagrams, without a socket or a clock."""

from __future__ import annotations

from cryptography import x509
from OpenSSL import SSL
from twisted.internet.error import MessageLengthError

from twisted_net.dtls.errors import DtlsFailed
from twisted_net.dtls.records import LONGEST_RECORD, ClientHello, pack
from twisted_net.dtls.settings import DtlsClientSettings
from twisted_net.net.certificates import CIPHERS, load_authorities, load_certificate

_DTLS_1_2 = 0xFEFD
_CIPHERS = CIPHERS + b":ECDHE+AESCCM"


class DtlsSession:
    """
    One side of a DTLS session.

    Feed it each datagram of its peer by :meth:`receive`. After that, and after any other call,
    let :meth:`datagrams` leave. While the handshake goes on call :meth:`retransmit` at :attr:`due`.

    OpenSSL counts the seconds to a retransmission by a clock of its own; a call that comes too
    early does nothing.

    :param connection: with a context that :func:`server_context` or :func:`client_context` made.
    :param mtu: bytes of the longest datagram that leaves.
    :ivar established: whether the handshake is over, so that data can be sent.
    :ivar ended: whether the peer has said that no more will come.
    :ivar due: when to call :meth:`retransmit`; None where nothing waits for it.
    :ivar max_payload: bytes of the longest datagram that can be sent; 0 until it is established.
    """

    __slots__ = ("_connection", "_mtu", "due", "ended", "established", "max_payload")

    def __init__(self, connection: SSL.Connection, mtu: int) -> None:
        self._connection = connection
        self._mtu = mtu
        self.established = False
        self.ended = False
        self.due: float | None = None
        self.max_payload = 0
        connection.set_ciphertext_mtu(mtu)

    def accept(self, datagram: bytes, hello: ClientHello, now: float) -> None:
        """
        Begin as a server.

        :param datagram: a ClientHello, or its first fragment.
        :param hello: what was read of it; its cookie was found to be good.
        :raises DtlsFailed: where OpenSSL takes it for none, or for one that cannot be answered.
        """
        connection = self._connection
        connection.set_app_data(hello.cookie)
        connection.set_accept_state()
        connection.bio_write(datagram)
        try:
            connection.DTLSv1_listen()
        except SSL.Error as error:
            raise DtlsFailed(_reason(error)) from None
        self._shake(now)

    def greet(self, name: str, now: float) -> None:
        """
        Begin as a client.

        :param name: the server's, which it may have a certificate of its own for; may be empty.
        """
        connection = self._connection
        connection.set_connect_state()
        if name:
            connection.set_tlsext_host_name(name.encode())
        self._shake(now)

    def receive(self, datagram: bytes, now: float) -> list[bytes]:
        """
        Take in a datagram, and give those that were in it.

        What was not sent by the peer, or comes again, is passed over in silence.

        :raises DtlsFailed: where the session cannot go on; an alert to the peer may be due.
        """
        received: list[bytes] = []
        if not datagram or self.ended:
            return received
        self._connection.bio_write(datagram)
        if not self.established:
            self._shake(now)
            if not self.established:
                return received
        try:
            while True:
                received.append(self._connection.recv(LONGEST_RECORD))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.ended = True
        except SSL.Error as error:
            raise DtlsFailed(_reason(error)) from None
        return received

    def send(self, payload: bytes) -> None:
        """
        Send a datagram; the session must be established.

        :raises MessageLengthError: for one that is empty, which DTLS cannot send, or longer than
            :attr:`max_payload`: OpenSSL would let it through, and networks would not.
        """
        if not 0 < len(payload) <= self.max_payload:
            raise MessageLengthError(
                f"a datagram of {len(payload)} bytes; DTLS takes 1 to {self.max_payload} here"
            )
        try:
            self._connection.send(payload)
        except SSL.Error as error:
            raise DtlsFailed(_reason(error)) from None

    def close(self) -> None:
        """Tell the peer that no more will come, if the session is established."""
        if self.established:
            try:
                self._connection.shutdown()
            except SSL.Error:
                # It failed before: there is nobody to be told.
                self.ended = True

    def retransmit(self, now: float) -> None:
        """
        Send again what has got no answer in its time.

        :raises DtlsFailed: where that was done too often.
        """
        try:
            self._connection.DTLSv1_handle_timeout()
        except SSL.Error as error:
            raise DtlsFailed(_reason(error)) from None
        self._set_due(now)

    def datagrams(self) -> list[bytes]:
        """Give the datagrams that are to leave."""
        datagrams: list[bytes] = []
        try:
            while True:
                datagrams += pack(self._connection.bio_read(1 << 20), self._mtu)
        except SSL.WantReadError:
            return datagrams

    @property
    def certificate(self) -> x509.Certificate | None:
        """The peer's certificate, where it has shown one."""
        return self._connection.get_peer_certificate(as_cryptography=True)

    def check_name(self, name: str, numeric: bool) -> None:
        """
        Find the peer's certificate to be that of a host (RFC 6125, RFC 9525).

        :param numeric: whether *name* is an address.
        :raises DtlsFailed: where it is another's.
        """
        # Not at the top: servers do not need it.
        from service_identity import CertificateError, VerificationError
        from service_identity.pyopenssl import verify_hostname, verify_ip_address

        try:
            (verify_ip_address if numeric else verify_hostname)(self._connection, name)
        except (VerificationError, CertificateError):
            raise DtlsFailed(f"the server's certificate is not for {name}") from None

    def _shake(self, now: float) -> None:
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            raise DtlsFailed(_reason(error)) from None
        else:
            self.established = True
            self.max_payload = min(self._connection.get_cleartext_mtu(), LONGEST_RECORD)
        self._set_due(now)

    def _set_due(self, now: float) -> None:
        seconds = self._connection.DTLSv1_get_timeout()
        self.due = None if seconds is None else now + seconds


def server_context() -> SSL.Context:
    """
    Make a server's context for DTLS 1.2, without a certificate.

    Those cookies are good that were found to be so before OpenSSL hears of the client.
    """
    context = _context(SSL.DTLS_SERVER_METHOD)
    context.set_cookie_verify_callback(
        lambda connection, cookie: bool(cookie == connection.get_app_data())
    )
    return context


def client_context(settings: DtlsClientSettings) -> SSL.Context:
    """
    Make a client's context for DTLS 1.2.

    :raises ConfigError: for files that cannot be used.
    """
    context = _context(SSL.DTLS_CLIENT_METHOD)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
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
    # Without it OpenSSL asks the socket, which there is none of, and forgets the MTU that is set.
    context.set_options(SSL.OP_NO_QUERY_MTU)
    # An idle session is smaller by a quarter without buffers that it does not need.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    return context


def _reason(error: SSL.Error) -> str:
    """Say what OpenSSL did not like, in its own words."""
    parts = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return "; ".join(str(part[-1]) for part in parts if part[-1]) or "it broke off"
