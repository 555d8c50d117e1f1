"""TLS certificates: contexts by host name (SNI), reloaded when their files change."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from twisted_net.config.tls import TlsSettings
from twisted_net.config.type_checks import check_arguments
from twisted_net.errors import ConfigError
from twisted_net.net.files import read_file
from twisted_net.net.log_limiter import limited_logger

CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""TLS 1.2 ciphers with forward secrecy and AEAD; TLS 1.3 has its own list."""

DAY = 86_400.0
"""Seconds; also the interval between two checks of the expiry of all certificates."""

MAX_PEM_SIZE = 4 << 20
"""Bytes of a file with certificates or a key; that of all public authorities has 0.3 MiB."""

MAX_NAME = 64
"""Longest common name accepted as a user's name, in characters (RFC 5280, ub-common-name)."""

DEFAULT = "default"
"""Name in a folder of the certificate for clients without SNI, or with an unknown host."""

_NO_CERTIFICATE = "there is no certificate in it, in PEM"
_NO_KEY = "there is no key in it, in PEM and without a passphrase"

log = Logger()

_PRIVATE_KEY = re.compile(rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.ASCII)


@frozen
class _LoadedContext:
    """A context and its certificate; None in a fallback context without a certificate."""

    context: SSL.Context
    certificate: x509.Certificate | None


class _CertificateFiles:
    """
    The files of one certificate, and the context that was last loaded from them.

    :param files: the files to watch for changes; that of the certificate comes first.
    :param load: loads the context, or raises ConfigError.
    """

    def __init__(self, files: tuple[str, ...], load: Callable[[], _LoadedContext]) -> None:
        self._files = files
        self._load = load
        self._stamps = self._read_stamps()
        self._loaded = load()

    @property
    def certificate(self) -> x509.Certificate | None:
        """The certificate of :attr:`context`."""
        return self._loaded.certificate

    @property
    def context(self) -> SSL.Context:
        """
        The context of the current files.

        If they cannot be used, for example while a pair is being renewed, the last context stays;
        that is logged once for each state of the files.
        """
        stamps = self._read_stamps()
        if stamps != self._stamps:
            self._stamps = stamps
            try:
                self._loaded = self._load()
            except ConfigError as error:
                log.warn("the previous certificate stays in use: {error}", error=error)
            else:
                log.info("renewed: {files}", files=", ".join(self._files))
        return self._loaded.context

    @property
    def gone(self) -> bool:
        """Whether the certificate's file has been removed."""
        return not os.path.exists(self._files[0])

    def _read_stamps(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(file) for file in self._files]


