"""Who may do and hear what is the same at every door at which clients log in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.memory import Connection, Reactor
from tests.tcp.test_websocket import Client as WebSocketClient
from twisted_net.auth.users import AuthSettings, Permissions, User, Users
from twisted_net.commands.registry import Request
from twisted_net.commands.standard import standard_commands
from twisted_net.errors import AuthFailed, NotPermitted
from twisted_net.ops.instruments import Instruments
from twisted_net.ops.slowlog import SlowLog, SlowLogSettings
from twisted_net.reasons import Audited
from twisted_net.sessions import Session, Sessions
from twisted_net.tcp.admission import Access
from twisted_net.tcp.handshakes import Handshakes
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.proxy_header import TrustedProxies
from twisted_net.tcp.proxy_protocol import ProxyFactory
from twisted_net.tcp.server import CommandFactory
from twisted_net.tcp.websocket import WebSocketFactory

RECORDS = {
    "ann": User(commands=("*",)),
    "bob": User(),
    "mute": User(publish=()),
    "deaf": User(subscribe=()),
    "part": User(subscribe=("*", "-broadcast")),
    "shop": User(subscribe=("shop.*",)),
    "few": User(commands=("PING", "HELP", "S*", "-STATS")),
}
"""The users; each logs in by its name alone."""

HEADER = b"PROXY TCP4 192.0.2.1 198.51.100.2 50000 8888\r\n"


class DoorClient(Protocol):
    """A client at one of the doors."""

    def ask(self, *lines: str) -> list[Any]:  # Any: JSON
        """Send lines, and take all that comes meanwhile, decoded."""


class LineClient:
    """A client that sends lines as they are."""

    def __init__(self, reactor: Reactor, connection: Connection) -> None:
        self._reactor = reactor
        self.connection = connection

    def ask(self, *lines: str) -> list[Any]:  # Any: as above
        """Send lines, and take what comes."""
        self.connection.send("".join(f"{line}\n" for line in lines).encode())
        self._reactor.settle()
        return self.connection.answers()


class MessageClient:
    """A client that sends each line as a message of its WebSocket."""

    def __init__(self, client: WebSocketClient) -> None:
        self._client = client
        self.connection = client.connection

    def ask(self, *lines: str) -> list[Any]:  # Any: as above
        """Send lines, and take what comes."""
        self._client.say(*lines)
        return self._client.answers()


class AccessWorld:
    """A server with users, and the doors to it."""

    def __init__(self, settings: AuthSettings | None = None, **limits: Any) -> None:
        self.reactor = Reactor()
        self.users = Users(RECORDS)
        self.waits: list[Deferred[str]] = []
        self.audited: list[tuple[str, str | None, str]] = []
        self.commands = commands = standard_commands(log_in=self.log_in)
        commands.command("WAIT")(self.wait)
        commands.command("KEEP")(self.keep)
        commands.command("TAKEOVER", alone=True, admin=True)(lambda: "taken")
        instruments = Instruments(self.audit, SlowLog(SlowLogSettings(waiting_threshold=1.0)))
        self.sessions = Sessions(self.reactor.seconds, instruments=instruments)
        settings = settings or AuthSettings(users="users.toml", anonymous=("PING", "HELP"))
        access = Access(settings, lambda name: self.users.permissions(name))
        self.factory = CommandFactory(
            self.reactor, commands, Limits(**limits), self.sessions, access
        )
        self.handshakes = Handshakes(self.reactor, 10, 100, self.sessions.refused)

    def audit(self, event: str, client: Audited, what: str) -> None:
        """Take a line of the audit."""
        self.audited.append((event, client.user, what))

    async def log_in(self, session: Session, who: str, password: str) -> str:
        """Log a user in by its name."""
        permissions = self.users.permissions(who)
        if permissions is None:
            raise AuthFailed
        session.log_in(permissions)
        return who

    async def wait(self, request: Request) -> str:
        """Answer once the test says so."""
        self.waits.append(Deferred())
        return await self.waits[-1]

    def keep(self, request: Request, value: str = "") -> str:
        """Keep a value for the next call."""
        before = request.session.data.get("kept", "")
        if value:
            request.session.data["kept"] = value
        return cast(str, before)

    def replace(self, **records: User) -> None:
        """Change users as a users file does; none is removed."""
        before, self.users = self.users, Users({**RECORDS, **records})
        self._review(before)

    def remove(self, name: str) -> None:
        """Remove a user as a users file does."""
        left = {known: user for known, user in RECORDS.items() if known != name}
        before, self.users = self.users, Users(left)
        self._review(before)

    def _review(self, before: Users) -> None:
        for permissions in self.users.replace(before):
            for holder in list(permissions.holders):
                holder.review()
        self.reactor.settle()

    def end(self) -> None:
        """End all connections; nothing is left."""
        self.factory.abort()
        self.reactor.settle()
        assert not self.reactor.getDelayedCalls()
        assert not len(self.factory.guard.admission._users)
        for permissions in map(self.users.permissions, RECORDS):
            assert permissions is None or not permissions.holders


Door = Callable[[AccessWorld], DoorClient]


def tcp(world: AccessWorld) -> DoorClient:
    """Connect over plain TCP."""
    return LineClient(world.reactor, world.reactor.connect(world.factory))


def tls(world: AccessWorld) -> DoorClient:
    """Connect over TLS."""
    return LineClient(world.reactor, world.reactor.connect(world.factory, tls=True))


def unix(world: AccessWorld) -> DoorClient:
    """Connect to a Unix socket."""
    return LineClient(world.reactor, world.reactor.connect(world.factory, UNIXAddress(None)))


def proxy(world: AccessWorld) -> DoorClient:
    """Connect through a proxy that sends the client's address."""
    factory = ProxyFactory(world.factory, TrustedProxies(["10.0.0.0/8"]), world.handshakes)
    connection = world.reactor.connect(factory, IPv4Address("TCP", "10.0.0.1", 40_000))
    connection.send(HEADER)
    world.reactor.settle()
    return LineClient(world.reactor, connection)


