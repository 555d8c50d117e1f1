"""CoAP over DTLS, in memory: who is proven, who may do what, what a session leaves the next."""

from __future__ import annotations

from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.dtls.dtls_wire import HERE, Client, Files, Wire
from twisted_net.auth.users import Permissions, User
from twisted_net.coap.blockwise import Block, block_size_within
from twisted_net.coap.codec import (
    CoapMessage,
    Code,
    Option,
    Type,
    encode_message,
    parse_message,
)
from twisted_net.coap.server import CoapServer
from twisted_net.coap.settings import CoapLimits, limits_over_dtls
from twisted_net.commands.standard import standard_commands
from twisted_net.dtls.settings import DtlsSettings
from twisted_net.ops.instruments import Instruments
from twisted_net.reasons import Audited, End
from twisted_net.sessions import Sessions

THERE = ("198.51.100.2", 40_000)
USERS = {
    None: User(commands=("PING",)),
    "ann": User(commands=("*",)),
    "bob": User(commands=("*", "-@admin")),
}


def permissions_of(name: str | None) -> Permissions:
    """Return what a user of the tests may do."""
    return Permissions(name, USERS[name])


class CoapsTestCase(SynchronousTestCase):
    """Has a CoAP server over DTLS."""

    def setUp(self) -> None:
        self.files = Files()
        self.addCleanup(self.files.remove)
        self.clock = Clock()
        self.runs: list[str] = []
        self.waiting: list[Deferred[str]] = []
        self._ids = 0

    def serve(
        self,
        *,
        users: bool = False,
        mtu: int = 1232,
        limits: CoapLimits | None = None,
        instruments: Instruments | None = None,
    ) -> None:
        """Start the server; where there are users, certificates are optional."""
        commands = standard_commands()
        commands.command("NOTE")(self._note)
        commands.command("WAIT")(self._wait)
        commands.command("SECRET", admin=True)(lambda: "secret")
        settings = DtlsSettings(
            certificate=self.files.server,
            client_ca=self.files.ca,
            client_certificate="optional",
            mtu=mtu,
        )
        self.coap = CoapServer(
            cast(IReactorTime, self.clock),
            commands,
            limits_over_dtls(limits or CoapLimits(), settings),
            sessions=Sessions(lambda: 0.0, instruments=instruments),
            permissions_of=permissions_of if users else None,
            chance=lambda: 0.5,
        )
        self.connect_to(settings)

    def connect_to(self, settings: DtlsSettings) -> None:
        """Serve CoAP over DTLS."""
        self.wire = Wire(self.files, settings, inner=self.coap)
        self.wire.server._ended = self.coap.peer_lost
        self.addCleanup(self._stop)

    def _stop(self) -> None:
        self.wire.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual((len(self.coap.sessions), self.coap.observers), (0, 0))

    def _note(self, text: str) -> str:
        self.runs.append(text)
        return text

    async def _wait(self) -> str:
        waited: Deferred[str] = Deferred()
        self.waiting.append(waited)
        return await waited

    def client(self, user: str | None = None, source: tuple[str, int] = HERE) -> Client:
        """Connect, as a user or as a stranger."""
        if user is None:
            return self.wire.connect(source)
        return self.wire.connect(source, certificate=self.files.write(user, user=user))

    def message(
        self, code: int, path: str, payload: bytes = b"", *more: tuple[int, bytes]
    ) -> bytes:
        """Make a request."""
        self._ids += 1
        options = [(int(Option.URI_PATH), path.encode()), *more]
        options.sort(key=lambda pair: pair[0])
        return encode_message(CoapMessage(Type.CON, code, self._ids, b"t", options, payload))

    def send(self, client: Client, datagram: bytes) -> list[CoapMessage]:
        """Send a datagram, and give what comes at once."""
        before = len(client.heard)
        client.say(datagram)
        self.wire.run()
        return [parse_message(answer) for answer in client.heard[before:]]

    def ask(
        self, client: Client, code: int, path: str, payload: bytes = b"", *more: tuple[int, bytes]
    ) -> CoapMessage:
        """Make a request that is answered at once."""
        (answer,) = self.send(client, self.message(code, path, payload, *more))
        return answer


