"""TLS policy: how a client connects to servers by name, with certificates loaded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cryptography.x509 import (
    Certificate,
    DuplicateExtension,
    InvalidVersion,
    UnsupportedGeneralNameType,
)
from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from twisted_net.config.tls import ClientTlsSettings
from twisted_net.config.type_checks import check_arguments
from twisted_net.errors import ConfigError
from twisted_net.net.addresses import is_numeric
from twisted_net.net.certificates import load_authorities, load_chain, load_key

CIPHERS = (
    b"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:ECDHE+AES:DHE+AES:RSA+AESGCM:RSA+AES:"
    b"!aNULL:!MD5:!DSS"
)
"""
TLS 1.2 ciphers, the best first; TLS 1.3 has its own list. Some servers have none of those that
a server of this package would choose.
"""

_UNREADABLE = (DuplicateExtension, InvalidVersion, UnsupportedGeneralNameType)
"""Errors for certificates that OpenSSL reads and cryptography does not."""


@check_arguments
@implementer(IPolicyForHTTPS)
class TlsPolicy:
    """
    Connects by settings: authorities, a certificate of the client, and whether servers are checked.

    The files are read here, once. Authorities of the system are those that it has now: Twisted's
    own policy loads them for each host, when it connects, and goes on without them if no file can
    be opened then.

    :param authorities: trusted in place of those that the settings name.
    :raises ConfigError: with a line for each file that cannot be used.
    :ivar resumable: whether a connection may resume the session of an earlier one. With a
        certificate of the client it may not: the server is to verify that each time, and one that
        does not name its sessions fails the handshake (SSL_CTX_set_session_id_context(3)).
    """

    _log = Logger()

    def __init__(
        self,
        settings: ClientTlsSettings | None = None,
        *,
        authorities: Sequence[Certificate] | None = None,
    ) -> None:
        settings = settings or ClientTlsSettings()
        self._context = _client_context(settings, authorities)
        self.resumable = not settings.certificate
        if not settings.verify:
            self._log.warn("certificates of servers are not verified, as tls.verify is false")

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        """Return what makes connections to a host, whose certificate must be for this name."""
        return _Creator(self._context, hostname.decode("ascii"))


def check_tls_files(settings: ClientTlsSettings, section: str) -> None:
    """
    Load the files of a client once, to check them.

    :param section: where the settings are, for the message.
    :raises ConfigError: with a line for each file that cannot be used.
    """
    if not (settings.ca or settings.certificate):
        return
    try:
        _client_context(settings, None)
    except ConfigError as error:
        raise ConfigError([f"{section}.{line}" for line in error.mistakes]) from None


def _client_context(
    settings: ClientTlsSettings, authorities: Sequence[Certificate] | None
) -> SSL.Context:
    """Return a client's context for TLS 1.2 and 1.3."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    # A server could have one handshake after the other made.
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    # An idle connection uses a quarter less memory without its buffers.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    if settings.verify:
        context.set_verify(SSL.VERIFY_PEER, _check)
    mistakes: list[str] = []
    if authorities is not None:
        store = context.get_cert_store()
        assert store is not None
        for one in authorities:
            store.add_cert(X509.from_cryptography(one))
    elif settings.ca:
        _load(mistakes, "tls.ca", load_authorities, context, settings.ca)
    elif settings.verify:
        context.set_default_verify_paths()
    if settings.certificate:
        own = "tls.certificate"
        if _load(mistakes, own, load_chain, context, settings.certificate):
            name, key = ("tls.key", settings.key) if settings.key else (own, settings.certificate)
            _load(mistakes, name, load_key, context, key)
    if mistakes:
        raise ConfigError(mistakes)
    # Last: it makes a connection, after which a context is not to be changed.
    context.set_cipher_list(CIPHERS)
    return context


def _load(mistakes: list[str], name: str, load: Callable[..., object], *arguments: object) -> bool:
    """Load a file, note what is wrong with it under its name, and return whether nothing is."""
    try:
        load(*arguments)
    except ConfigError as error:
        mistakes += [f"{name}: {line}" for line in error.mistakes]
        return False
    return True


@implementer(IOpenSSLClientConnectionCreator)
class _Creator:
    """
    Makes connections to one host.

    :param name: of the host, or its address; the certificate must be for it.
    """

    def __init__(self, context: SSL.Context, name: str) -> None:
        self._context = context
        self._name = name

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return a connection that has not begun its handshake."""
        connection = SSL.Connection(self._context, None)
        if not is_numeric(self._name):
            # Not for an address (RFC 6066 §3).
            connection.set_tlsext_host_name(self._name.encode("ascii"))
        connection.set_app_data((tlsProtocol, self._name))
        return connection


def _check(
    connection: SSL.Connection, certificate: X509, code: int, depth: int, trusted: int
) -> bool:
    """
    Return whether a handshake goes on, for each certificate of a server; its own is the last one.

    OpenSSL has found before whether it is trusted. One function for all connections: pyOpenSSL
    keeps that of a single one in a cycle.
    """
    if not trusted or depth > 0:
        return bool(trusted)
    protocol, name = connection.get_app_data()
    try:
        # No certificate is for a name such as 1_000: it is a number to service_identity.
        wanted = IPAddress_ID(name) if is_numeric(name) else DNS_ID(name)
        verify_service_identity(extract_patterns(certificate), [wanted], [])
    except (VerificationError, CertificateError, ValueError, *_UNREADABLE):
        # Twisted's own check accepts a certificate that names no host, or a malformed one.
        protocol.failVerification(Failure(VerificationError([])))
        return False
    return True