@check_arguments
@implementer(IOpenSSLServerConnectionCreator)
class Certificates:
    """
    A server's certificates, chosen by SNI and reloaded when their files change.

    A client that names a host (SNI) gets from the folder the certificate in ``<host>.pem`` or
    ``<host>/fullchain.pem``, else that in ``*.<domain>.pem``, else the default: ``certificate``,
    or the folder's ``default.pem``. Every handshake checks whether its files have changed, which
    takes some microseconds; new files are found in the same way.

    :param settings: where the files are; TLS must be enabled in it.
    :param wall: returns seconds since 1970.
    :param context: returns a context with its protocol version and no certificate.
    :raises ConfigError: with a line for each certificate that cannot be used.
    """

    def __init__(
        self,
        settings: TlsSettings,
        wall: Callable[[], float],
        context: Callable[[], SSL.Context] | None = None,
    ) -> None:
        self._settings = settings
        self._wall = wall
        self._plain_context = tls_context if context is None else context
        self._sources: dict[str, _CertificateFiles] = {}
        # Each handshake may log that a file cannot be used.
        self._log = limited_logger(self)
        mistakes: list[str] = []
        try:
            self._fallback = self._read_fallback()
            names = _names_in(settings.folder) if settings.folder else []
        except ConfigError as error:
            raise ConfigError(error.mistakes) from None
        for name in names:
            try:
                self._find(name)
            except ConfigError as error:
                mistakes += error.mistakes
        if not self._sources and self._fallback.certificate is None and not mistakes:
            mistakes.append(f"{settings.folder}: there is no certificate in it")
        if mistakes:
            raise ConfigError(mistakes)
        self._warn_of_expiry()

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return a server connection for Twisted's TLS."""
        return self.connection()

    def connection(self) -> SSL.Connection:
        """Return a server connection that awaits a ClientHello."""
        # Not yet checked at that time, if the clock was set back.
        if not 0.0 <= self._wall() - self._checked < DAY:
            self._warn_of_expiry()
        source = None if self._settings.certificate else self._served(DEFAULT)
        return SSL.Connection((source or self._fallback).context, None)

    def seconds_left(self) -> Mapping[str, float]:
        """Return seconds until each certificate expires, by its first host; negative if expired."""
        now = self._wall()
        left: dict[str, float] = {}
        for source in [self._fallback, *self._sources.values()]:
            certificate = source.certificate
            if certificate is not None:
                name = _name_of(certificate)
                seconds = round(certificate.not_valid_after_utc.timestamp() - now, 3)
                left[name] = min(seconds, left.get(name, seconds))
        return left

    def _read_fallback(self) -> _CertificateFiles:
        """Load the default certificate if it has files of its own, else a context without one."""
        settings = self._settings
        if settings.certificate:
            return self._read(settings.certificate, settings.key)
        ca = (settings.client_ca,) if settings.client_ca else ()
        return _CertificateFiles(ca, lambda: _LoadedContext(self._new_context(), None))

    def _read(self, certificate: str, key: str = "") -> _CertificateFiles:
        """Load a certificate and its key, which may be in the same file."""
        files = (certificate, key, self._settings.client_ca)

        def load() -> _LoadedContext:
            context = self._new_context()
            return _LoadedContext(
                context, load_certificate(context, certificate, key or certificate)
            )

        return _CertificateFiles(tuple(file for file in files if file), load)

    def _find(self, name: str) -> _CertificateFiles | None:
        """Return the folder's certificate for a name that is safe as a file name, or None."""
        folder = self._settings.folder
        single = os.path.join(folder, f"{name}.pem")
        chain = os.path.join(folder, name, "fullchain.pem")
        for certificate, key in (single, ""), (chain, os.path.join(folder, name, "privkey.pem")):
            source = self._sources.get(certificate)
            if source is not None and source.gone:
                del self._sources[certificate]
            elif source is None and os.path.exists(certificate):
                source = self._sources[certificate] = self._read(certificate, key)
            if source is not None and not source.gone:
                return source
        return None

    def _served(self, name: str) -> _CertificateFiles | None:
        """Like :meth:`_find`, but an unusable new file is only a warning."""
        if not self._settings.folder:
            return None
        try:
            return self._find(name)
        except ConfigError as error:
            self._log.warn("no certificate for {host}: {error}", host=name, error=error)
            return None

    def _choose(self, connection: SSL.Connection) -> None:
        """Set the certificate for the host that the client names (SNI, RFC 6066 §3)."""
        host = (connection.get_servername() or b"").decode("ascii", "replace").lower()
        if not _HOST.fullmatch(host):
            return
        _, _, domain = host.partition(".")
        source = self._served(host) or (self._served(f"*.{domain}") if domain else None)
        if source is not None:
            connection.set_context(source.context)

    def _new_context(self) -> SSL.Context:
        """
        Return a context without a certificate.

        :raises ConfigError: if the file of authorities for clients' certificates is unusable.
        """
        context = self._plain_context()
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        # OpenSSL otherwise keeps 20 KB of buffers for a connection that is idle.
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        # Without this callback Twisted's own rejects every client that offers ALPN protocols.
        context.set_alpn_select_callback(_no_protocol)
        context.set_tlsext_servername_callback(self._choose)
        client_ca = self._settings.client_ca
        if client_ca:
            # A resumed session would keep a client certificate that was verified long ago.
            context.set_options(SSL.OP_NO_TICKET)
            load_authorities(context, client_ca, named=True)
            required = self._settings.client_certificate == "required"
            context.set_verify(
                SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if required else 0)
            )
        return context

    def _warn_of_expiry(self) -> None:
        """Log the certificates that expire soon or have expired."""
        self._checked = self._wall()
        for name, seconds in self.seconds_left().items():
            if seconds < self._settings.warn_days * DAY:
                log.warn(
                    "the certificate for {host} is valid for {days:.1f} more days",
                    host=name,
                    days=seconds / DAY,
                )


def check_certificates(sections: Mapping[str, TlsSettings], wall: Callable[[], float]) -> None:
    """
    Load all certificates once, to check their files.

    :param sections: settings by their display names; those that are not enabled are skipped.
    :param wall: returns seconds since 1970.
    :raises ConfigError: with a line for each file that cannot be used.
    """
    mistakes: list[str] = []
    for key, settings in sections.items():
        if settings.enabled:
            try:
                Certificates(settings, wall)
            except ConfigError as error:
                mistakes += [f"{key}: {line}" for line in error.mistakes]
    if mistakes:
        raise ConfigError(mistakes)


NAMELESS = ""
"""The identity of a client whose certificate names no user, as :func:`user_of` says."""