class CoapsTests(CoapsTestCase):
    """The server knows who asks."""

    def test_proven(self) -> None:
        """An address over DTLS is proven: no Echo is asked, whatever is to be run or sent."""
        self.serve()
        client = self.client()
        answer = self.ask(client, Code.POST, "note", b"x" * 900)
        self.assertEqual((answer.code, answer.payload), (Code.CHANGED, b"x" * 900))
        self.assertEqual(self.ask(client, Code.GET, "help").code, Code.CONTENT)
        observed = self.ask(client, Code.GET, "stats", b"", (int(Option.OBSERVE), b""))
        self.assertIsNotNone(observed.option(Option.OBSERVE))

    def test_sessions_do_not_share_answers(self) -> None:
        """The very bytes of an earlier session's request run anew in the next, at one address."""
        self.serve()
        datagram = self.message(Code.POST, "note", b"mine")
        first = self.client()
        self.send(first, datagram)
        self.send(first, datagram)
        self.assertEqual(self.runs, ["mine"])
        self.send(self.client(), datagram)
        self.assertEqual(self.runs, ["mine", "mine"])

    def test_sessions_do_not_share_bodies(self) -> None:
        """A body that one session began is not gone on with by the next at its address."""
        self.serve()

        def block(number: int, more: bool) -> tuple[int, bytes]:
            return int(Option.BLOCK1), Block(number, more, 16).encode()

        first = self.ask(self.client(), Code.POST, "note", b"a" * 16, block(0, True))
        self.assertEqual(first.code, Code.CONTINUE)
        second = self.ask(self.client(), Code.POST, "note", b"b" * 16, block(1, False))
        self.assertEqual(second.code, Code.REQUEST_ENTITY_INCOMPLETE)
        self.assertEqual(self.runs, [])

    def test_end_of_session(self) -> None:
        """With its DTLS session a peer's observations, commands and CoAP session are over."""
        self.serve()
        client = self.client()
        self.ask(client, Code.GET, "stats", b"", (int(Option.OBSERVE), b""))
        self.send(client, self.message(Code.POST, "wait"))
        self.assertEqual((self.coap.observers, len(self.waiting)), (1, 1))
        client.dtls.close()
        self.wire.run()
        self.assertEqual((self.coap.observers, len(self.coap.sessions)), (0, 0))
        self.assertEqual(self.coap.sessions.counters.ended[End.CLIENT_CLOSED], 1)
        self.assertTrue(self.waiting[0].called)

    def test_returning_client(self) -> None:
        """A client that begins anew at its address is another session of CoAP, too."""
        self.serve()
        self.ask(self.client(), Code.GET, "ping")
        self.ask(self.client(), Code.GET, "ping")
        self.assertEqual(self.coap.sessions.counters.ended[End.CONNECTION_LOST], 1)
        self.assertEqual(len(self.coap.sessions), 1)


class UsersTests(CoapsTestCase):
    """Permissions, by the names in certificates."""

    def test_user(self) -> None:
        """A user does what its permissions say, administrative commands among it."""
        audited: list[tuple[str, str | None, str]] = []

        def audit(event: str, client: Audited, what: str) -> None:
            audited.append((event, client.user, what))

        self.serve(users=True, instruments=Instruments(audit))
        ann = self.client("ann")
        self.assertEqual(self.ask(ann, Code.POST, "secret").payload, b"secret")
        self.assertEqual(
            audited, [("login", "ann", "by certificate"), ("command", "ann", "SECRET")]
        )
        (session,) = self.coap.sessions
        self.assertEqual((session.identity, session.user), ("ann", "ann"))
        bob = self.client("bob", THERE)
        self.assertEqual(self.ask(bob, Code.POST, "note", b"a").code, Code.CHANGED)
        refused = self.ask(bob, Code.POST, "secret")
        self.assertEqual(
            (refused.code, refused.payload), (Code.FORBIDDEN, b"not permitted: SECRET")
        )
        self.assertEqual(audited[-1], ("refused", "bob", "not_permitted: SECRET"))

    def test_stranger(self) -> None:
        """One without a certificate may do what is open to all, and is not told of events."""
        self.serve(users=True)
        stranger = self.client()
        self.assertEqual(self.ask(stranger, Code.GET, "ping").code, Code.CONTENT)
        for path in ("time", "stats", "events"):
            self.assertEqual(self.ask(stranger, Code.GET, path).code, Code.UNAUTHORIZED, path)
        for path in ("secret", "nope", "auth2"):
            self.assertEqual(self.ask(stranger, Code.POST, path).code, Code.UNAUTHORIZED, path)
        self.assertEqual(self.ask(self.client("bob", THERE), Code.GET, "events").code, Code.CONTENT)

    def test_no_users(self) -> None:
        """Where there are no users, a name in a certificate permits nothing administrative."""
        self.serve()
        ann = self.client("ann")
        self.assertEqual(self.ask(ann, Code.POST, "secret").code, Code.NOT_FOUND)
        self.assertEqual(self.ask(ann, Code.POST, "note", b"a").code, Code.CHANGED)
        (session,) = self.coap.sessions
        self.assertEqual((session.identity, session.user), ("ann", None))

    def test_no_login(self) -> None:
        """AUTH is no resource for anybody: the certificate has said who it is."""
        self.serve(users=True)
        self.assertEqual(self.ask(self.client("ann"), Code.POST, "auth").code, Code.NOT_FOUND)


class SmallMtuTests(CoapsTestCase):
    """No datagram is longer than the MTU."""

    def test_blocks(self) -> None:
        """Blocks are as large as an MTU lets through with room for options."""
        sizes = [block_size_within(most, 1024) for most in (1152, 1151, 640, 145, 144, 143, 1)]
        self.assertEqual(sizes, [1024, 512, 512, 16, 16, 16, 16])
        self.assertEqual(block_size_within(65_535, 256), 256)

    def test_everything_fits(self) -> None:
        """Long answers come in small blocks, and errors are cut: none is lost, none too long."""
        self.serve(mtu=256)
        client = self.client()
        self.ask(client, Code.POST, "note", b"x" * 150)
        answer = self.ask(client, Code.GET, "help")
        value = answer.option(Option.BLOCK2)
        assert value is not None
        block = Block.parse(value)
        self.assertEqual((block.size, len(answer.payload)), (64, 64))
        missing = self.ask(client, Code.GET, "x" * 100)
        self.assertEqual((missing.code, len(missing.payload)), (Code.NOT_FOUND, 64))
        as_json = self.ask(client, Code.POST, "note", b"", (int(Option.ACCEPT), b"\x32"))
        self.assertEqual((as_json.code, as_json.payload), (Code.BAD_REQUEST, b""))
        self.assertEqual(self.coap.datagrams.dropped, 0)
        self.assertLessEqual(max(len(sent) for sent in self.wire.from_server()), 256)
