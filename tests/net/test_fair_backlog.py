"""Who waits for a worker gets one in turn, however much others have to do."""

from __future__ import annotations

from itertools import count

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.net.fair_backlog import FairBacklog

WORKERS = 8
LIMIT = 12


class FairBacklogTests(SynchronousTestCase):
    """:class:`FairBacklog` by examples."""

    def test_order(self) -> None:
        """One client's items are taken in their order."""
        backlog: FairBacklog[int] = FairBacklog(10)
        for item in range(3):
            self.assertIsNone(backlog.add("a", item))
        self.assertEqual([backlog.take(9) for _ in range(4)], [("a", 0), ("a", 1), ("a", 2), None])

    def test_turns(self) -> None:
        """Clients take turns, whoever came first and has most."""
        backlog: FairBacklog[str] = FairBacklog(100)
        for item in ("a1", "a2", "a3", "b1", "b2", "c1"):
            backlog.add(item[0], item)
        taken = [backlog.take(99) for _ in range(6)]
        self.assertEqual(
            [item for _, item in filter(None, taken)], ["a1", "b1", "c1", "a2", "b2", "a3"]
        )

    def test_workers(self) -> None:
        """A client gets no worker while it has as many as are free; others get one."""
        backlog: FairBacklog[str] = FairBacklog(100)
        held: dict[str, int] = {}
        for client in "abcd":
            for i in range(20):
                backlog.add(client, f"{client}{i}")
            held[client] = 0
            while (taken := backlog.take(16 - sum(held.values()))) is not None:
                held[taken[0]] += 1
        self.assertEqual(held, {"a": 8, "b": 4, "c": 2, "d": 1})

    def test_finished(self) -> None:
        """A worker that is done is free for the client that has fewer."""
        backlog: FairBacklog[str] = FairBacklog(100)
        for item in ("a1", "a2", "a3"):
            backlog.add("a", item)
        self.assertEqual((backlog.take(2), backlog.take(1)), (("a", "a1"), None))
        backlog.add("b", "b1")
        self.assertEqual((backlog.take(1), backlog.take(0)), (("b", "b1"), None))
        backlog.finished("b")
        self.assertIsNone(backlog.take(1))
        backlog.finished("a")
        self.assertEqual(backlog.take(2), ("a", "a2"))

    def test_full(self) -> None:
        """Over the limit the client with most items loses its newest; one of its own is refused."""
        backlog: FairBacklog[str] = FairBacklog(4)
        for item in ("a1", "a2", "a3", "b1"):
            self.assertIsNone(backlog.add(item[0], item))
        self.assertEqual(backlog.add("a", "a4"), "a4")
        self.assertEqual(backlog.add("c", "c1"), "a3")
        self.assertEqual(backlog.add("c", "c2"), "c2")
        self.assertEqual(len(backlog), 4)

    def test_full_of_running(self) -> None:
        """What is worked on counts, too, and cannot be taken back."""
        backlog: FairBacklog[str] = FairBacklog(1)
        backlog.add("a", "a1")
        backlog.take(1)
        self.assertEqual(backlog.add("b", "b1"), "b1")

    def test_discarded(self) -> None:
        """An item that is discarded makes room; one that is gone already changes nothing."""
        backlog: FairBacklog[str] = FairBacklog(1)
        backlog.add("a", "a1")
        for _ in range(2):
            backlog.discard("a", "a1")
        self.assertIsNone(backlog.add("b", "b1"))


class BacklogMachine(RuleBasedStateMachine):
    """The backlog beside a plain list of what waits."""

    def __init__(self) -> None:
        super().__init__()
        self.backlog: FairBacklog[int] = FairBacklog(LIMIT)
        self.waiting: list[tuple[str, int]] = []
        self.running: list[str] = []
        self.numbers = count()

    def lengths(self) -> dict[str, int]:
        """Count what waits of each client."""
        clients = [client for client, _ in self.waiting]
        return {client: clients.count(client) for client in clients}

    @rule(client=st.sampled_from("abcd"))
    def add(self, client: str) -> None:
        """An item gets a place, or that of the newest item of a client with more."""
        item = next(self.numbers)
        full = len(self.waiting) + len(self.running) >= LIMIT
        lengths = self.lengths()
        lost = self.backlog.add(client, item)
        assert (lost is not None) == full
        self.waiting.append((client, item))
        if lost is None:
            return
        loser = next(owner for owner, other in self.waiting if other == lost)
        if lost != item:
            assert lengths[loser] == max(lengths.values()) > lengths.get(client, 0) + 1
            assert lost == max(other for owner, other in self.waiting if owner == loser)
        else:
            assert max(lengths.values(), default=0) <= lengths.get(client, 0) + 1
        self.waiting.remove((loser, lost))

    @rule()
    def take(self) -> None:
        """What is taken is the oldest of its client, which may have a worker."""
        free = WORKERS - len(self.running)
        allowed = {client for client, _ in self.waiting if self.running.count(client) < free}
        taken = self.backlog.take(free)
        assert (taken is not None) == bool(allowed)
        if taken is not None:
            client, item = taken
            assert client in allowed
            assert item == min(other for owner, other in self.waiting if owner == client)
            self.waiting.remove(taken)
            self.running.append(client)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """A worker is done."""
        client = data.draw(st.sampled_from(self.running))
        self.running.remove(client)
        self.backlog.finished(client)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        """A client leaves."""
        client, item = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove((client, item))
        self.backlog.discard(client, item)

    @invariant()
    def counted(self) -> None:
        """It knows how much there is."""
        assert len(self.backlog) == len(self.waiting) + len(self.running)


BacklogMachineTests = BacklogMachine.TestCase
