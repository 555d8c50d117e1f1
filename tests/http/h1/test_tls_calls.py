"""Tests of :mod:`twisted_net.http.h1.tls_calls`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.issuing import Authority, write_pair
from twisted_net import twisted_internals
from twisted_net.http.h1 import tls_calls
from twisted_net.http.h1.tls_calls import AT_ONCE, TlsCalls
from twisted_net.twisted_internals import tls_calls_changes

RECORD = 2**14


class Counting:
    """A library whose calls are counted."""

    def __init__(self, library: Any) -> None:  # Any: made by cffi
        self.called: list[str] = []
        self._library = library

    def __getattr__(self, name: str) -> Any:  # Any: as above
        found = getattr(self._library, name)
        if callable(found):
            self.called.append(name)
        return found


class TlsCallsTests(SynchronousTestCase):
    """Both kinds of :class:`TlsCalls` do the same."""

    def setUp(self) -> None:
        temporary = TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.pair = str(write_pair(Path(temporary.name) / "a.pem", Authority().issue("a.test")))

    def connected(self, kind: str) -> tuple[TlsCalls, SSL.Connection]:
        """Return the calls of a client whose handshake is complete, and its server."""
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.use_certificate_chain_file(self.pair)
        context.use_privatekey_file(self.pair)
        server = SSL.Connection(context, None)
        server.set_accept_state()
        client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        client.set_connect_state()
        with patch.object(tls_calls, "_is_known", lambda: kind == "direct"):
            calls = tls_calls.tls_calls(client)
        self.assertIs(type(calls) is TlsCalls, kind == "methods")
        for _ in range(4):
            for one in (client, server):
                with contextlib.suppress(SSL.WantReadError):
                    one.do_handshake()
                if one is client:
                    sent = calls.take_output()
                    if sent:
                        server.bio_write(sent)
                else:
                    self.pass_on(server, calls)
        self.assertEqual(calls.decrypt(), b"")
        return calls, server

    def pass_on(self, server: SSL.Connection, calls: TlsCalls) -> None:
        """Give the client what the server has sent."""
        with contextlib.suppress(SSL.WantReadError):
            calls.put_input(server.bio_read(2**20))

    def test_both_ways(self) -> None:
        """Data of any size arrives, record by record, and output in pieces; then there is none."""
        for kind in ("direct", "methods"):
            for size in (1, 100, RECORD, RECORD + 1, 5 * RECORD):
                with self.subTest(kind=kind, size=size):
                    calls, server = self.connected(kind)
                    data = bytes(range(256)) * (size // 256 + 1)
                    self.assertEqual(calls.encrypt(data[:size]), min(size, RECORD))
                    sent = calls.take_output()
                    self.assertEqual(calls.take_output(), b"")
                    server.bio_write(sent)
                    self.assertEqual(server.recv(RECORD), data[: min(size, RECORD)])
                    for _ in range(3):
                        server.send(data[:RECORD])
                    self.pass_on(server, calls)
                    for _ in range(3):
                        self.assertEqual(calls.decrypt(), data[:RECORD])
                    self.assertEqual(calls.decrypt(), b"")

    def test_much_output(self) -> None:
        """More output than is taken at once is taken in pieces."""
        for kind in ("direct", "methods"):
            with self.subTest(kind=kind):
                calls, server = self.connected(kind)
                for _ in range(4):
                    calls.encrypt(bytes(RECORD))
                first = calls.take_output()
                self.assertEqual(len(first), AT_ONCE)
                server.bio_write(first + calls.take_output() + calls.take_output())
                for _ in range(4):
                    self.assertEqual(server.recv(RECORD), bytes(RECORD))

    def test_errors(self) -> None:
        """A close_notify, and a broken record, raise what pyOpenSSL raises."""
        for kind in ("direct", "methods"):
            with self.subTest(kind=kind):
                calls, server = self.connected(kind)
                server.shutdown()
                self.pass_on(server, calls)
                self.assertRaises(SSL.ZeroReturnError, calls.decrypt)
                calls, _ = self.connected(kind)
                calls.put_input(b"\x17\x03\x03\x00\x20" + bytes(32))
                error = self.assertRaises(SSL.Error, calls.decrypt)
                self.assertIn("decryption failed or bad record mac", str(error))
                # An error of one connection is none of the next.
                calls, server = self.connected(kind)
                self.assertEqual(calls.decrypt(), b"")

    def test_few(self) -> None:
        """A record takes two calls of OpenSSL either way."""
        calls, server = self.connected("direct")
        counting = Counting(tls_calls._library)
        self.patch(tls_calls, "_library", counting)
        calls.encrypt(b"request")
        calls.take_output()
        server.send(b"response")
        self.pass_on(server, calls)
        self.assertEqual(calls.decrypt(), b"response")
        self.assertEqual(counting.called, ["SSL_write", "BIO_read", "BIO_write", "SSL_read"])

    def test_known(self) -> None:
        """What is installed is known; one that has changed is not, nor is a class of others."""
        self.assertEqual(tls_calls_changes(), [])
        self.patch(twisted_internals, "_TLS_CALLS", {"recv": "_other", "gone": "_ssl"})
        self.assertEqual(tls_calls_changes(), ["Connection.recv", "Connection.gone"])

        class Other(SSL.Connection):
            pass

        other = Other(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        self.assertIs(type(tls_calls.tls_calls(other)), TlsCalls)
