"""Certificates by host name, read anew when their files change: contexts for TLS handshakes."""

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
from twisted_net.errors import ConfigError

CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2, those with forward secrecy and authenticated encryption; TLS 1.3 has its own."""

DAY = 86_400.0
"""Seconds; also the time between two looks at the ends of all certificates."""

MAX_NAME = 64
"""Characters of the longest common name that is taken as a user's (RFC 5280, ub-common-name)."""

DEFAULT = "default"
"""In a folder, the name of the certificate for clients that name no host, or an unknown one."""

log = Logger()

_PRIVATE_KEY = re.compile(rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.ASCII)


@frozen
class _Made:
    """A context, and the certificate in it; the context for clients of no known host has none."""

    context: SSL.Context
    certificate: x509.Certificate | None


class _Source:
    """
    Some files, and the context that was last made of them.

    :param files: all whose change makes another context; that of the certificate comes first.
    :param make: makes the context, or raises ConfigError.
    """

    def __init__(self, files: tuple[str, ...], make: Callable[[], _Made]) -> None:
        self._files = files
        self._make = make
        self._stamps = self._look()
        self._made = make()

    @property
    def certificate(self) -> x509.Certificate | None:
        """The certificate of :attr:`context`."""
        return self._made.certificate

    @property
    def context(self) -> SSL.Context:
        """
        The context of the files as they are now.

        Files that cannot be used, as half of a pair that is being renewed, leave it as it was;
        that is logged once for each state that they are in.
        """
        stamps = self._look()
        if stamps != self._stamps:
            self._stamps = stamps
            try:
                self._made = self._make()
            except ConfigError as error:
                log.warn("the certificate in use stays: {error}", error=error)
            else:
                log.info("renewed: {files}", files=", ".join(self._files))
        return self._made.context

    @property
    def gone(self) -> bool:
        """Whether its certificate was taken away."""
        return not os.path.exists(self._files[0])

    def _look(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(file) for file in self._files]


@implementer(IOpenSSLServerConnectionCreator)
class Certificates:
    """
    Makes the server's side of TLS connections, each with the certificate for its host.

    A client that names a host (SNI) gets, out of the folder, the certificate in ``<host>.pem`` or
    in ``<host>/fullchain.pem``, else the one in ``*.<domain>.pem``, else the default one: that of
    ``certificate``, or the folder's ``default.pem``. Every handshake looks whether its files have
    changed, which takes some microseconds; files with a new name are found in the same way.

    :param settings: where the files are; TLS must be enabled in it.
    :param wall: gives the seconds of the wall clock.
    :param context: makes a context that knows its protocol, and no certificate.
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
        self._sources: dict[str, _Source] = {}
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
        self._warn_of_ends()

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Make a connection for Twisted's TLS."""
        return self.connection()

    def connection(self) -> SSL.Connection:
        """Make a connection that waits for a client's greeting."""
        if self._wall() >= self._next_look:
            self._warn_of_ends()
        source = None if self._settings.certificate else self._served(DEFAULT)
        return SSL.Connection((source or self._fallback).context, None)

    def seconds_left(self) -> Mapping[str, float]:
        """Tell for how long each certificate holds, by the first host in it; negative if past."""
        now = self._wall()
        left: dict[str, float] = {}
        for source in [self._fallback, *self._sources.values()]:
            certificate = source.certificate
            if certificate is not None:
                name = _name_of(certificate)
                seconds = round(certificate.not_valid_after_utc.timestamp() - now, 3)
                left[name] = min(seconds, left.get(name, seconds))
        return left

    def _read_fallback(self) -> _Source:
        """Read the default certificate where it has files of its own, or make do without any."""
        settings = self._settings
        if settings.certificate:
            return self._read(settings.certificate, settings.key)
        ca = (settings.client_ca,) if settings.client_ca else ()
        return _Source(ca, lambda: _Made(self._new_context(), None))

    def _read(self, certificate: str, key: str = "") -> _Source:
        """Read a certificate and its key, which may be in the same file."""
        files = (certificate, key, self._settings.client_ca)

        def make() -> _Made:
            context = self._new_context()
            return _Made(context, load_certificate(context, certificate, key or certificate))

        return _Source(tuple(file for file in files if file), make)

    def _find(self, name: str) -> _Source | None:
        """Find a certificate of the folder by its name, which is safe as that of a file."""
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

    def _served(self, name: str) -> _Source | None:
        """Find as :meth:`_find` does, where a new file that cannot be used is but a warning."""
        if not self._settings.folder:
            return None
        try:
            return self._find(name)
        except ConfigError as error:
            log.warn("no certificate for {host}: {error}", host=name, error=error)
            return None

    def _choose(self, connection: SSL.Connection) -> None:
        """Take the certificate for the host that the client names (RFC 6066 §3)."""
        host = (connection.get_servername() or b"").decode("ascii", "replace").lower()
        if not _HOST.fullmatch(host):
            return
        _, _, domain = host.partition(".")
        source = self._served(host) or (self._served(f"*.{domain}") if domain else None)
        if source is not None:
            connection.set_context(source.context)

    def _new_context(self) -> SSL.Context:
        """
        Make a context without a certificate.

        :raises ConfigError: where the file of those who sign clients' certificates is unusable.
        """
        context = self._plain_context()
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        # Without this callback Twisted's refuses every client that offers protocols by ALPN.
        context.set_alpn_select_callback(_no_protocol)
        context.set_tlsext_servername_callback(self._choose)
        client_ca = self._settings.client_ca
        if client_ca:
            # A resumed session would bring along a certificate that was checked long ago.
            context.set_options(SSL.OP_NO_TICKET)
            load_authorities(context, client_ca, named=True)
            required = self._settings.client_certificate == "required"
            context.set_verify(
                SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if required else 0)
            )
        return context

    def _warn_of_ends(self) -> None:
        """Log the certificates that end soon, or have ended."""
        self._next_look = self._wall() + DAY
        for name, seconds in self.seconds_left().items():
            if seconds < self._settings.warn_days * DAY:
                log.warn(
                    "the certificate for {host} is valid for {days:.1f} more days",
                    host=name,
                    days=seconds / DAY,
                )


