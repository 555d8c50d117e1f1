"""What touches many connections leaves room for the others: so many in each turn, none twice."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address

import twisted_net.commands.admin as admin_module
from tests.tcp.memory import Connection
from tests.tcp.server_case import ServerTestCase
from twisted_net.auth.users import AuthSettings, Permissions, User
from twisted_net.commands.admin import LISTED_AT_ONCE
from twisted_net.commands.standard import standard_commands
from twisted_net.ops.instruments import Instruments
from twisted_net.ops.slowlog import SlowLog, SlowLogSettings
from twisted_net.ops.timestamps import iso_time
from twisted_net.sessions import Sessions
from twisted_net.tcp.admission import Access
from twisted_net.tcp.connection import CommandProtocol
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.server import CommandFactory
from twisted_net.turns.steps import ENDS_AT_ONCE


class ManyEndsTestCase(ServerTestCase):
    """Many clients, and how many of them end in a turn."""

    COUNT = 3 * ENDS_AT_ONCE + 5

    clients: list[Connection]

    def connect_all(self, send: bytes = b"", *, reads: bool = True) -> None:
        """Connect them."""
        self.clients = []
        for _ in range(self.COUNT):
            client = self.reactor.connect(self.factory)
            client.reads = reads
            client.send(send)
            self.clients.append(client)
        self.reactor.settle()

    def over(self) -> set[Connection]:
        """Return the clients that the server has begun to end."""
        return {client for client in self.clients if protocol_of(client)._end is not None}

    def end_all(self) -> list[int]:
        """Let time pass until all are gone; return how many ended in each turn, if some did."""
        ended, before = [], len(self.over())
        while self.reactor.connections:
            idle = not self.reactor.turn()
            now = len(self.over())
            if now != before:
                ended.append(now - before)
            before = now
            if idle:
                self.reactor.rightNow = min(call.getTime() for call in self.reactor.calls)
        return ended

    def begin_to_end(self) -> None:
        """Let time pass until some have begun to end, but not all."""
        while not self.over():
            if not self.reactor.turn():
                self.reactor.rightNow = min(call.getTime() for call in self.reactor.calls)
        self.assertLess(len(self.over()), self.COUNT)

    def assert_paced(self, ended: list[int]) -> None:
        """All have ended, so many in each turn."""
        self.assertEqual(sum(ended), self.COUNT)
        self.assertLessEqual(max(ended), ENDS_AT_ONCE)


class IdleTests(ManyEndsTestCase):
    """Many that are idle."""

    def setUp(self) -> None:
        super().setUp()
        self.serve(idle_timeout=2)
        self.connect_all()

    def test_turns(self) -> None:
        """So many are closed in each turn."""
        self.assert_paced(self.end_all())
        for client in self.clients:
            self.assertEqual(client.answers(), [{"event": "closing", "reason": "idle_timeout"}])
        self.assert_over(idle_timeout=self.COUNT)

    def test_changed_meanwhile(self) -> None:
        """One that leaves meanwhile is left alone; one that asks is idle no more."""
        self.begin_to_end()
        gone, asking, *_ = [client for client in self.clients if client not in self.over()]
        gone.reset()
        asking.send(b"PING\n")
        asking.read_turn()
        for _ in range(self.COUNT):
            self.reactor.turn()
        self.assertEqual(self.results(asking), ["PONG"])
        self.assertNotIn(asking, self.over())
        self.end_all()
        self.assert_over(idle_timeout=self.COUNT - 1, connection_lost=1)

    def test_all_leave_meanwhile(self) -> None:
        """When all have left, nothing is left to do soon."""
        self.begin_to_end()
        for client in list(self.reactor.connections):
            client.reset()
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class TimeLimitTests(ManyEndsTestCase):
    """Many whose time is over."""

    def test_not_reading(self) -> None:
        """So many that do not read are aborted in each turn."""
        self.serve(write_timeout=3)
        self.connect_all(b"BIG 100000\n", reads=False)
        self.assert_paced(self.end_all())
        self.assert_over(write_timeout=self.COUNT)

    def test_read_meanwhile(self) -> None:
        """One that has read in the last moment goes on."""
        self.serve(write_timeout=3)
        self.connect_all(b"BIG 100000\n", reads=False)
        self.begin_to_end()
        reading = next(client for client in self.clients if client not in self.over())
        reading.reads = True
        reading.write_turn()
        reading.write_turn()
        for _ in range(self.COUNT):
            self.reactor.turn()
        self.assertEqual(self.reactor.connections, [reading])
        self.leave(reading)
        self.assert_over(write_timeout=self.COUNT - 1, client_closed=1)

    def test_login(self) -> None:
        """So many that have not logged in are closed in each turn; one that does so is not."""
        settings = AuthSettings(users="users.toml", timeout=3.0)
        access = Access(settings, lambda name: None)
        self.factory = CommandFactory(self.reactor, self.handlers.commands, Limits(), access=access)
        self.connect_all()
        self.begin_to_end()
        late = next(client for client in self.clients if client not in self.over())
        protocol_of(late).session.log_in(Permissions("ann", User()))
        before = len(self.over())
        ended = []
        while self.reactor.turn():
            ended.append(len(self.over()) - before)
            before += ended[-1]
        self.assertEqual(before, self.COUNT - 1)
        self.assertLessEqual(max(ended), ENDS_AT_ONCE)
        self.assertEqual(self.reactor.connections, [late])
        self.leave(late)
        self.assert_over(auth_timeout=self.COUNT - 1, client_closed=1)

    def test_drain(self) -> None:
        """So many that are left when the time of a drain is over are aborted in each turn."""
        self.serve()
        self.connect_all(b"WAIT x\n")
        drained = self.factory.drain(2)
        self.assert_paced(self.end_all())
        self.successResultOf(drained)
        self.assert_over(aborted=self.COUNT)


class KillTests(ManyEndsTestCase):
    """Many that an operator ends."""

    def setUp(self) -> None:
        super().setUp()
        self.connect_all()
        self.operator = self.connect(peer=IPv4Address("TCP", "192.0.2.9", 1))

    def test_turns(self) -> None:
        """So many are ended in each turn, and the answer counts them all."""
        self.operator.send(b"KILL address 192.0.2.1\nPING\n")
        ended, before = [], 0
        while self.reactor.turn():
            ended.append(len(self.over()) - before)
            before += ended[-1]
        self.assert_paced(ended)
        killed, ping = self.operator.answers()
        self.assertEqual((killed["killed"], ping["result"]), (self.COUNT, "PONG"))
        for client in self.clients:
            self.assertEqual(client.answers(), [{"event": "closing", "reason": "killed"}])
        self.leave(self.operator)
        self.assert_over(killed=self.COUNT, client_closed=1)

    def test_left_meanwhile(self) -> None:
        """One that leaves before its turn is not counted; the others end though nobody waits."""
        self.operator.send(b"KILL address 192.0.2.1\n")
        self.begin_to_end()
        next(client for client in self.clients if client not in self.over()).reset()
        self.operator.reset()
        self.reactor.settle()
        self.assert_over(killed=self.COUNT - 1, connection_lost=2)

    def test_itself(self) -> None:
        """Who ends many, and itself, gets the answer, and none of its lines after it is run."""
        asking = self.clients[-1]
        asking.send(b"KILL address 192.0.2.1\nPING\n")
        self.reactor.settle()
        self.assertEqual(asking.answers(), [{"command": "KILL", "killed": self.COUNT}])
        self.leave(self.operator)
        self.assert_over(killed=self.COUNT, client_closed=1)


class ListTests(ManyEndsTestCase):
    """Many that are listed."""

    COUNT = 3 * LISTED_AT_ONCE

    def ask_in_turns(self, asking: Connection, line: bytes, found: list[str]) -> Any:  # Any: JSON
        """Ask for a list of which so many entries at most are found in a turn; return it."""
        asking.send(line)
        before = 0
        while self.reactor.turn():
            self.assertLessEqual(len(found) - before, LISTED_AT_ONCE)
            before = len(found)
        [answer] = asking.answers()
        return answer

    def test_turns(self) -> None:
        """The figures of so many are found in each turn, and the list is whole."""
        self.connect_all()
        found: list[str] = []
        figures = CommandProtocol.figures

        def count(protocol: CommandProtocol) -> dict[str, object]:
            found.append(protocol.session.name)
            return figures(protocol)

        self.patch(CommandProtocol, "figures", count)
        asking = self.clients[0]
        answer = self.ask_in_turns(asking, b"CLIENTS 1000\n", found)
        self.assertEqual([client["client"] for client in answer["clients"]], found)
        self.assertEqual((answer["count"], len(found)), (self.COUNT, self.COUNT))
        self.leave(*self.clients)

    def test_slow_commands(self) -> None:
        """So many slow commands are shown in each turn, and all of them in the end."""
        slow_log = SlowLog(SlowLogSettings(kept=1000))
        for i in range(self.COUNT):
            slow_log.note(0.0, 1.0, "h:1", None, f"ECHO {i}", waited=False)
        sessions = Sessions(lambda: 0.0, instruments=Instruments(slow_log=slow_log))
        factory = CommandFactory(self.reactor, standard_commands(), sessions=sessions)
        asking = self.reactor.connect(factory)
        shown: list[str] = []

        def count(wall: float) -> str:
            shown.append("")
            return iso_time(wall)

        self.patch(admin_module, "iso_time", count)
        answer = self.ask_in_turns(asking, b"SLOWLOG 1000\n", shown)
        self.assertEqual(
            [slow["line"] for slow in answer["slow"]],
            [f"ECHO {i}" for i in reversed(range(self.COUNT))],
        )
        self.assertEqual((answer["count"], len(shown)), (self.COUNT, self.COUNT))
        self.leave(asking)


def protocol_of(client: Connection) -> CommandProtocol:
    """Return the server's protocol of a client."""
    assert isinstance(client.protocol, CommandProtocol)
    return client.protocol
