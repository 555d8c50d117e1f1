"""What a peer of CoAP over DTLS may use, by the users that there are now."""

from __future__ import annotations

import json
from typing import cast

from twisted.internet.interfaces import IReactorTime

from tests.coap.test_over_dtls import THERE, CoapsTestCase
from tests.dtls.dtls_wire import Client
from twisted_net.auth.users import Permissions, User, Users
from twisted_net.coap.blockwise import Block
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
from twisted_net.dtls.peer import identity_of
from twisted_net.dtls.settings import DtlsSettings
from twisted_net.net.addresses import Source
from twisted_net.ops.instruments import Instruments
from twisted_net.reasons import Audited, End
from twisted_net.sessions import Sessions

OBSERVE = (int(Option.OBSERVE), b"")
JSON = (int(Option.ACCEPT), b"\x32")
ELSEWHERE = ("198.51.100.3", 40_000)
RECORDS = {
    "ann": User(commands=("*",)),
    "bob": User(),
    "deaf": User(subscribe=()),
}


class UsersOverDtlsTestCase(CoapsTestCase):
    """Has a CoAP server over DTLS whose users change."""

    def setUp(self) -> None:
        super().setUp()
        self.users = Users(RECORDS)
        self.seen: set[bytes] = set()
        self.audited: list[tuple[str, str | None, str]] = []
        self.anonymous = Permissions(None, User(commands=("PING",), publish=(), subscribe=()))
        commands = standard_commands(log_in=self.log_in)
        commands.command("SECRET", admin=True)(lambda: "secret")
        settings = DtlsSettings(
            certificate=self.files.server,
            client_ca=self.files.ca,
            client_certificate="optional",
        )
        instruments = Instruments(self.audit)
        self.streams = Sessions(lambda: 0.0, instruments=instruments)
        self.coap = CoapServer(
            cast(IReactorTime, self.clock),
            commands,
            limits_over_dtls(CoapLimits(), settings),
            sessions=Sessions(
                lambda: 0.0,
                self.streams.topics,
                instruments,
                broadcasts=self.streams.broadcasts,
            ),
            permissions_of=self.permissions_of,
            reviewed=self.enforce_limit,
            chance=lambda: 0.5,
        )
        self.connect_to(settings)
        self.wire.server._session_limit = self.limit_of

    def audit(self, event: str, client: Audited, what: str) -> None:
        """Take a line of the audit."""
        self.audited.append((event, client.user, what))

    async def log_in(self, *_: object) -> str:
        """Fail: nobody logs in over CoAP."""
        raise NotImplementedError

    def permissions_of(self, name: str | None) -> Permissions | None:
        """Return the permissions of a user as they are now."""
        return self.anonymous if name is None else self.users.permissions(name)

    def limit_of(self, name: str) -> int | None:
        """Return how many sessions a user may have."""
        permissions = self.users.permissions(name)
        return None if permissions is None else permissions.max_connections

    def enforce_limit(self, peer: Source) -> None:
        """End sessions over a lowered limit, as the service does."""
        user = identity_of(peer)
        if user is not None:
            self.wire.server.enforce_limit(user)

    def heard(self, client: Client) -> list[CoapMessage]:
        """Take the notifications that a client has got, and acknowledge them."""
        heard = [parse_message(datagram) for datagram in client.heard if datagram not in self.seen]
        self.seen |= set(client.heard)
        told = [message for message in heard if message.type == Type.CON]
        for message in told:
            client.say(encode_message(CoapMessage(Type.ACK, 0, message.message_id)))
        self.wire.run()
        return told

    def change(self, **records: User) -> None:
        """Replace all users."""
        before, self.users = self.users, Users(records)
        for permissions in self.users.replace(before):
            for holder in list(permissions.holders):
                holder.review()
        # Notifications have a turn of their own.
        self.clock.advance(0)
        self.wire.run()

    def paths(self, client: Client) -> set[str]:
        """Return the paths of the resources that are listed for a client."""
        listed = self.whole(client, ".well-known/core").decode()
        return {link.partition(">")[0].lstrip("<") for link in listed.split(",<")}

    def whole(self, client: Client, path: str) -> bytes:
        """Get a resource that is longer than one block."""
        body = b""
        while True:
            block = (int(Option.BLOCK2), Block(len(body) // 1024, False, 1024).encode())
            first, *rest = path.split("/")
            segments = [(int(Option.URI_PATH), segment.encode()) for segment in rest]
            answer = self.ask(client, Code.GET, first, b"", *segments, block)
            body += answer.payload
            value = answer.option(Option.BLOCK2)
            assert value is not None, (answer.code, answer.payload)
            if not Block.parse(value).more:
                return body

    def ask_path(
        self,
        client: Client,
        method: int,
        path: tuple[str, ...],
        payload: bytes,
        *options: tuple[int, bytes],
    ) -> CoapMessage:
        """Send a request for a path of several segments, and return the response."""
        segments = [(int(Option.URI_PATH), segment.encode()) for segment in path[1:]]
        return self.ask(client, method, path[0], payload, *segments, *options)


class NamesTests(UsersOverDtlsTestCase):
    """A name in a certificate is a user's, or nobody's."""

    def test_nobody(self) -> None:
        """With another name, or in another case, nothing is permitted: less than to strangers."""
        for i, name in enumerate(("eve", "Ann", "ANN", "ann ", "default")):
            self.users = Users({**RECORDS, "default": User(commands=("*",))})
            client = self.client(name, (THERE[0], 41_000 + i))
            for path in ("ping", "help", "events", "secret", "nope", "topics"):
                answer = self.ask(client, Code.GET, path, b"", JSON)
                self.assertEqual(answer.code, Code.UNAUTHORIZED, (name, path))
            for segments, options in (
                (("auth",), ()),
                ((".well-known", "core"), ()),
                (("topics", "a"), ()),
                (("a", "b"), ()),
                (("ping",), ((int(Option.URI_QUERY), b"\xff"),)),
                (("ping",), ((int(Option.PROXY_URI), b"coap://a/"),)),
                (("ping",), ((int(Option.BLOCK2), Block(1, False, 64).encode()),)),
                (("ping",), ((int(Option.BLOCK2), b"\x07"),)),
            ):
                answer = self.ask_path(client, Code.GET, segments, b"", *options)
                self.assertEqual(answer.code, Code.UNAUTHORIZED, (name, segments, options))
            block = (int(Option.BLOCK1), Block(0, True, 64).encode())
            answer = self.ask_path(client, Code.POST, ("echo",), b"x" * 64, block)
            self.assertEqual(answer.code, Code.UNAUTHORIZED)
            self.assertEqual(self.audited[0], ("refused", None, f"by certificate: no user {name}"))
            self.audited.clear()

    def test_nameless(self) -> None:
        """A certificate without a name is nobody's."""
        client = self.wire.connect(THERE, certificate=self.files.write("nameless"))
        self.assertEqual(self.ask(client, Code.GET, "ping").code, Code.UNAUTHORIZED)
        self.assertEqual(self.ask(self.client(None), Code.GET, "ping").code, Code.CONTENT)

    def test_later(self) -> None:
        """Who becomes a user is one from its next request on."""
        client = self.client("eve")
        self.assertEqual(self.ask(client, Code.GET, "time").code, Code.UNAUTHORIZED)
        self.change(**RECORDS, eve=User())
        self.assertEqual(self.ask(client, Code.GET, "time").code, Code.CONTENT)
        self.assertEqual(self.audited[-1], ("login", "eve", "by certificate"))

    def test_removed(self) -> None:
        """Who is removed may do nothing more, and observes nothing more."""
        client = self.client("bob")
        self.assertEqual(self.ask(client, Code.GET, "events", b"", OBSERVE).code, Code.CONTENT)
        self.change(ann=User())
        [last] = self.heard(client)
        self.assertEqual(last.code, Code.UNAUTHORIZED)
        self.assertEqual(self.coap.observers, 0)
        self.assertEqual(self.ask(client, Code.GET, "time").code, Code.UNAUTHORIZED)
        self.assertEqual(self.streams.broadcast({"event": "x"}).delivered, 0)
        self.change(**RECORDS)
        self.assertEqual(self.ask(client, Code.GET, "time").code, Code.CONTENT)

    def test_cut_back(self) -> None:
        """Who may do less goes on with what is left."""
        client = self.client("bob")
        self.ask(client, Code.GET, "stats", b"", OBSERVE)
        self.change(**RECORDS | {"bob": User(commands=("TIME",))})
        [last] = self.heard(client)
        self.assertEqual(last.code, Code.FORBIDDEN)
        self.assertEqual(self.coap.observers, 0)
        self.assertEqual(self.ask(client, Code.GET, "time").code, Code.CONTENT)
        self.assertEqual(self.ask(client, Code.GET, "ping").code, Code.FORBIDDEN)

    def test_queued(self) -> None:
        """A notification that waits behind another does not leave if it is not permitted now."""
        client, ann = self.client("bob"), self.client("ann", THERE)
        for token in (b"a", b"b"):
            path = [(int(Option.URI_PATH), segment) for segment in (b"topics", token)]
            options = [OBSERVE, *path]
            client.say(encode_message(CoapMessage(Type.CON, Code.GET, token[0], token, options)))
        self.wire.run()
        before = len(client.heard)
        for topic in ("a", "b"):
            self.ask_path(ann, Code.POST, ("topics", topic), b"news of " + topic.encode())
        self.clock.advance(0)
        self.wire.run()
        [first] = map(parse_message, client.heard[before:])
        self.assertEqual(first.payload, b"news of a")
        self.change(**RECORDS | {"bob": User(subscribe=("a",))})
        told = []
        while len(client.heard) > before:
            message = parse_message(client.heard[before])
            before += 1
            told.append((message.token, message.code, message.payload))
            client.say(encode_message(CoapMessage(Type.ACK, 0, message.message_id)))
            self.wire.run()
        self.assertEqual(
            told,
            [
                (b"a", Code.CONTENT, b"news of a"),
                (b"a", Code.CONTENT, b"news of a"),
                (b"b", Code.FORBIDDEN, b"not permitted: b"),
            ],
        )

    def test_rest_of_a_response(self) -> None:
        """Blocks of a response that was permitted are kept no longer than it is."""
        client, ann = self.client("bob"), self.client("ann", THERE)

        def block(number: int) -> CoapMessage:
            option = (int(Option.BLOCK2), Block(number, False, 64).encode())
            return self.ask_path(client, Code.GET, ("topics", "a"), b"", option, OBSERVE)

        self.ask_path(client, Code.GET, ("topics", "a"), b"", OBSERVE)
        self.ask_path(ann, Code.POST, ("topics", "a"), b"x" * 200)
        self.heard(client)
        for i, changed in enumerate((User(subscribe=("b",)), None)):
            for number in range(2):
                self.assertEqual(block(number).code, Code.CONTENT)
            self.change(**RECORDS | {"bob": changed} if changed else {"ann": RECORDS["ann"]})
            self.heard(client)
            self.assertEqual(self.coap.observers, 0)
            self.assertEqual(block(1).code, (Code.FORBIDDEN, Code.UNAUTHORIZED)[i])
            self.change(**RECORDS)

    def test_fewer_sessions(self) -> None:
        """Sessions over a lowered limit end, those first that were silent for longest."""
        first, *others = (self.client("bob", source) for source in (THERE, ELSEWHERE))
        for client in (first, *others):
            self.ask(client, Code.GET, "time")
        self.change(**RECORDS | {"bob": User(max_connections=1)})
        self.assertEqual(self.wire.server.sessions, 1)
        self.assertEqual(self.wire.server.counts.ended[End.USER_LIMIT], 1)
        self.assertEqual(self.ask(others[0], Code.GET, "time").code, Code.CONTENT)

    def test_limit_of_the_next(self) -> None:
        """A session that was never used counts too, when the next one begins."""
        for source in (THERE, ELSEWHERE):
            self.client("bob", source)
        self.users = Users({"bob": User(max_connections=1)})
        self.client("bob")
        self.assertEqual(self.wire.server.sessions, 1)


class EventsTests(UsersOverDtlsTestCase):
    """Events are for users who may receive them, whichever door they come from."""

    def test_observers(self) -> None:
        """Who may subscribe to the topic of BROADCAST observes events, of other doors too."""
        bob, deaf = self.client("bob"), self.client("deaf", THERE)
        stranger = self.client(None, ELSEWHERE)
        for client, code in (
            (bob, Code.CONTENT),
            (deaf, Code.FORBIDDEN),
            (stranger, Code.UNAUTHORIZED),
        ):
            self.assertEqual(self.ask(client, Code.GET, "events", b"", OBSERVE).code, code)
        self.assertEqual(self.coap.observers, 1)
        heard: list[bytes] = []
        session = self.streams.open("h", 1, heard.append)
        session.log_in(Permissions("tom", User()))
        delivery = self.streams.broadcast({"event": "news"})
        self.wire.run()
        self.assertEqual((delivery.delivered, dict(delivery.failures)), (2, {}))
        [told] = self.heard(bob)
        self.assertEqual(told.payload, b'{"event":"news"}')
        self.assertEqual(heard, [b'{"event":"news"}\n'])
        self.assertEqual(self.heard(deaf) + self.heard(stranger), [])

    def test_sender(self) -> None:
        """A broadcast over CoAP reaches the clients of other doors, and observers."""
        heard: list[bytes] = []
        session = self.streams.open("h", 1, heard.append)
        session.log_in(Permissions("tom", User()))
        silent = self.streams.open("h", 2, heard.append)
        silent.permissions = self.anonymous
        ann, bob = self.client("ann"), self.client("bob", THERE)
        self.ask(bob, Code.GET, "events", b"", OBSERVE)
        answer = json.loads(self.ask(ann, Code.POST, "broadcast", b"hi").payload)
        self.assertEqual((answer["delivered"], answer["failed"]), (2, 1))
        self.assertEqual(list(answer["failures"].values()), ["not_observing"])
        self.assertEqual(json.loads(heard[0])["message"], "hi")
        self.assertEqual(len(heard), 1)
        [told] = self.heard(bob)
        self.assertEqual(json.loads(told.payload)["message"], "hi")

    def test_last(self) -> None:
        """The last event is known, also if no peer had a session when it was sent."""
        self.streams.broadcast({"event": "news"})
        answer = self.ask(self.client("bob"), Code.GET, "events")
        self.assertEqual(answer.payload, b'{"event":"news"}')


class ForbiddenTests(UsersOverDtlsTestCase):
    """What a peer may not use does not exist for it."""

    def test_lists(self) -> None:
        """The list of resources and HELP have what the peer may use."""
        ann, bob = self.client("ann"), self.client("bob", THERE)
        admin = {f"/{command.name.lower()}" for command in self.coap.commands if command.admin}
        every = {
            f"/{command.name.lower()}"
            for command in self.coap.commands
            if command.name not in ("AUTH", "MONITOR", "SUBSCRIBE", "UNSUBSCRIBE")
        }
        more = {"/.well-known/core", "/events"}
        self.assertEqual(self.paths(ann), every | more)
        self.assertEqual(self.paths(bob), every - admin | more)
        self.assertEqual(self.paths(self.client(None, ELSEWHERE)), {"/.well-known/core", "/ping"})
        for client, paths in ((ann, every), (bob, every - admin)):
            listed = json.loads(self.whole(client, "help"))["commands"]
            self.assertEqual({f"/{command['name'].lower()}" for command in listed}, paths)
        for path in ("auth", "monitor", "subscribe", "unsubscribe"):
            self.assertEqual(self.ask(ann, Code.POST, path, b"a").code, Code.NOT_FOUND, path)

    def test_alike(self) -> None:
        """A command that may not be used, and one that there is not, are answered alike."""
        bob, stranger = self.client("bob"), self.client(None, THERE)
        for client, code in ((bob, Code.FORBIDDEN), (stranger, Code.UNAUTHORIZED)):
            for method, payload, options in (
                (Code.GET, b"", ()),
                (Code.POST, b"", ()),
                (Code.PUT, b"", ()),
                (Code.POST, b"\xff", ()),
                (Code.POST, b"[1", ((int(Option.CONTENT_FORMAT), b"\x32"),)),
                (Code.POST, b"a", ((int(Option.CONTENT_FORMAT), b"\x3c"),)),
                (Code.POST, b"a", ((int(Option.IF_NONE_MATCH), b""),)),
                (Code.GET, b"", ((int(Option.ACCEPT), b"\x3c"),)),
                (Code.POST, b"a b c d e", (JSON,)),
            ):
                one, other = (
                    self.ask(client, method, name, payload, *options)
                    for name in ("secret", "secreu")
                )
                self.assertEqual((one.code, other.code), (code, code), (method, options))
                self.assertEqual(
                    one.payload.replace(b"SECRET", b"SECREU"), other.payload, (method, options)
                )
        self.assertEqual(self.coap.commands.by_name["SECRET"].calls, 0)

    def test_found(self) -> None:
        """Who may use everything is told what is wrong."""
        ann = self.client("ann")
        self.assertEqual(self.ask(ann, Code.GET, "nope").code, Code.NOT_FOUND)
        self.assertEqual(self.ask(ann, Code.GET, "kill").code, Code.METHOD_NOT_ALLOWED)
        self.assertEqual(self.ask(ann, Code.GET, "a/b").code, Code.NOT_FOUND)

    def test_counted(self) -> None:
        """Both are counted and audited."""
        bob = self.client("bob")
        for name in ("secret", "nope"):
            self.ask(bob, Code.POST, name)
        [session] = self.coap.sessions
        self.assertEqual(session.messages, 2)
        self.assertEqual(
            self.audited[1:],
            [
                ("refused", "bob", "not_permitted: SECRET"),
                ("refused", "bob", "not_permitted: nope"),
            ],
        )