def websocket(world: AccessWorld) -> DoorClient:
    """Connect over WebSocket."""
    factory = WebSocketFactory(world.factory, world.handshakes, world.reactor, [])
    client = WebSocketClient(world.reactor, factory)
    client.open()
    return MessageClient(client)


DOORS: tuple[Door, ...] = (tcp, tls, unix, proxy, websocket)


def codes(answers: list[Any]) -> list[object]:  # Any: as above
    """Return what each answer or event is, in a word."""
    return [
        answer.get("event") or answer.get("code") or answer.get("result", answer.get("command"))
        for answer in answers
    ]


class AccessDoorsTestCase(SynchronousTestCase):
    """Tries the same at each door."""

    settings: AuthSettings | None = None

    def doors(self, **limits: Any) -> Iterator[tuple[AccessWorld, DoorClient]]:
        """Iterate over new worlds with a client each, which has not logged in."""
        for door in DOORS:
            with self.subTest(door=door.__name__):
                world = AccessWorld(self.settings, **limits)
                yield world, door(world)
                world.end()


class UnaskedTests(AccessDoorsTestCase):
    """What nobody asked for reaches those alone who may hear it."""

    def test_broadcast(self) -> None:
        """A broadcast reaches users who may subscribe to its topic, and nobody before a login."""
        for world, client in self.doors():
            sender = tcp(world)
            sender.ask("AUTH bob")
            for user, hears in (
                (None, False),
                ("ann", True),
                ("deaf", False),
                ("part", False),
                ("shop", False),
                ("bob", True),
            ):
                if user is not None:
                    client.ask(f"AUTH {user}")
                *_, answer = sender.ask("BROADCAST hello")
                got = ["hello"] if hears else []
                self.assertEqual([event["message"] for event in client.ask()], got, user)
                self.assertEqual((answer["delivered"], answer["failed"]), (1 + hears, 0), user)

    def test_application(self) -> None:
        """An event of the application itself reaches no others than BROADCAST does."""
        for world, client in self.doors():
            self.assertEqual(world.sessions.broadcast({"event": "news"}).delivered, 0)
            self.assertEqual(client.ask(), [])
            client.ask("AUTH bob")
            self.assertEqual(world.sessions.broadcast({"event": "news"}).delivered, 1)
            self.assertEqual(client.ask(), [{"event": "news"}])

    def test_sending(self) -> None:
        """To send one takes the command and its topic."""
        for _, client in self.doors():
            self.assertEqual(codes(client.ask("BROADCAST hi")), ["auth_required"])
            for user in ("mute", "few"):
                self.assertEqual(
                    codes(client.ask(f"AUTH {user}", "BROADCAST hi")), ["AUTH", "not_permitted"]
                )

    def test_topic(self) -> None:
        """The topic of BROADCAST is no other topic's name, and no wildcard brings it."""
        for _, client in self.doors():
            lines = ("AUTH ann", "SUBSCRIBE broadcast", "PUBLISH broadcast hi", "SUBSCRIBE >")
            expected = ["AUTH", "bad_topic", "bad_topic", "SUBSCRIBE"]
            self.assertEqual(codes(client.ask(*lines)), expected)
            self.assertEqual(codes(client.ask("BROADCAST hi")), ["broadcast", "BROADCAST"])

    def test_own_concerns(self) -> None:
        """What concerns itself a client hears without a login: that the server stops."""
        for world, client in self.doors():
            world.factory.drain(1.0)
            self.assertEqual([event["event"] for event in client.ask()], ["shutdown"])

    def test_anonymous_topics(self) -> None:
        """A client that has not logged in subscribes to nothing, whatever it may run."""
        self.settings = AuthSettings(users="x", anonymous=("*",))
        for world, client in self.doors():
            self.assertEqual(
                codes(client.ask("SUBSCRIBE >", "PUBLISH a b", "BROADCAST hi")),
                ["auth_required"] * 3,
            )
            self.assertEqual(world.sessions.broadcast({"event": "news"}).delivered, 0)


