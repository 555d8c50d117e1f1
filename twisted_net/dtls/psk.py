"""Pre-shared keys of DTLS (RFC 4279): keys by identity, from a file, and the contexts for them."""

from __future__ import annotations

import tomllib
from collections.abc import Callable

from OpenSSL import SSL

from twisted_net.dtls.psk_callbacks import ask_for_key, prove_by_key
from twisted_net.dtls.settings import DtlsClientSettings, DtlsSettings
from twisted_net.errors import ConfigError
from twisted_net.net.files import read_file
from twisted_net.twisted_internals import psk_changes

MIN_KEY = 16
"""Bytes of the shortest key: whoever records a handshake tries keys without asking the server."""

MAX_KEY = 64
"""Bytes of the longest key that every implementation takes (RFC 4279 §5.3)."""

MAX_FILE = 1 << 24
"""Bytes of the longest file of keys: some 100,000 devices."""

MAX_IDENTITY = 128
"""Bytes of the longest identity that every implementation takes (RFC 4279 §5.3)."""

CIPHERS = (
    b"ECDHE-PSK-CHACHA20-POLY1305:PSK-AES128-GCM-SHA256:PSK-AES256-GCM-SHA384"
    b":PSK-CHACHA20-POLY1305:PSK-AES128-CCM:PSK-AES256-CCM:PSK-AES128-CCM8"
    # The last is the one that each device has (RFC 7252 §9.1.3.1). OpenSSL counts its tag of 8
    # bytes as weak, and offers it at this level alone; a context of these ciphers has no
    # certificate and no DHE, whose strength the level would lower too.
    b":@SECLEVEL=0"
)

SUITES = frozenset(
    bytes.fromhex(number) for number in ("ccac", "00a8", "00a9", "ccab", "c0a4", "c0a5", "c0a8")
)
"""The numbers of these, as a ClientHello has them (RFC 5487, 6655, 7905)."""


def load_keys(path: str) -> dict[str, bytes]:
    """
    Return the keys in a file, by identity: TOML, ``device-7 = "00112233..."`` in hexadecimal.

    :raises ConfigError: if it cannot be read, or a key or an identity is too short or too long.
        The message holds no key.
    """
    try:
        table = tomllib.loads(read_file(path, MAX_FILE).decode())
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from None
    except (ValueError, RecursionError):
        # The parser's message may show a part of a key.
        raise ConfigError([f"{path}: it is not TOML"]) from None
    keys: dict[str, bytes] = {}
    mistakes = [] if table else [f"{path}: it has no keys"]
    for identity, value in table.items():
        try:
            key = bytes.fromhex(value)
        except (TypeError, ValueError):
            mistakes.append(f"{path}: the key of {identity} is not text in hexadecimal")
            continue
        if not MIN_KEY <= len(key) <= MAX_KEY:
            mistakes.append(
                f"{path}: the key of {identity} has {len(key)} bytes, not {MIN_KEY} to {MAX_KEY}"
            )
        if not 0 < len(identity.encode()) <= MAX_IDENTITY or "\0" in identity:
            mistakes.append(f"{path}: an identity has 1 to {MAX_IDENTITY} bytes, and no NUL")
        keys[identity] = key
    if mistakes:
        raise ConfigError(mistakes)
    return keys


class PskServer:
    """
    The server's side: finds the key of the identity that a client names.

    :param find: returns the key of an identity, or None; it is called during handshakes.
    :param new_context: makes a context without certificate and ciphers.
    :raises ConfigError: if the versions of pyOpenSSL and OpenSSL have no pre-shared keys.
    """

    def __init__(
        self, find: Callable[[str], bytes | None], new_context: Callable[[], SSL.Context]
    ) -> None:
        _check_support()
        self._find = find
        self._named: str | None = None
        self._context = new_context()
        self._context.set_cipher_list(CIPHERS)
        # A session that is resumed asks for no key, so that its identity would not be known.
        self._context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        self._context.set_options(
            SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION
        )
        ask_for_key(self._context, self._key_of)

    def connection(self) -> SSL.Connection:
        """Return a connection for one client."""
        return SSL.Connection(self._context, None)

    def take_identity(self) -> str | None:
        """
        Return the identity that a client has named since the last call, or None.

        A handshake is processed in one call of OpenSSL: ask before and after it.
        """
        named, self._named = self._named, None
        return named

    def _key_of(self, identity: bytes) -> bytes | None:
        try:
            text = identity.decode()
        except UnicodeDecodeError:
            return None
        key = self._find(text)
        if key is not None:
            self._named = text
        return key


def check_keys_given(keys: PskServer | None, settings: DtlsSettings) -> PskServer | None:
    """
    Return the keys of a server, once it is clear that the ones in its settings are among them.

    :raises ValueError: if the settings name a file, but no keys are given: all devices that have
        one would be refused.
    """
    if keys is None and settings.psk:
        raise ValueError(
            f"DtlsServer: settings.psk is {settings.psk}, but there is no argument psk;"
            " pass psk=DtlsServer.make_psk(settings)"
        )
    return keys


def use_client_key(context: SSL.Context, settings: DtlsClientSettings) -> None:
    """
    Let a client's context identify itself by the one key in the file ``psk``, and nothing else.

    The server is authenticated by the same key: it has no certificate.

    :raises ConfigError: if there is not one key, or the versions have no pre-shared keys.
    """
    _check_support()
    keys = load_keys(settings.psk)
    if len(keys) != 1:
        raise ConfigError([f"{settings.psk}: a client has one key, not {len(keys)}"])
    ((identity, key),) = keys.items()
    context.set_cipher_list(CIPHERS)
    prove_by_key(context, identity.encode(), key)


def offers_psk(suites: bytes) -> bool:
    """Whether a list of cipher suites in a ClientHello has one of :data:`SUITES`."""
    return any(suites[at : at + 2] in SUITES for at in range(0, len(suites) - 1, 2))


def _check_support() -> None:
    if changes := psk_changes():
        raise ConfigError(
            [f"psk: this version of pyOpenSSL has no pre-shared keys ({', '.join(changes)})"]
        )
