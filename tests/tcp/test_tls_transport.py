"""An idle TLS connection keeps none of the buffers that it once needed."""

from __future__ import annotations

import ctypes
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from OpenSSL._util import ffi, lib
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import formatEvent, globalLogPublisher
from twisted.protocols.tls import BufferingTLSTransport

from tests.tcp.test_tls import Client, TlsCase
from twisted_net import twisted_internals
from twisted_net.tcp import tls_transport
from twisted_net.tcp.tls_transport import KEPT
from twisted_net.twisted_internals import tls_buffers_changes

BURST = [b"ECHO " + b"x" * 1000] * 60
SMALL = 2 * KEPT
"""Bytes of memory that a buffer of OpenSSL may have: it takes a third more than it must."""

_usable_size = ctypes.CDLL(None).malloc_usable_size
_usable_size.argtypes, _usable_size.restype = (ctypes.c_void_p,), ctypes.c_size_t


def capacity(buffer: Any) -> int:  # Any: a BIO
    """Give the bytes of memory that a buffer has; this spoils what is in it."""
    if not lib.BIO_write(buffer, b"!", 1):
        raise AssertionError("the buffer takes nothing")
    begin = ffi.new("char **")
    lib.BIO_get_mem_data(buffer, begin)
    return int(_usable_size(int(ffi.cast("intptr_t", begin[0]))))


class BuffersTests(TlsCase):
    """:class:`TlsTransport` releases memory, and loses nothing by it."""

    def connections(self) -> list[SSL.Connection]:
        """Return the server's sides of all connections."""
        return [transport._tlsConnection for transport in self.factory.protocols]

    def assert_small(self) -> None:
        """No connection of the server has a large buffer."""
        for connection in self.connections():
            for buffer in (connection._into_ssl, connection._from_ssl):
                self.assertLessEqual(capacity(buffer), SMALL)

    def burst(self, client: Client) -> int:
        """Send sixty kilobytes in one piece, and return how many answers came."""
        for line in BURST:
            client.tls.send(line + b"\n")
        return len(client.ask())

    def shaken(self, **options: Any) -> Client:  # Any: parameters of Client
        """Connect and shake hands."""
        client = self.client(**options)
        self.assertTrue(client.shake())
        return client

    def test_after_the_handshake(self) -> None:
        """The handshake, with certificates of both sides, leaves no buffers."""
        self.factory = self.mutual()
        for highest in (None, SSL.TLS1_2_VERSION):
            client = self.shaken(pair=self.pair("ada"), highest=highest)
            self.assertEqual(client.ask(b"PING")[0]["result"], "PONG")
        self.assert_small()

    def test_after_a_burst(self) -> None:
        """Sixty kilobytes in one piece, and as many of answers, leave none."""
        client = self.shaken()
        for _ in range(3):
            self.assertEqual(self.burst(client), len(BURST))
        self.assert_small()

    def test_after_large_answers(self) -> None:
        """Short commands with large answers leave none."""
        client = self.shaken()
        self.assertGreater(len(json.dumps(client.ask(b"HELP"))), 2 * KEPT)
        self.assert_small()

    def test_unanswered(self) -> None:
        """The beginning of a long line, to which there is no answer, leaves none."""
        client = self.shaken()
        client.tls.send(b"ECHO " + b"x" * 10_000)
        client.flush()
        self.assert_small()

    def test_not_empty(self) -> None:
        """Nothing is released while records wait, though large answers leave meanwhile."""
        client = self.shaken()
        for _ in range(100):
            client.tls.send(b"HELP\n")
        self.assertEqual(len(client.ask()), 100)
        self.assert_small()

    def test_would_be_seen(self) -> None:
        """With Twisted's transport there are large buffers."""
        self.factory.protocol = BufferingTLSTransport
        self.burst(self.shaken())
        (connection,) = self.connections()
        self.assertGreater(capacity(connection._into_ssl), 40_000)

    def test_within_a_record(self) -> None:
        """Buffers are released while half a record is there; the other half completes it."""
        client = self.shaken()
        client.tls.send(b"ECHO " + b"a" * 8000 + b"\n")
        record = client.tls.bio_read(65_536)
        for begin in range(0, len(record), 3000):
            client.connection.send(record[begin : begin + 3000])
            self.reactor.settle()
        self.assertEqual([len(answer["result"]) for answer in client.ask()], [8000])
        self.assert_small()

    @settings(max_examples=30)
    @given(st.lists(st.integers(0, 5000), max_size=20), st.lists(st.integers(1, 9000), max_size=9))
    def test_any_sizes(self, lengths: list[int], cuts: list[int]) -> None:
        """Whatever comes, in whatever pieces, is answered in order."""
        client = self.shaken()
        for length in lengths:
            client.tls.send(b"ECHO " + b"a" * length + b"\n")
        sent = b""
        while True:
            try:
                sent += client.tls.bio_read(65_536)
            except SSL.WantReadError:
                break
        for cut in cuts:
            client.connection.send(sent[:cut])
            self.reactor.settle()
            sent = sent[cut:]
        client.connection.send(sent)
        self.assertEqual([len(answer["result"]) for answer in client.ask()], lengths)

    def test_lost(self) -> None:
        """A connection that is reset after a burst is counted, and not kept."""
        client = self.shaken()
        self.burst(client)
        client.connection.reset()
        self.reactor.settle()
        self.assertEqual((self.ended(), self.factory.protocols), ({"connection_lost": 1}, {}))


class OtherVersionTests(TlsCase):
    """With a pyOpenSSL that is not known the buffers are kept, and a warning says so."""

    def test_installed(self) -> None:
        """What is installed is known."""
        self.assertEqual(tls_buffers_changes(), [])

    def test_changed(self) -> None:
        """Connections work with another one."""
        logged = EventLoggingObserver()
        globalLogPublisher.addObserver(logged)
        self.addCleanup(globalLogPublisher.removeObserver, logged)
        tls_transport._buffers_release.cache_clear()
        self.addCleanup(tls_transport._buffers_release.cache_clear)
        self.patch(twisted_internals, "_TLS_BUFFERS", {"bio_read": "_other"})
        client = self.client()
        self.assertTrue(client.shake())
        self.assertEqual(client.ask(b"PING")[0]["result"], "PONG")
        texts = [formatEvent(event) for event in logged]
        self.assertEqual(len([text for text in texts if "Connection.bio_read" in text]), 1)