class AgainTests(AccessDoorsTestCase):
    """Logging in again is as a new connection."""

    def test_monitor(self) -> None:
        """MONITOR ends with the next login, as the same user too."""
        for world, client in self.doors():
            for user in ("bob", "ann"):
                client.ask("AUTH ann", "MONITOR")
                self.assertEqual(len(world.sessions.instruments.monitors), 1)
                client.ask(f"AUTH {user}")
                self.assertEqual(len(world.sessions.instruments.monitors), 0)
                tcp(world).ask("PING")
                self.assertEqual(client.ask(), [])

    def test_subscriptions(self) -> None:
        """Subscriptions end, and so do the messages that wait, the queue's rule and the data."""
        for world, client in self.doors():
            for user in ("bob", "ann"):
                client.ask("AUTH ann", "SUBSCRIBE a disconnect", "KEEP secret")
                connection = cast(LineClient, client).connection
                connection.reads = False
                for _ in range(3):
                    world.sessions.topics.publish("a", "x" * 100_000)
                    world.reactor.settle()
                lost = world.sessions.topics.lost
                client.ask(f"AUTH {user}")
                # Not even read: the connection is not, either.
                self.assertEqual(world.sessions.topics.lost, lost)
                connection.reads = True
                world.reactor.settle()
                while client.ask():
                    pass
                world.sessions.topics.publish("a", "again")
                self.assertEqual(client.ask(), [])
                self.assertEqual(client.ask("KEEP")[0]["result"], "")
                [answer] = client.ask("SUBSCRIBE b")
                self.assertEqual((answer["subscriptions"], answer["when_slow"]), (1, "drop_oldest"))

    def test_waits_for_what_runs(self) -> None:
        """It waits for the commands before it, which have their user's permissions to their end."""
        for world, client in self.doors():
            client.ask("AUTH ann")
            self.assertEqual(client.ask("WAIT", "PING", "AUTH bob", "CLIENTS", "PING"), [])
            [session] = world.sessions
            self.assertEqual(session.user, "ann")
            world.reactor.pass_time(2.0)
            world.waits.pop().callback("done")
            self.assertEqual(codes(client.ask()), ["done", "PONG", "AUTH", "not_permitted", "PONG"])
            self.assertEqual(session.user, "bob")
            [slow] = world.sessions.instruments.slow_log.latest(9)
            self.assertEqual((slow.user, slow.line), ("ann", "WAIT"))

    def test_failed(self) -> None:
        """A login that fails changes nothing."""
        for world, client in self.doors():
            client.ask("AUTH ann", "MONITOR", "SUBSCRIBE a", "KEEP mine")
            self.assertEqual(codes(client.ask("AUTH nobody")), ["auth_failed"])
            [session] = world.sessions
            self.assertEqual(session.user, "ann")
            self.assertIn(session, world.sessions.instruments.monitors)
            world.sessions.topics.publish("a", "news")
            self.assertEqual(codes(client.ask("KEEP")), ["message", "mine"])

    def test_one_too_many(self) -> None:
        """A login that is refused for the number of connections changes nothing."""
        for world, client in self.doors():
            world.replace(bob=User(max_connections=1))
            tcp(world).ask("AUTH bob")
            client.ask("AUTH ann", "SUBSCRIBE a")
            self.assertEqual(codes(client.ask("AUTH bob")), ["too_many_connections"])
            world.sessions.topics.publish("a", "news")
            self.assertEqual(codes(client.ask("STATS")), ["message", "STATS"])

    def test_rates(self) -> None:
        """A user's rate is its own; that of an address does not begin anew."""
        for _, client in self.doors(commands_per_user=1.0, command_burst=4):
            client.ask("AUTH ann")
            limited = codes(client.ask(*["PING"] * 5))
            self.assertEqual(limited, ["PONG"] * 4 + ["rate_limited"])
            self.assertEqual(codes(client.ask("AUTH bob")), ["rate_limited"])
        for _, client in self.doors(commands_per_network=1.0, command_burst=4):
            self.assertEqual(
                codes(client.ask("AUTH ann", "PING", "AUTH bob", "PING", "PING", "AUTH ann")),
                ["AUTH", "PONG", "AUTH", "PONG", "rate_limited", "rate_limited"],
            )