def check_certificates(sections: Mapping[str, TlsSettings], wall: Callable[[], float]) -> None:
    """
    Read all certificates once, to find what is wrong with their files.

    :param sections: settings by their keys, for people; those that are not enabled are left out.
    :param wall: gives the seconds of the wall clock.
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


def user_of(certificate: x509.Certificate) -> str | None:
    """
    Give the common name of a client's certificate, which is the user that it stands for.

    :return: None where it has no common name, several, or one that no user may have: one with
        characters that do not print, or over :data:`MAX_NAME` of them.
    """
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        return None
    name = str(names[0].value)
    return name if name.isprintable() and 0 < len(name) <= MAX_NAME else None


def tls_context() -> SSL.Context:
    """Make a server's context for TLS 1.2 and 1.3 over a stream."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(CIPHERS)
    return context


def load_certificate(context: SSL.Context, certificate: str, key: str) -> x509.Certificate:
    """
    Put a certificate, its chain and its key into a context.

    :raises ConfigError: where they cannot be read, or do not belong together.
    """
    file = certificate
    try:
        with open(certificate, "rb") as opened:
            first = x509.load_pem_x509_certificates(opened.read())[0]
        context.use_certificate_chain_file(certificate)
        file = key
        with open(key, "rb") as opened:
            # Not by OpenSSL, which asks for a passphrase at the terminal, while everything waits.
            context.use_privatekey(_load_key(opened.read()))
        context.check_privatekey()
    except (SSL.Error, OSError, ValueError) as error:
        raise ConfigError([f"{file}: {_reason(error, file)}"]) from None
    return first


def load_authorities(context: SSL.Context, file: str, named: bool = False) -> None:
    """
    Have a context believe the certificates that are signed by those in a file.

    :param named: whether clients are told who these are.
    :raises ConfigError: where it cannot be read.
    """
    try:
        context.load_verify_locations(file)
        if named:
            context.load_client_ca(os.fsencode(file))
    except SSL.Error as error:
        raise ConfigError([f"{file}: {_reason(error, file)}"]) from None


def _reason(error: Exception, file: str) -> str:
    """Say what is wrong with a file."""
    try:
        with open(file, "rb"):
            pass
    except OSError as unreadable:
        return str(unreadable.strerror)
    if isinstance(error, SSL.Error) and any("mismatch" in str(part) for part in error.args):
        return "this key is not the certificate's"
    return "there is no certificate or key in it, in PEM and without a passphrase"


def _names_in(folder: str) -> list[str]:
    """
    Name the certificates of a folder.

    :raises ConfigError: where it cannot be read.
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
    """Give the first host in a certificate, or its subject where there is none."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = extension.value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = []
    return names[0] if names else certificate.subject.rfc4514_string()


def _stamp(file: str) -> tuple[int, int, int] | None:
    """Give what differs between one state of a file and the next."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _no_protocol(connection: SSL.Connection, offered: list[bytes]) -> Any:  # Any: private type
    return SSL.NO_OVERLAPPING_PROTOCOLS


def _load_key(pem: bytes) -> Any:  # Any: PyOpenSSL takes those types that are keys for TLS
    """
    Find the private key among what a file holds.

    :raises ValueError: where there is none, or one with a passphrase.
    """
    found = _PRIVATE_KEY.search(pem)
    try:
        return serialization.load_pem_private_key(found[0] if found else b"", None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(str(error)) from None