def identity_in(certificate: x509.Certificate | None) -> str | None:
    """
    Return what a client's certificate proves it to be.

    :return: the name of a user, who may not exist, or :data:`NAMELESS`; None without a certificate.
    """
    return None if certificate is None else user_of(certificate) or NAMELESS


def user_of(certificate: x509.Certificate) -> str | None:
    """
    Return the user that a client's certificate names by its common name.

    :return: None if it has no common name, several, or one that is not a valid user name:
        with unprintable characters, or longer than :data:`MAX_NAME`.
    """
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        return None
    name = str(names[0].value)
    return name if name.isprintable() and 0 < len(name) <= MAX_NAME else None


def tls_context() -> SSL.Context:
    """Return a server context for TLS 1.2 and 1.3."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(CIPHERS)
    return context


def load_certificate(context: SSL.Context, certificate: str, key: str) -> x509.Certificate:
    """
    Load a certificate, its chain and its key into a context.

    :return: the certificate.
    :raises ConfigError: if they cannot be read, or do not match.
    """
    first = load_chain(context, certificate)
    load_key(context, key)
    return first


def load_chain(context: SSL.Context, file: str) -> x509.Certificate:
    """
    Load a certificate and its chain into a context.

    :return: the certificate.
    :raises ConfigError: if they cannot be read.
    """
    try:
        first = x509.load_pem_x509_certificates(read_file(file, MAX_PEM_SIZE))[0]
        context.use_certificate_chain_file(file)
    except (SSL.Error, OSError, ValueError):
        raise _unusable(file, _NO_CERTIFICATE) from None
    return first


def load_key(context: SSL.Context, file: str) -> None:
    """
    Load the key of the certificate that a context has.

    :raises ConfigError: if it cannot be read, or is that of another certificate.
    """
    try:
        # Not by OpenSSL, which would prompt for a passphrase at the terminal and block.
        key = _load_key(read_file(file, MAX_PEM_SIZE))
    except (OSError, ValueError):
        raise _unusable(file, _NO_KEY) from None
    try:
        context.use_privatekey(key)
        context.check_privatekey()
    except (SSL.Error, TypeError):
        # OpenSSL has several errors for this: one of another kind has no certificate, to it.
        raise ConfigError([f"{file}: this key is not the certificate's"]) from None


def load_authorities(context: SSL.Context, file: str, named: bool = False) -> None:
    """
    Make a context trust the authorities in a file.

    :param named: whether to send their names to clients (certificate_authorities).
    :raises ConfigError: if the file cannot be read.
    """
    try:
        # OpenSSL would wait for a writer of a pipe, and read a device without an end.
        read_file(file, MAX_PEM_SIZE)
        context.load_verify_locations(file)
        if named:
            context.load_client_ca(os.fsencode(file))
    except (SSL.Error, OSError):
        raise _unusable(file, _NO_CERTIFICATE) from None


def _unusable(file: str, missing: str) -> ConfigError:
    """
    Return the error for a file.

    :param missing: what is wrong with it if it can be read.
    """
    try:
        read_file(file, MAX_PEM_SIZE)
    except OSError as error:
        missing = str(error.strerror)
    return ConfigError([f"{file}: {missing}"])


def _names_in(folder: str) -> list[str]:
    """
    Return the names of the certificates in a folder.

    :raises ConfigError: if it cannot be read.
    """
    try:
        entries = sorted(os.listdir(folder))
    except OSError as error:
        raise ConfigError([f"{folder}: {error.strerror}"]) from None
    return [
        entry.removesuffix(".pem")
        for entry in entries
        if entry.endswith(".pem") or os.path.exists(os.path.join(folder, entry, "fullchain.pem"))
    ]


def _name_of(certificate: x509.Certificate) -> str:
    """Return the first host in a certificate, or its subject if it names no host."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = extension.value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = []
    return names[0] if names else certificate.subject.rfc4514_string()


def _stamp(file: str) -> tuple[int, int, int] | None:
    """Return what identifies one state of a file; None if it does not exist."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _no_protocol(connection: SSL.Connection, offered: list[bytes]) -> Any:  # Any: private type
    return SSL.NO_OVERLAPPING_PROTOCOLS


def _load_key(pem: bytes) -> Any:  # Any: PyOpenSSL takes those types that are keys for TLS
    """
    Load the private key from the contents of a PEM file.

    :raises ValueError: if there is none, or it is encrypted.
    """
    found = _PRIVATE_KEY.search(pem)
    try:
        return serialization.load_pem_private_key(found[0] if found else b"", None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(str(error)) from None
