"""
TLS calls: what the HTTP client calls for each record that it sends or gets.

A record in pyOpenSSL's own methods takes some 8 µs, three quarters of which are not OpenSSL's: each
allocates a buffer, and finds by an exception that nothing is left. With one buffer for all, and
OpenSSL called directly, it takes 2 µs.
"""

from __future__ import annotations

from functools import cache
from threading import local
from typing import Any

from OpenSSL.SSL import Connection, WantReadError

from twisted_net.twisted_internals import openssl, tls_calls_changes

AT_ONCE = 2**15
"""Bytes that are taken at once from OpenSSL: more than a record has (RFC 8446 §5.2)."""


class TlsCalls:
    """
    The calls for one connection, by the methods of pyOpenSSL.

    :param connection: its buffers are in memory.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def encrypt(self, data: bytes) -> int:
        """
        Encrypt data, and return how many bytes of it; 0 where a handshake has to come first.

        :raises OpenSSL.SSL.Error: if TLS has failed.
        """
        try:
            return self._connection.send(data)
        except WantReadError:
            return 0

    def take_output(self) -> bytes:
        """Return up to :data:`AT_ONCE` bytes that are to be sent; none where nothing is left."""
        try:
            return self._connection.bio_read(AT_ONCE)
        except WantReadError:
            return b""

    def put_input(self, data: bytes) -> None:
        """Put in what has been received; not empty."""
        self._connection.bio_write(data)

    def decrypt(self) -> bytes:
        """
        Return the data of the next record; empty where more has to come first.

        :raises OpenSSL.SSL.ZeroReturnError: after a close_notify.
        :raises OpenSSL.SSL.Error: if TLS has failed.
        """
        try:
            return self._connection.recv(AT_ONCE)
        except WantReadError:
            return b""


def tls_calls(connection: Connection) -> TlsCalls:
    """Return the calls for a connection: the fast ones where pyOpenSSL is one that is known."""
    if type(connection) is Connection and _is_known():
        return _DirectTlsCalls(connection)
    return TlsCalls(connection)


class _DirectTlsCalls(TlsCalls):
    """The same, by the functions of OpenSSL."""

    __slots__ = ("_buffer", "_from", "_into", "_ssl", "_view")

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        known: Any = connection  # Any: its attributes are private
        self._ssl = known._ssl
        self._into = known._into_ssl
        self._from = known._from_ssl
        self._buffer, self._view = _buffer()

    def encrypt(self, data: bytes) -> int:
        sent: int = _library.SSL_write(self._ssl, data, len(data))
        if sent <= 0:
            self._check(sent)
            return 0
        return sent

    def take_output(self) -> bytes:
        size = _library.BIO_read(self._from, self._buffer, AT_ONCE)
        return self._view[:size] if size > 0 else b""

    def put_input(self, data: bytes) -> None:
        if _library.BIO_write(self._into, data, len(data)) != len(data):
            raise MemoryError

    def decrypt(self) -> bytes:
        size = _library.SSL_read(self._ssl, self._buffer, AT_ONCE)
        if size <= 0:
            self._check(size)
            return b""
        data: bytes = self._view[:size]
        return data

    def _check(self, result: int) -> None:
        """Raise the error of a call, unless more has to come first."""
        if _library.SSL_get_error(self._ssl, result) != _library.SSL_ERROR_WANT_READ:
            known: Any = self._connection  # Any: as above
            known._raise_ssl_error(self._ssl, result)


_library, _cffi = openssl()

# Of each thread: OpenSSL is called without Python's lock.
_buffers = local()


def _buffer() -> tuple[Any, Any]:  # Any: made by cffi
    """Return the buffer of this thread, and a view of it."""
    try:
        found: tuple[Any, Any] = _buffers.found
    except AttributeError:
        buffer = _cffi.new("char[]", AT_ONCE)
        found = _buffers.found = buffer, _cffi.buffer(buffer)
    return found


@cache
def _is_known() -> bool:
    return not tls_calls_changes()
