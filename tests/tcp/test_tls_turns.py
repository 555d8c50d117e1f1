"""Records of TLS that cost more than they carry: KeyUpdates, handshakes, answers of OpenSSL's."""

from __future__ import annotations

from collections.abc import Callable

from OpenSSL import SSL

from benchmarks.layer_crowds import Records
from tests.tcp.memory import BUFFER
from tests.tcp.test_tls import Client, TlsCase
from twisted_net.tcp.proxy_protocol import ProxiedTransport
from twisted_net.tcp.tls_transport import _ANSWERS_SIZE, RECORDS_WITHOUT_DATA
from twisted_net.tcp.transport import FastTransport, limit_reads
from twisted_net.turns.paced_input import READ_SIZE, UNITS_PER_LOOK, UNITS_PER_TURN


class TurnsCase(TlsCase):
    """Clients that make their records by hand."""

    def shaken(self) -> tuple[Client, Records]:
        """Connect and shake hands; return the client, and what makes its records."""
        lines: list[bytes] = []
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_keylog_callback(lambda connection, line: lines.append(line))
        client = self.client(context=context)
        self.assertTrue(client.shake())
        self.assertEqual(client.ask(), [])
        words = [line.split() for line in lines]
        (secret,) = (word[2] for word in words if word[0] == b"CLIENT_TRAFFIC_SECRET_0")
        return client, Records(bytes.fromhex(secret.decode()))

    def fill(self, client: Client, records: Records) -> int:
        """Let answers fill all buffers, as the client does not read; return how many these are."""
        client.connection.reads = False
        asked = 0
        while client.connection.unread <= BUFFER:
            client.connection.send(records.data(b"HELP\n"))
            self.reactor.settle()
            asked += 1
        return asked

    def received(self) -> list[int]:
        """Return how many bytes each session has received, the newest last."""
        return [session.received for session in self.commands.sessions]


class RecordsTests(TurnsCase):
    """Records of one byte are decrypted in turns."""

    def test_limit(self) -> None:
        """As many as fit in a turn are decrypted when they are read; one more in the next turn."""
        client, records = self.shaken()
        for number, turns in ((UNITS_PER_TURN, 1), (UNITS_PER_TURN + 1, 2)):
            (before,) = self.received()
            client.connection.send(b"".join(records.data(b"x") for _ in range(number)))
            self.reactor.turn()
            self.assertEqual(self.received(), [before + UNITS_PER_TURN])
            self.assertEqual(client.connection.reading, turns == 1)
            self.reactor.turn()
            self.assertEqual(self.received(), [before + number])
            self.assertTrue(client.connection.reading)

    def test_together(self) -> None:
        """What one turn decrypts is handed over together: its lines are answered in one record."""
        client, records = self.shaken()
        client.connection.send(
            b"".join(records.data(bytes([byte])) for byte in b"ECHO hello\n" * 3)
        )
        before = len(client.connection.writes)
        self.assertEqual(len(client.ask()), 3)
        self.assertEqual(len(client.connection.writes), before + 1)

    def test_handshakes(self) -> None:
        """Of handshakes that come at once, one is done at once, and the others take turns."""
        clients = [self.client() for _ in range(5)]
        for client in clients:
            self.assertRaises(SSL.WantReadError, client.tls.do_handshake)
            client.connection.send(client.tls.bio_read(65_536))
        self.reactor.turn()
        answered = [bool(client.connection.writes) for client in clients]
        self.assertEqual(answered, [True] + [False] * 4)
        self.reactor.turn()
        self.assertTrue(all(client.connection.writes for client in clients))

    def test_read_size(self) -> None:
        """A connection under TLS is read in pieces of a record, also one behind a PROXY header."""
        for proxied in (False, True):
            transport = FastTransport.__new__(FastTransport)
            below = ProxiedTransport.__new__(ProxiedTransport)
            below.unproxied = transport
            limit_reads(below if proxied else transport, READ_SIZE)
            self.assertEqual(transport.read_size, READ_SIZE)
        limit_reads(self.reactor, READ_SIZE)