class CutBackTests(AccessDoorsTestCase):
    """A user that may do less, or is none any more, loses it on open connections."""

    def test_commands(self) -> None:
        """Commands and topics that are forbidden are so from the next line on."""
        for world, client in self.doors():
            client.ask("AUTH ann")
            world.replace(ann=User(commands=("PING", "PUBLISH"), publish=("a.*",)))
            self.assertEqual(
                codes(client.ask("PING", "CLIENTS", "PUBLISH a.b c", "PUBLISH b c")),
                ["PONG", "not_permitted", "PUBLISH", "not_permitted"],
            )

    def test_begun(self) -> None:
        """Subscriptions that are forbidden end, MONITOR too, and the client is told."""
        for world, client in self.doors():
            client.ask("AUTH ann", "SUBSCRIBE a.>", "SUBSCRIBE b", "MONITOR", "KEEP mine")
            world.replace(ann=User(subscribe=("b",)))
            self.assertEqual(
                client.ask(),
                [
                    {"event": "unwatched", "code": "not_permitted"},
                    {"event": "unsubscribed", "pattern": "a.>", "code": "not_permitted"},
                ],
            )
            for topic in ("a.c", "b"):
                world.sessions.topics.publish(topic, "hi")
            world.sessions.broadcast({"event": "news"})
            tcp(world).ask("PING")
            [message] = client.ask()
            self.assertEqual(message["topic"], "b")
            self.assertEqual(codes(client.ask("KEEP")), ["mine"])

    def test_more(self) -> None:
        """What a user may do beside, it may at once, and loses nothing."""
        for world, client in self.doors():
            client.ask("AUTH shop", "SUBSCRIBE shop.x")
            world.replace(shop=User(commands=("*",)))
            self.assertEqual(codes(client.ask("MONITOR", "SUBSCRIBE a")), ["MONITOR", "SUBSCRIBE"])
            world.sessions.topics.publish("shop.x", "hi")
            world.sessions.broadcast({"event": "news"})
            self.assertEqual(codes(client.ask()), ["news", "message"])

    def test_removed(self) -> None:
        """A removed user is logged out: nothing but AUTH, and soon, as without a login."""
        for world, client in self.doors():
            client.ask("AUTH ann", "SUBSCRIBE a", "MONITOR", "KEEP mine")
            world.remove("ann")
            self.assertEqual(client.ask(), [{"event": "logged_out", "code": "user_removed"}])
            world.sessions.topics.publish("a", "hi")
            world.sessions.broadcast({"event": "news"})
            tcp(world).ask("PING")
            self.assertEqual(
                codes(client.ask("PING", "HELP", "NOPE", "AUTH ann", "AUTH bob", "KEEP")),
                ["auth_required"] * 3 + ["auth_failed", "AUTH", ""],
            )
            world.remove("bob")
            client.ask()
            world.reactor.pass_time(12.0)
            [closing] = client.ask()
            self.assertEqual(closing, {"event": "closing", "reason": "auth_timeout"})

    def test_limits_of_strangers(self) -> None:
        """Who was logged out has the limits of one that has not logged in."""
        for world, client in self.doors():
            client.ask("AUTH ann")
            self.assertEqual(codes(client.ask("PING " + "x" * 2000)), ["bad_arguments"])
            world.remove("ann")
            self.assertEqual(
                codes(client.ask("PING " + "x" * 2000)), ["logged_out", "line_too_long"]
            )
            client.ask("AUTH bob")
            self.assertEqual(codes(client.ask("PING " + "x" * 2000)), ["bad_arguments"])

    def test_running(self) -> None:
        """What runs goes on to its end, as a command of the user that it was."""
        for world, client in self.doors():
            client.ask("AUTH ann", "WAIT")
            world.remove("ann")
            world.reactor.pass_time(2.0)
            world.waits.pop().callback("done")
            self.assertEqual(codes(client.ask()), ["logged_out", "done"])
            [slow] = world.sessions.instruments.slow_log.latest(9)
            self.assertEqual((slow.user, slow.line), ("ann", "WAIT"))

    def test_rate(self) -> None:
        """The rate of a removed user limits the client no longer."""
        for world, client in self.doors(commands_per_user=1.0, command_burst=4):
            client.ask("AUTH ann")
            self.assertEqual(codes(client.ask(*["PING"] * 5))[-1], "rate_limited")
            world.remove("ann")
            self.assertEqual(codes(client.ask("PING")), ["logged_out", "auth_required"])

    def test_fewer_connections(self) -> None:
        """Over a lowered limit those that have been logged in for longest are closed."""
        for world, client in self.doors():
            client.ask("AUTH bob")
            others = [tcp(world), tcp(world)]
            for other in others:
                other.ask("AUTH bob")
            world.replace(bob=User(max_connections=2))
            self.assertEqual(client.ask(), [{"event": "closing", "reason": "user_limit"}])
            for other in others:
                self.assertEqual(codes(other.ask("PING")), ["PONG"])
            late = tcp(world)
            self.assertEqual(codes(late.ask("AUTH bob")), ["too_many_connections"])

    def test_while_it_logs_in(self) -> None:
        """Who comes back as another user keeps what that one may do."""
        for world, client in self.doors():
            client.ask("AUTH ann", "AUTH bob", "SUBSCRIBE a")
            world.remove("ann")
            self.assertEqual(codes(client.ask("STATS")), ["STATS"])

    def test_returned(self) -> None:
        """A user that is there again must log in again."""
        for world, client in self.doors():
            client.ask("AUTH ann")
            world.remove("ann")
            world.replace()
            self.assertEqual(
                codes(client.ask("STATS", "AUTH ann", "STATS")),
                ["logged_out", "auth_required", "AUTH", "STATS"],
            )


