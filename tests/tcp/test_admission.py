"""Connections are counted by where they come from, and the fattest go first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.auth.users import AuthSettings, Permissions, User
from twisted_net.errors import TooManyConnections
from twisted_net.reasons import End
from twisted_net.tcp.admission import FOREIGN, RELIEF, Access, Admission, Buffers
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
                turned = admission.refusal(host)
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
        self.assertEqual(set(admission.late(1e9)), late)
        self.assertEqual(admission.late(1e9), [])

    def test_network(self) -> None:
        """Addresses of one /24 or /64 share a limit, and who leaves makes room."""
        for hosts, other in (
            (("192.0.2.1", "::ffff:192.0.2.2", "192.0.2.3"), "192.0.3.1"),
            (("2001:db8::1", "2001:db8::2:0:0:1", "2001:db8::3"), "2001:db8:0:1::1"),
        ):
            admission: Admission[int] = Admission(Limits(connections_per_network=2))
            for _ in range(2):
                for who, host in enumerate(hosts[:2]):
                    self.assertIsNone(admission.refusal(host))
                    admission.enter(who, host, 0.0)
                turned = admission.refusal(hosts[2])
                assert turned is not None
                self.assertEqual(turned.end, End.NETWORK_LIMIT)
                self.assertEqual(turned.error.details(), {"limit": 2, "scope": "network"})
                self.assertIsNone(admission.refusal(other))
                for who, host in enumerate(hosts[:2]):
                    admission.leave(who, host, None)

    def test_no_meter(self) -> None:
        """Where nothing is limited nothing is counted."""
        admission: Admission[int] = Admission(Limits())
        self.assertIsNone(admission.meter("192.0.2.1", "ann"))
        self.assertIsNone(Admission[int](Limits(commands_per_user=1.0)).meter("192.0.2.1", None))


class BuffersTests(SynchronousTestCase):
    """:class:`Buffers` sums up, and takes out those that hold most."""

    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 1000))))
    def test_sum(self, sizes: list[tuple[int, int]]) -> None:
        """The sum is that of the last size of each; those taken out are the largest."""
        buffers: Buffers[int] = Buffers(2000)
        held: dict[int, int] = {}
        for connection, size in sizes:
            held[connection] = size
            over = buffers.set(connection, size)
            self.assertEqual(buffers.total, sum(held.values()))
            self.assertEqual(over, buffers.total > 2000)
            if over:
                gone = [held.pop(other) for other in buffers.fattest()]
                self.assertTrue(buffers.total <= 2000 * RELIEF)
                self.assertTrue(min(gone) >= max(held.values(), default=0))
                # Not one more than is needed.
                self.assertTrue(buffers.total + gone[-1] > 2000 * RELIEF)


class ForeignTests(SynchronousTestCase):
    """:data:`FOREIGN` knows the first lines of HTTP, and no commands."""

    def test_lines(self) -> None:
        """Requests of all methods, and the Host field in any case."""
        for line in (
            b"POST / HTTP/1.1",
            b"GET /a?b HTTP/1.0",
            b"PRI * HTTP/2.0",
            b"OPTIONS * HTTP/1.1",
            b"Host: example.org",
            b"HOST:x",
        ):
            self.assertTrue(FOREIGN.match(line), line)
        for line in (b"POST", b"POST / ", b"ECHO GET / HTTP/1.1", b"HOSTS", b"get / HTTP/1.1", b""):
            self.assertFalse(FOREIGN.match(line), line)
