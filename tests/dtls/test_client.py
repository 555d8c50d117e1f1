"""Tests of :mod:`twisted_net.dtls.client`, in memory."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from tests.dtls.dtls_wire import HERE, SERVER, Files, Wire, stop
from tests.tcp.issuing import Authority
from twisted_net.dtls.errors import DtlsEnded, DtlsFailed
from twisted_net.dtls.session import client_context
from twisted_net.dtls.settings import DtlsClientSettings
from twisted_net.errors import ConfigError
from twisted_net.reasons import End

ALERT = b"\x15\xfe\xfd" + bytes(8) + b"\0\2\2\x28"
"""A fatal one, which anybody can send."""


class DtlsClientTests(SynchronousTestCase):
    """:class:`DtlsClient`."""

    def setUp(self) -> None:
        self.files = Files()
        self.addCleanup(self.files.remove)
        self.wire = Wire(self.files)
        self.addCleanup(self.check_end)

    def check_end(self) -> None:
        """See that no timer is left."""
        self.wire.stop()
        self.assertEqual(self.wire.clock.getDelayedCalls(), [])

    def reason(self, name: str = "a.test", numeric: bool = False, ca: str | None = None) -> str:
        """Return the reason why a server is rejected."""
        ca = self.files.ca if ca is None else ca
        client = self.wire.client(name=name, numeric=numeric, ca=ca)
        self.wire.run()
        self.assertFalse(client.connected)
        self.assertIsNone(client.inner.transport)
        (failure,) = client.failures
        self.assertEqual(client.lost, [failure])
        assert isinstance(failure, DtlsFailed)
        self.assertEqual((self.wire.server.sessions, self.wire.server.handshakes), (0, 0))
        return failure.reason

    def test_names(self) -> None:
        """The server's certificate must be for the name, or the address, that was asked for."""
        self.assertTrue(self.wire.connect().connected)
        numeric = self.wire.connect(("198.51.100.2", 1), name=SERVER[0], numeric=True)
        self.assertTrue(numeric.connected)
        for client in list(self.wire._clients.values()):
            client.dtls.close()
        self.wire.run()
        self.assertEqual(self.reason("b.test"), "the server's certificate is not for b.test")
        reason = self.reason("192.0.2.9", numeric=True)
        self.assertEqual(reason, "the server's certificate is not for 192.0.2.9")

    def test_strange_authority(self) -> None:
        """A certificate that was signed by somebody else is refused, by the system's too."""
        other = str(Authority("Other CA").write(self.files.folder / "other.pem"))
        self.assertEqual(self.reason(ca=other), "certificate verify failed")
        self.assertEqual(self.reason(ca=""), "certificate verify failed")

    def test_unverified(self) -> None:
        """Where it is not to be verified, any certificate will do."""
        self.assertTrue(self.wire.connect(ca="", verify=False, name="b.test").connected)

    def test_timeout(self) -> None:
        """A server that does not answer is given up in time."""
        self.wire.fate = lambda number, datagram, to_server: []
        client = self.wire.connect(handshake_timeout=5.0)
        for _ in range(9):
            self.wire.clock.advance(0.5)
        self.assertEqual(client.failures, [])
        self.wire.clock.advance(0.5)
        self.assertEqual(str(client.failures[0]), "no DTLS session: no handshake within 5 seconds")

    def test_nobody_listens(self) -> None:
        """A closed port fails the handshake at once, and ends a session whose server has gone."""
        client = self.wire.client()
        client.dtls.connectionRefused()
        self.assertEqual(
            str(client.failures[0]), "no DTLS session: nobody listens at 192.0.2.1:5684"
        )
        client = self.wire.connect(("198.51.100.2", 1))
        client.dtls.connectionRefused()
        self.assertIsInstance(client.lost[0], DtlsEnded)
        # The epoll reactor closes the port instead.
        client = self.wire.connect(("198.51.100.3", 1))
        stop(client.dtls)
        self.assertIsInstance(client.lost[0], DtlsEnded)

    def test_waiting(self) -> None:
        """connected() fires with the outcome, also after the end; waiting can be cancelled."""
        client = self.wire.client()
        cancelled = client.dtls.connected()
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.wire.run()
        self.successResultOf(client.dtls.connected())
        client.dtls.close()
        self.failureResultOf(client.dtls.connected(), DtlsEnded)

    def test_closed_early(self) -> None:
        """One that is closed during its handshake fails for who waits, and is no session."""
        client = self.wire.client()
        client.dtls.close()
        stop(client.dtls)
        self.wire.run()
        self.assertIsInstance(client.failures[0], DtlsEnded)
        self.assertEqual(client.lost, [])

    def test_close(self) -> None:
        """It tells the server that it ends, once; what is written after it is lost."""
        client = self.wire.connect()
        client.dtls.close()
        client.dtls.close()
        self.wire.run()
        self.assertEqual([end for _, end in self.wire.ended], [End.CLIENT_CLOSED])
        sent = len(self.wire.to_server())
        client.say(b"late")
        self.assertEqual(len(self.wire.to_server()), sent)
        self.assertIsNone(client.inner.transport)

    def test_server_ends(self) -> None:
        """It answers a server's good-bye with its own, and tells its owner."""
        client = self.wire.connect()
        sent = len(self.wire.to_server())
        peer = next(iter(self.wire.server._sessions))
        self.wire.server.end(peer, End.IDLE_TIMEOUT)
        self.wire.run()
        self.assertIsInstance(client.lost[0], DtlsEnded)
        self.assertEqual([datagram[0] for datagram in self.wire.to_server()[sent:]], [21])
        self.wire.server.end(peer, End.IDLE_TIMEOUT)
        self.assertEqual(len(self.wire.ended), 1)

    def test_garbage(self) -> None:
        """What is no record of the server's is passed over."""
        client = self.wire.connect()
        for noise in (b"", b"\0", bytes(100), b"\x17\xfe\xfd\0\1" + bytes(50), ALERT):
            client.dtls.datagramReceived(noise, SERVER)
        client.say(b"hello")
        self.wire.run()
        self.assertEqual(client.heard, [b"echo hello"])

    def test_files(self) -> None:
        """Files that cannot be used are mistakes that name them."""
        for settings in ({"ca": "/nowhere.pem"}, {"certificate": "/nowhere.pem"}):
            record = DtlsClientSettings(**settings)  # type: ignore[arg-type]  # fields
            error = self.assertRaises(ConfigError, client_context, record)
            self.assertEqual(error.mistakes, ["/nowhere.pem: No such file or directory"])
        self.assertRaises(ValueError, DtlsClientSettings, key="a.pem")

    def test_address(self) -> None:
        """Its own address in the list of the server's sessions is where it sends from."""
        self.wire.connect()
        self.assertEqual([tuple(peer) for peer in self.wire.server._sessions], [HERE])
