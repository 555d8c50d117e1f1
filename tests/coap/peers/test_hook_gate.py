"""Session hooks over CoAP: requests wait for them, and are refused by them."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from tests.coap.coap_driver import OBSERVE, OTHER, REMOTE, Driver, ServerTests
from twisted_net.coap.codec import Code, Option
from twisted_net.coap.settings import CoapLimits
from twisted_net.commands.standard import standard_commands
from twisted_net.errors import CommandError
from twisted_net.reasons import End
from twisted_net.sessions import Session, SessionHooks


class HookGateTests(ServerTests):
    """A server with hooks that the test fires."""

    def setUp(self) -> None:
        super().setUp()
        self.hooks: SessionHooks = self.driver.server.sessions.hooks
        self.ends: list[tuple[str, End]] = []
        self.deciding: list[Deferred[None]] = []
        self.hooks.on_close(lambda session, end: self.ends.append((session.name, end)))

    def decide_later(self) -> None:
        """Let peers wait until the test decides."""

        @self.hooks.on_open
        async def decide(session: Session) -> None:
            self.deciding.append(Deferred())
            await self.deciding[-1]

    def responses(self) -> list[tuple[int, bytes]]:
        """Return the codes and payloads of the responses, each acknowledged."""
        found = [answer for answer in self.driver.answers() if answer.code]
        for answer in found:
            self.driver.acknowledge(answer)
        return [(answer.code, answer.payload) for answer in found]

    def test_plain(self) -> None:
        """A plain hook is called once for a peer, with its first request."""
        seen: list[str] = []
        self.hooks.on_open(lambda session: seen.append(session.name))
        for _ in range(2):
            self.assertEqual(self.ask(Code.GET, "ping").payload, b"PONG")
        self.ask(Code.GET, "ping", source=OTHER)
        self.assertEqual(seen, ["127.0.0.1:40000", "127.0.0.1:40001"])

    def test_refused(self) -> None:
        """A peer that is refused gets the error, has no session, and is asked about again."""

        @self.hooks.on_open
        def refuse(session: Session) -> None:
            raise CommandError("not you")

        for _ in range(2):
            answer = self.ask(Code.POST, "note", b"x")
            self.assertIn(b"not you", answer.payload)
        self.assertEqual((len(self.driver.server.sessions), self.runs), (0, []))
        self.assertEqual(self.ends, [("127.0.0.1:40000", End.REFUSED)] * 2)

    def test_later(self) -> None:
        """Requests wait for an async hook, and run when it has ended; each is counted once."""
        self.decide_later()
        self.driver.send(Code.POST, "note", b"a", token=b"1")
        self.driver.send(Code.POST, "note", b"b", token=b"2")
        self.assertEqual((self.runs, self.responses()), ([], []))
        self.deciding.pop().callback(None)
        self.assertEqual([payload for _, payload in self.responses()], [b"a", b"b"])
        self.assertEqual((self.runs, self.deciding), (["a", "b"], []))
        (session,) = self.driver.server.sessions
        self.assertEqual(session.messages, 2)

    def test_refused_later(self) -> None:
        """All requests that wait are refused with the peer."""
        self.decide_later()
        self.driver.send(Code.POST, "note", b"a", token=b"1")
        self.driver.send(Code.GET, "ping", token=b"2")
        self.deciding.pop().errback(CommandError("not you"))
        self.assertEqual([b"not you" in payload for _, payload in self.responses()], [True, True])
        self.assertEqual((len(self.driver.server.sessions), self.runs), (0, []))

    def test_time_limit(self) -> None:
        """A hook that takes longer than a command may is cancelled, and refuses."""
        self.decide_later()
        self.driver.send(Code.POST, "note", b"a")
        self.driver.clock.advance(self.driver.server.limits.command_timeout)
        self.assertEqual(len(self.responses()), 1)
        self.assertEqual((len(self.driver.server.sessions), self.runs), (0, []))

    def test_bug(self) -> None:
        """A bug refuses, and is logged."""
        self.hooks.on_open(lambda session: 1 // 0)
        self.assertEqual(self.ask(Code.GET, "ping").code, Code.INTERNAL_SERVER_ERROR)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_forged(self) -> None:
        """No hook is called for an address that may be forged, nor is a command run for it."""
        seen: list[str] = []
        self.hooks.on_open(lambda session: seen.append(session.name))
        answer = self.ask(Code.GET, "ping", source=REMOTE)
        self.assertEqual((answer.code, seen), (Code.UNAUTHORIZED, []))
        self.assertEqual((len(self.driver.server.sessions), self.ends), (0, []))
        echo = answer.option(Option.ECHO)
        assert echo is not None
        answer = self.ask(Code.GET, "ping", options=[(int(Option.ECHO), echo)], source=REMOTE)
        self.assertEqual((answer.payload, seen), (b"PONG", ["192.0.2.1:40000"]))
        self.assertEqual(len(self.driver.server.sessions), 1)

    def test_multicast(self) -> None:
        """A request to a group does not wait, and is not answered."""
        self.decide_later()
        self.driver.send(Code.GET, "ping", group=True, kind=1)
        self.driver.clock.advance(self.driver.server.limits.leisure)
        self.assertEqual(self.driver.answers(), [])
        self.deciding.pop().callback(None)

    def test_waiting_is_bounded(self) -> None:
        """Requests that wait for hooks are within the limit of those that wait for commands."""
        self.driver.leftovers()
        self.driver = Driver(standard_commands(), CoapLimits(max_waiting_per_peer=1))
        self.hooks = self.driver.server.sessions.hooks
        self.decide_later()
        self.driver.send(Code.GET, "ping", token=b"1")
        self.driver.send(Code.GET, "ping", token=b"2")
        self.assertEqual([code for code, _ in self.responses()], [Code.SERVICE_UNAVAILABLE])
        self.deciding.pop().callback(None)
        self.assertEqual([payload for _, payload in self.responses()], [b"PONG"])

    def test_lost_meanwhile(self) -> None:
        """The outcome for a peer that is lost is none for its next session."""
        self.decide_later()
        self.driver.send(Code.GET, "ping")
        self.driver.server.peer_lost(("127.0.0.1", 40_000), End.CONNECTION_LOST)
        self.driver.send(Code.GET, "ping")
        self.deciding.pop(0).errback(CommandError("not you"))
        self.assertEqual(len(self.driver.server.sessions), 1)
        self.deciding.pop(0).callback(None)
        self.assertEqual(self.responses()[-1][1], b"PONG")

    def test_subscribe(self) -> None:
        """A topic may be refused to who reads or observes it; another one is no resource of it."""

        @self.hooks.on_subscribe
        def decide(session: Session, pattern: str) -> str | None:
            if pattern == "secret":
                raise CommandError("not that")
            return "else" if pattern == "moved" else None

        for topic, code in (
            ("open", Code.CONTENT),
            ("secret", Code.FORBIDDEN),
            ("moved", Code.FORBIDDEN),
        ):
            for options in ((), (OBSERVE,)):
                answer = self.ask(Code.GET, f"topics/{topic}", options=options)
                self.assertEqual(answer.code, code, topic)
        self.assertEqual(self.driver.server.observers, 1)

    def test_subscribe_later(self) -> None:
        """Who observes a topic waits for an async hook; notifications ask nothing."""
        asked: list[str] = []

        @self.hooks.on_subscribe
        async def decide(session: Session, pattern: str) -> None:
            asked.append(pattern)
            self.deciding.append(Deferred())
            await self.deciding[-1]

        self.driver.send(Code.GET, "topics/a", options=[OBSERVE])
        self.assertEqual(self.driver.server.observers, 0)
        self.deciding.pop().callback(None)
        self.assertEqual([code for code, _ in self.responses()], [Code.CONTENT])
        self.assertEqual(self.driver.server.observers, 1)
        self.driver.server.sessions.topics.publish("a", "1")
        self.assertEqual([payload for _, payload in self.responses()], [b"1"])
        self.assertEqual(asked, ["a"])