class KeyUpdateTests(TurnsCase):
    """A client may update its keys, but not without data, and not without reading the answers."""

    def flood(self, updates: int, then: Callable[[Records], bytes] = lambda _: b"") -> Client:
        """Let a client update its keys so often, then send something."""
        client, records = self.shaken()
        updated = b"".join(records.key_update() for _ in range(updates))
        client.connection.send(updated + then(records))
        return client

    def test_few(self) -> None:
        """As many as may be are answered, and the line after them is."""
        client = self.flood(RECORDS_WITHOUT_DATA, lambda records: records.data(b"PING\n"))
        self.assertEqual([answer["result"] for answer in client.ask()], ["PONG"])

    def test_many(self) -> None:
        """One more ends the connection, for a reason of its own."""
        client = self.flood(RECORDS_WITHOUT_DATA + 1)
        self.reactor.settle()
        self.assertTrue(client.connection.gone)
        self.assertEqual(self.ended(), {"too_many_key_updates": 1})
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_piece(self) -> None:
        """Of an endless flood no more is decrypted than a piece after the limit."""
        client = self.flood(1000, lambda records: records.data(b"PING\n"))
        before = len(client.connection.writes)
        self.reactor.settle()
        self.assertTrue(client.connection.gone)
        pieces = (RECORDS_WITHOUT_DATA + UNITS_PER_LOOK) // UNITS_PER_LOOK
        self.assertLessEqual(len(client.connection.writes), before + pieces + 1)

    def test_with_data(self) -> None:
        """Who sends data between them may go on."""
        client, records = self.shaken()
        for _ in range(4):
            some = [records.key_update() for _ in range(RECORDS_WITHOUT_DATA - UNITS_PER_LOOK)]
            client.connection.send(b"".join(some) + records.data(b"PING\n"))
            self.assertEqual(len(client.ask()), 1)

    def test_unread(self) -> None:
        """While a client does not read, its updates are not answered, and nothing more is read."""
        client, records = self.shaken()
        asked = self.fill(client, records)
        before = client.connection.unread
        client.connection.send(
            b"".join(records.key_update() + records.data(b"x") for _ in range(1000))
        )
        self.reactor.settle()
        self.assertEqual(client.connection.unread, before)
        self.assertFalse(client.connection.reading)
        client.connection.reads = True
        client.connection.send(records.data(b"\n"))
        self.assertEqual(len(client.ask()), asked + 1)


class HungUpTests(TurnsCase):
    """A connection that the server has hung up while its client did not read."""

    def hung_up(self) -> tuple[Client, Records, int]:
        """Let answers fill all buffers, and drain; return the number of answers, too."""
        client, records = self.shaken()
        asked = self.fill(client, records)
        self.drained = self.commands.drain(60)
        self.reactor.settle()
        return client, records, asked

    def test_read(self) -> None:
        """What the client goes on to send is read and dropped: unread, it would cause a reset."""
        client, records, asked = self.hung_up()
        client.connection.send(b"".join(records.data(b"PING\n") for _ in range(1000)))
        self.reactor.settle()
        self.assertEqual(client.connection.unheard, 0)
        client.connection.reads = True
        answers = client.ask()
        self.assertEqual(len([answer for answer in answers if "event" not in answer]), asked)
        self.assertIsNone(self.successResultOf(self.drained))
        self.assertEqual(self.ended(), {"drained": 1})
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_key_updates(self) -> None:
        """Nothing follows the close_notify: OpenSSL's answers to KeyUpdates are dropped."""
        client, records, _ = self.hung_up()
        before = client.connection.unread
        client.connection.send(
            b"".join(records.key_update() + records.data(b"x") for _ in range(1000))
        )
        self.reactor.settle()
        self.assertEqual(client.connection.unheard, 0)
        self.assertEqual(client.connection.unread, before)


class AnswersTests(TurnsCase):
    """All that OpenSSL has to send is sent."""

    def test_more_than_a_piece(self) -> None:
        """What is more than Twisted takes at once leaves as well."""
        client, _ = self.shaken()
        (transport,) = self.factory.protocols
        tls = transport._tlsConnection
        for _ in range(3):
            tls.send(b'"' + b"x" * (_ANSWERS_SIZE * 2 // 5) + b'"\n')
        transport._flushSendBIO()
        self.assertRaises(SSL.WantReadError, tls.bio_read, 1)
        self.assertEqual(len(client.ask()), 3)