class HelpTests(AccessDoorsTestCase):
    """HELP lists what the client may run, and nothing else exists for it."""

    def listed(self, client: DoorClient, *more: str) -> list[str]:
        """Return the names that HELP lists."""
        *_, answer = client.ask(*more, "HELP")
        return [command["name"] for command in answer["commands"]]

    def test_list(self) -> None:
        """It is what may be run, before and after each login."""
        for world, client in self.doors():
            every = [command.name for command in world.commands]
            admin = [command.name for command in world.commands if command.admin]
            self.assertEqual(self.listed(client), ["AUTH", "HELP", "PING"])
            self.assertEqual(self.listed(client, "AUTH ann"), every)
            self.assertEqual(
                self.listed(client, "AUTH bob"), [name for name in every if name not in admin]
            )
            self.assertEqual(
                self.listed(client, "AUTH few"),
                ["AUTH", "HELP", "PING", "SLOWLOG", "SUBSCRIBE"],
            )

    def test_one(self) -> None:
        """Help on a command that may not be run is as that on one that does not exist."""
        for _, client in self.doors():
            client.ask("AUTH few")
            [there], [absent] = client.ask("HELP stats"), client.ask("HELP stata")
            self.assertEqual(there["error"].replace("stats", "stata"), absent["error"])
            self.assertEqual(there | {"error": ""}, absent | {"error": ""})
            self.assertEqual(there["code"], "unknown_command")


