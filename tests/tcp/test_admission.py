"""Connections are counted by where they come from, and the largest go first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.auth.users import AuthSettings, Permissions, User
from twisted_net.errors import TooManyConnections
from twisted_net.reasons import End
from twisted_net.tcp.admission import Access, Admission, Meter
from twisted_net.tcp.limits import Limits


def access(settings: AuthSettings) -> Access:
    """Let everybody who logs in do the usual."""
    return Access(settings, lambda name: Permissions(name, User()))


class AdmissionTests(SynchronousTestCase):
    """:class:`Admission` keeps its counts, however clients come, log in and go."""

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["enter", "log_in", "leave"]),
                st.integers(0, 5),
                st.sampled_from("ab"),
            )
        )
    )
    def test_counts(self, events: list[tuple[str, int, str]]) -> None:
        """A model that counts anew each time agrees about who may come in and log in."""
        limits = Limits(
            connections_per_address=2, connections_per_network=3, connections_per_user=1
        )
        admission: Admission[int] = Admission(limits, access(AuthSettings(users="x")))
        users: dict[int, str | None] = {}
        for event, who, user in events:
            host = f"192.0.2.{who % 2}"
            if event == "enter" and who not in users:
                beside = sum(other % 2 == who % 2 for other in users)
                expected = (
                    End.ADDRESS_LIMIT
                    if beside >= 2
                    else End.NETWORK_LIMIT
                    if len(users) >= 3
                    else None
                )
                turned = admission.rejection(host)
                self.assertEqual(turned and turned.end, expected)
                if turned is None:
                    admission.enter(who, host, 0.0)
                    users[who] = None
            elif event == "log_in" and who in users:
                full = user in users.values() and users[who] != user
                try:
                    admission.log_in(who, users[who], Permissions(user, User()))
                except TooManyConnections:
                    self.assertTrue(full)
                else:
                    self.assertFalse(full)
                    users[who] = user
            elif event == "leave" and who in users:
                admission.leave(who, host, users.pop(who))
        late = {who for who, user in users.items() if user is None}
        self.assertEqual(set(admission.take_overdue(1e9)), late)
        self.assertEqual(list(admission.take_overdue(1e9)), [])

    def test_network(self) -> None:
        """Addresses of one /24 or /64 share a limit, and who leaves makes room."""
        for hosts, other in (
            (("192.0.2.1", "::ffff:192.0.2.2", "192.0.2.3"), "192.0.3.1"),
            (("2001:db8::1", "2001:db8::2:0:0:1", "2001:db8::3"), "2001:db8:0:1::1"),
        ):
            admission: Admission[int] = Admission(Limits(connections_per_network=2))
            for _ in range(2):
                for who, host in enumerate(hosts[:2]):
                    self.assertIsNone(admission.rejection(host))
                    admission.enter(who, host, 0.0)
                turned = admission.rejection(hosts[2])
                assert turned is not None
                self.assertEqual(turned.end, End.NETWORK_LIMIT)
                self.assertEqual(turned.error.details(), {"limit": 2, "scope": "network"})
                self.assertIsNone(admission.rejection(other))
                for who, host in enumerate(hosts[:2]):
                    admission.leave(who, host, None)

    def test_limit_of_an_address(self) -> None:
        """The refusal of one connection too many names the address, before the network."""
        limits = Limits(connections_per_address=1, connections_per_network=1)
        admission: Admission[int] = Admission(limits)
        admission.enter(1, "192.0.2.1", 0.0)
        for host, end, scope in (
            ("192.0.2.1", End.ADDRESS_LIMIT, "address"),
            ("192.0.2.2", End.NETWORK_LIMIT, "network"),
        ):
            turned = admission.rejection(host)
            assert turned is not None
            self.assertEqual(turned.end, end)
            self.assertEqual(turned.error.details(), {"limit": 1, "scope": scope})

    def test_address_of_many(self) -> None:
        """The addresses of one /64 of IPv6 count as one, and so does an IPv4-mapped address."""
        for one, another in (
            ("2001:db8::1", "2001:db8::2"),
            ("192.0.2.1", "::ffff:192.0.2.1"),
        ):
            with self.subTest(one=one):
                admission: Admission[int] = Admission(
                    Limits(connections_per_address=1, commands_per_address=1.0, command_burst=1)
                )
                admission.enter(1, one, 0.0)
                turned = admission.rejection(another)
                assert turned is not None
                self.assertIs(turned.end, End.ADDRESS_LIMIT)
                first, second = (self.meter(admission, host, None) for host in (one, another))
                self.assertIsNone(first.take_command(0.0))
                self.assertIsNotNone(second.take_command(0.0))
                admission.leave(1, one, None)
                self.assertIsNone(admission.rejection(another))

    def test_limit_of_a_user(self) -> None:
        """A user's own limit counts in place of that for all users; a second login is none."""
        admission: Admission[int] = Admission(Limits(connections_per_user=1))
        ann, bob = Permissions("ann", User(max_connections=2)), Permissions("bob", User())
        for who in (1, 2, 3):
            admission.enter(who, "192.0.2.1", 0.0)
        admission.log_in(1, None, ann)
        admission.log_in(2, None, ann)
        admission.log_in(2, "ann", ann)
        error = self.assertRaises(TooManyConnections, admission.log_in, 3, None, ann)
        self.assertEqual(error.details(), {"limit": 2, "scope": "user"})
        admission.log_in(3, None, bob)
        error = self.assertRaises(TooManyConnections, admission.log_in, 1, "ann", bob)
        self.assertEqual(error.details(), {"limit": 1, "scope": "user"})
        admission.leave(3, "192.0.2.1", "bob")
        admission.log_in(1, "ann", bob)
        admission.log_in(4, None, ann)

    def test_late(self) -> None:
        """Who has not logged in when the time is over is late, in that moment, and once."""
        admission: Admission[int] = Admission(
            Limits(), access(AuthSettings(users="x", timeout=10.0))
        )
        for who, now in ((1, 0.0), (2, 1.0), (3, 1.0), (4, 2.0)):
            admission.enter(who, "192.0.2.1", now)
        admission.log_in(2, None, Permissions("ann", User()))
        self.assertEqual(list(admission.take_overdue(9.9)), [])
        self.assertEqual(list(admission.take_overdue(10.0)), [1])
        # One that lingers delays none of the others.
        self.assertEqual(list(admission.take_overdue(10.9)), [])
        self.assertEqual(list(admission.take_overdue(11.0)), [3])
        admission.leave(1, "192.0.2.1", None)
        self.assertEqual(list(admission.take_overdue(12.0)), [4])

    def test_late_but_then(self) -> None:
        """Who logs in, or leaves, while others are gone through is not late."""
        admission: Admission[int] = Admission(
            Limits(), access(AuthSettings(users="x", timeout=10.0))
        )
        for who in range(4):
            admission.enter(who, "192.0.2.1", 0.0)
        late = admission.take_overdue(10.0)
        self.assertEqual(next(late), 0)
        admission.log_in(1, None, Permissions("ann", User()))
        admission.leave(2, "192.0.2.1", None)
        self.assertEqual(list(late), [3])

    def test_never_late(self) -> None:
        """With a time of 0 no client is late."""
        admission: Admission[int] = Admission(
            Limits(), access(AuthSettings(users="x", timeout=0.0))
        )
        admission.enter(1, "192.0.2.1", 0.0)
        self.assertEqual(list(admission.take_overdue(1e9)), [])

    def test_crowded_out(self) -> None:
        """Over the limit who came first goes, once, unless its login is being checked."""
        settings = AuthSettings(users="x", max_anonymous=2)
        admission: Admission[int] = Admission(Limits(), access(settings))
        for who in (1, 2):
            admission.enter(who, "192.0.2.1", 0.0)
        self.assertIsNone(admission.evict_anonymous(lambda who: False))
        admission.enter(3, "192.0.2.1", 0.0)
        self.assertEqual(admission.evict_anonymous(lambda who: who == 1), 2)
        self.assertIsNone(admission.evict_anonymous(lambda who: False))
        admission.enter(4, "192.0.2.1", 0.0)
        self.assertIsNone(admission.evict_anonymous(lambda who: True))
        self.assertEqual(admission.evict_anonymous(lambda who: False), 1)

    def test_commands_of_each_scope(self) -> None:
        """A command is counted for the server, its address, network and user, or for none."""
        for scope, mine, others in (
            ("listener", ("192.0.2.1", "ann"), ()),
            ("address", ("192.0.2.1", "ann"), (("192.0.2.2", "ann"),)),
            ("network", ("192.0.2.1", "ann"), (("192.0.3.1", "ann"),)),
            ("user", ("192.0.2.1", "ann"), (("192.0.2.1", "bob"),)),
        ):
            limits = structs.replace(Limits(command_burst=2), **{f"commands_per_{scope}": 4.0})
            admission: Admission[int] = Admission(limits)
            for _ in range(2):
                self.assertIsNone(self.meter(admission, *mine).take_command(0.0))
            refused = self.meter(admission, *mine).take_command(0.0)
            assert refused is not None
            name = "server" if scope == "listener" else scope
            self.assertEqual(refused.details()["scope"], name)
            if scope == "network":
                neighbour = self.meter(admission, "192.0.2.9", "bob")
                self.assertIsNotNone(neighbour.take_command(0.0))
            for host, user in others:
                self.assertIsNone(self.meter(admission, host, user).take_command(0.0), scope)
            self.assertIsNotNone(self.meter(admission, *mine).take_command(0.249))
            self.assertIsNone(self.meter(admission, *mine).take_command(0.25))

    def test_refused_commands_cost_nothing(self) -> None:
        """A command that one rate refuses is charged to no other."""
        limits = Limits(commands_per_listener=1.0, commands_per_user=1.0, command_burst=2)
        admission: Admission[int] = Admission(limits)
        ann = self.meter(admission, "192.0.2.1", "ann")
        for _ in range(2):
            self.assertIsNone(ann.take_command(0.0))
        self.assertIsNone(ann.take_command(1.0))
        for _ in range(5):
            self.assertIsNotNone(ann.take_command(1.0))
        bob = self.meter(admission, "192.0.2.1", "bob")
        self.assertIsNone(bob.take_command(2.0))

    def test_bytes_of_each_scope(self) -> None:
        """Bytes are paid for by the slowest of all rates, beyond a burst of their own."""
        for scope, other in (
            ("listener", None),
            ("address", ("192.0.2.2", "ann")),
            ("network", ("192.0.3.1", "ann")),
            ("user", ("192.0.2.1", "bob")),
        ):
            bursts = Limits(byte_burst=1000, command_burst=1)
            limits = structs.replace(bursts, **{f"bytes_per_{scope}": 100.0})
            admission: Admission[int] = Admission(limits)
            mine = self.meter(admission, "192.0.2.1", "ann")
            self.assertEqual(mine.charge(1000, 0.0), 0.0)
            self.assertAlmostEqual(mine.charge(200, 0.0), 2.0)
            if other is not None:
                self.assertEqual(self.meter(admission, *other).charge(1, 0.0), 0.0, scope)

    def test_longest_debt(self) -> None:
        """Of several rates the longest wait counts, whichever comes first."""
        for slow, fast in (("listener", "user"), ("user", "listener")):
            rates = {f"bytes_per_{slow}": 10.0, f"bytes_per_{fast}": 1000.0}
            limits = structs.replace(Limits(byte_burst=1), **rates)
            meter = self.meter(Admission(limits), "192.0.2.1", "ann")
            self.assertAlmostEqual(meter.charge(101, 0.0), 10.0)

    def meter(self, admission: Admission[int], host: str, user: str | None) -> Meter:
        """Return the meter of a client, of which something is limited."""
        meter = admission.meter(host, user)
        assert meter is not None
        return meter

    def test_no_meter(self) -> None:
        """Where nothing is limited nothing is counted."""
        admission: Admission[int] = Admission(Limits())
        self.assertIsNone(admission.meter("192.0.2.1", "ann"))
        self.assertIsNone(Admission[int](Limits(commands_per_user=1.0)).meter("192.0.2.1", None))


class AccessTests(SynchronousTestCase):
    """:class:`Access` knows who may administer where there are no users."""

    def test_administers(self) -> None:
        """This machine's own clients may, unless administration has a listener of its own."""
        for elsewhere, host, expected in (
            (False, "127.0.0.1", True),
            (False, "unix", True),
            (False, "unix:uid=1000", True),
            (True, "unix:uid=0", False),
            (False, "192.0.2.1", False),
            (True, "127.0.0.1", False),
        ):
            settled = Access(AuthSettings(), lambda name: Permissions(name, User()), elsewhere)
            self.assertEqual(settled.administers(host), expected, (elsewhere, host))