class ForbiddenTests(AccessDoorsTestCase):
    """A command that may not be run answers as one that does not exist."""

    def test_alike(self) -> None:
        """The answers are the same but for the name, whatever the arguments."""
        for world, client in self.doors():
            for user in ("", "bob", "few"):
                client.ask(f"AUTH {user}")
                for there, absent in (
                    ("KILL", "KILM"),
                    ("KILL user x", "KILM user x"),
                    ('KILL "a', 'KILM "a'),
                    ("kill", "kilm"),
                    ("MONITOR x y z", "MONITOP x y z"),
                ):
                    if user == "few" and there[0] == "M":
                        continue
                    [one], [other] = client.ask(there), client.ask(absent)
                    names = (there.split()[0].upper(), absent.split()[0].upper())
                    expected = {
                        key: value.replace(names[0], names[1]) if key != "code" else value
                        for key, value in one.items()
                    }
                    self.assertEqual(expected, other)
                    self.assertIn(one["code"], ("auth_required", "not_permitted"))
            self.assertEqual(world.commands.by_name["KILL"].calls, 0)

    def test_alone(self) -> None:
        """One that would run alone keeps nothing waiting if it may not be run."""
        for world, client in self.doors():
            watcher = tcp(world)
            watcher.ask("AUTH ann", "SUBSCRIBE a")
            for user, name, at_once in (
                ("bob", "TAKEOVES", True),
                ("bob", "TAKEOVER", True),
                ("ann", "TAKEOVER", False),
            ):
                client.ask(f"AUTH {user}")
                client.ask("WAIT", name, "PUBLISH a hi")
                self.assertEqual(bool(watcher.ask()), at_once, (user, name))
                world.waits.pop().callback("done")
                *_, answer = codes(client.ask())
                self.assertEqual(answer, "PUBLISH")
                watcher.ask()

    def test_everything_permitted(self) -> None:
        """Who may run everything is told that there is no such command."""
        for _, client in self.doors():
            self.assertEqual(codes(client.ask("AUTH ann", "NOPE")), ["AUTH", "unknown_command"])

    def test_fallback(self) -> None:
        """A fallback answers what is no command, to all who might run it if it were one."""
        for world, client in self.doors():
            world.commands.fallback = lambda request, text: {"result": text}
            lines = ("hello", "AUTH bob", "hello", "AUTH few", "hello", "So what")
            self.assertEqual(
                codes(client.ask(*lines)),
                ["auth_required", "AUTH", "hello", "AUTH", "not_permitted", "So what"],
            )

    def test_same_work(self) -> None:
        """The time says no more than the answer: as many patterns are looked at."""
        looked_at: list[str] = []

        class Spy(str):
            def removeprefix(self, prefix: str, /) -> str:
                looked_at.append(str(self))
                return super().removeprefix(prefix)

        permissions = Permissions("eve", User(commands=("*", "-@admin")))
        permissions._commands = tuple(map(Spy, permissions._commands))
        work = []
        for name, admin, known in (
            ("KILL", True, True),
            ("KILL", True, True),
            ("KILM", False, False),
            ("KILM", False, False),
        ):
            looked_at.clear()
            self.assertRaises(NotPermitted, permissions.check_command, name, admin, known)
            work.append(len(looked_at))
        self.assertEqual(len(set(work)), 1, work)
