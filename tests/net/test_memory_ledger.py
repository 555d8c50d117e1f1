"""The ledger knows what all holders hold, and relieves the largest over a limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.complexity.work import counted
from twisted_net.net.memory_ledger import RELIEF, RESERVE, MemoryAccount, MemoryLedger
from twisted_net.turns.step_scheduler import StepScheduler
from twisted_net.turns.steps import in_steps

LIMIT, OWN = 1000, 600
STEP = 0.25

Sizes = list[tuple[int, int, int]]


class Kind:
    """One account, and who was relieved of it."""

    def __init__(
        self, ledger: MemoryLedger, kind: str, limit: int | None = None, *, last: bool = False
    ) -> None:
        self.gone: list[int] = []
        self.account: MemoryAccount[int] = ledger.account(kind, limit, self.relieve, last=last)

    def relieve(self, holder: int) -> float:
        """Note the holder, and forget what it holds."""
        self.gone.append(holder)
        self.account.set(holder, 0)
        return STEP


class Model:
    """What a ledger should hold: a list of holders, which is searched."""

    def __init__(self) -> None:
        self.held: list[tuple[int, int, int]] = []  # account, holder, bytes
        self.over = False  # from when all hold more than they may until there is room

    def set(self, number: int, holder: int, size: int) -> None:
        """Set the bytes of a holder."""
        self.held = [entry for entry in self.held if entry[:2] != (number, holder)]
        if size:
            self.held.append((number, holder, size))
        self.over = self.over or self.total() > LIMIT

    def look_for_room(self) -> None:
        """Note whether a relief has made room, as it does before and after each holder."""
        self.over = self.over and self.total() > LIMIT * RELIEF

    def total(self, number: int | None = None) -> int:
        """Return the sum of one account or of all."""
        return sum(size for of, _, size in self.held if number in (None, of))

    def largest(self, number: int) -> int:
        """Return the most that a holder of an account holds."""
        return max((size for of, _, size in self.held if of == number), default=0)


class MemoryAccountTests(SynchronousTestCase):
    """An account adds up, and finds its largest holder."""

    def setUp(self) -> None:
        self.ledger = MemoryLedger(LIMIT)

    def test_sum(self) -> None:
        """The last size of each holder counts; with none it is no holder."""
        account: MemoryAccount[str] = self.ledger.account("a")
        for size in (5, 5, 700, 3):
            account.set("x", size)
            self.assertEqual((account.total, account.of("x"), len(account)), (size, size, 1))
        account.add("y", 20)
        account.add("y", -11)
        self.assertEqual((account.total, self.ledger.total, account.of("y")), (12, 12, 9))
        account.set("x", 0)
        account.set("y", 0)
        account.set("z", 0)
        self.assertEqual((account.total, len(account), account.largest()), (0, 0, None))

    def test_largest(self) -> None:
        """Of those within a factor of two, it is who has been there longest."""
        account: MemoryAccount[str] = self.ledger.account("a")
        for holder, size in (("x", 70), ("y", 127), ("z", 63)):
            account.set(holder, size)
        self.assertEqual(account.largest(), "x")
        account.set("x", 63)
        self.assertEqual(account.largest(), "y")
        account.set("x", 128)
        self.assertEqual(account.largest(), "x")

    def test_full(self) -> None:
        """It is full at its own limit, or at that of all."""
        one: MemoryAccount[int] = self.ledger.account("a", 100)
        other: MemoryAccount[int] = self.ledger.account("b")
        one.set(0, 99)
        self.assertEqual((one.full, other.full), (False, False))
        one.set(0, 100)
        self.assertEqual((one.full, other.full), (True, False))
        other.set(0, LIMIT - 100)
        self.assertEqual((one.full, other.full), (True, True))

    def test_work(self) -> None:
        """What a change takes does not depend on how many holders there are."""
        taken = set()
        for holders in (10, 1000, 20_000):
            ledger = MemoryLedger(1 << 40)
            account: MemoryAccount[int] = ledger.account("a", relieve=lambda holder: STEP)
            for holder in range(holders):
                account.set(holder, 1 + holder % 5000)
            changes = ((1, 9000), (1, 2), (-1, 20_000), (-1, 0))
            work = [counted(partial(account.set, *change)).calls for change in changes]
            taken.add((*work, counted(account.largest).calls))
        self.assertEqual(len(taken), 1, taken)


class MemoryLedgerTests(SynchronousTestCase):
    """Over a limit holders are relieved, the largest first."""

    def setUp(self) -> None:
        self.ledger = MemoryLedger(LIMIT)

    def test_stopped_before_it_began(self) -> None:
        """A relief that is dropped before its first step does not keep the next one from coming."""
        steps = StepScheduler(clock := Clock())
        self.ledger.use_pacing(lambda work: steps(in_steps(work)))
        kind = Kind(self.ledger, "a")
        steps([1, 2, 3])
        kind.account.set(1, LIMIT + 1)
        steps.stop()
        kind.account.set(2, 1)
        for _ in range(3):
            clock.advance(0)
        self.assertEqual((kind.gone, self.ledger.total), ([1], 1))

    def test_limit(self) -> None:
        """It is at least one byte, and whoever asks for less is told so."""
        self.assertEqual(MemoryLedger(1).limit, 1)
        for refused in (0, -1):
            with self.assertRaises(ValueError) as raised:
                MemoryLedger(refused)
            self.assertEqual(
                str(raised.exception),
                f"MemoryLedger: limit must be an integer of at least 1, not {refused}",
            )

    def test_at_the_limit(self) -> None:
        """What is just at a limit is not too much; one byte more is."""
        for limit in (LIMIT, OWN):
            kind = Kind(self.ledger, "a", limit)
            kind.account.set(1, limit // 2 + 20)
            kind.account.set(2, limit // 2 - 20)
            self.assertEqual(kind.gone, [])
            kind.account.set(2, limit // 2 - 19)
            self.assertEqual(kind.gone, [1])
            kind.account.set(2, 0)

    def test_only_what_is_over(self) -> None:
        """Over the limit of one account the others lose nothing, however large they are."""
        small, large = Kind(self.ledger, "a", 100), Kind(self.ledger, "b")
        large.account.set(1, 800)
        for holder in range(11):
            small.account.set(holder, 10)
        self.assertEqual((small.gone, large.gone), ([0, 1], []))

    def test_largest_of_all(self) -> None:
        """Over the limit of all it is the largest holder, and not one of the largest account."""
        sessions, buffers = Kind(self.ledger, "a"), Kind(self.ledger, "b")
        for holder in range(25):
            sessions.account.set(holder, 30)
        buffers.account.set(1, 200)
        buffers.account.set(2, 51)
        self.assertEqual((sessions.gone, buffers.gone), ([], [1]))

    def test_account_that_holds_most(self) -> None:
        """Of holders that are about equal, one of the account that holds most is relieved."""
        few, many = Kind(self.ledger, "a"), Kind(self.ledger, "b")
        few.account.set(0, 110)
        for holder in range(9):
            many.account.set(holder, 99)
        self.assertEqual((few.gone, many.gone), ([], [0, 1]))

    def test_last(self) -> None:
        """What sessions cost gives way when nothing else is left, however large it is."""
        sessions, buffers = Kind(self.ledger, "a", last=True), Kind(self.ledger, "b")
        for holder in range(4):
            sessions.account.set(holder, 200)
        for holder in range(5):
            buffers.account.set(holder, 10)
        sessions.account.set(4, 151)
        self.assertEqual((buffers.gone, sessions.gone), ([0, 1, 2, 3, 4], [0]))

    def test_steps(self) -> None:
        """It begins in the next step; whoever asks meanwhile is heard, and no other one begins."""
        works: list[Iterator[float]] = []
        self.ledger.use_pacing(works.append)
        self.ledger.use_pacing(lambda work: self.fail("another was first"))
        kind = Kind(self.ledger, "a")
        for holder in range(11):
            kind.account.set(holder, 100)
        [work] = works
        self.assertEqual(kind.gone, [])
        self.assertEqual(list(islice(work, 2)), [1.0, STEP])
        self.assertEqual(kind.gone, [0])
        kind.account.set(1, 0)
        self.assertEqual(list(work), [])
        self.assertEqual(kind.gone, [0])
        # The next one begins anew.
        kind.account.set(11, 150)
        self.assertEqual(len(works), 2)

    def test_reserve(self) -> None:
        """What grows faster than the steps ends the largest at once, and never itself first."""
        works: list[Iterator[float]] = []
        self.ledger.use_pacing(works.append)
        kind = Kind(self.ledger, "a")
        highest = 0
        for holder in range(1000):
            kind.account.set(holder, 10 + (holder == 50) * 100)
            highest = max(highest, self.ledger.total)
        self.assertEqual(highest, 1120)
        self.assertEqual((kind.gone[0], len(works)), (50, 1))
        self.assertNotIn(999, kind.gone)

    def test_dropped_work(self) -> None:
        """Where the steps are dropped, as all servers stop, a later relief begins all the same."""
        works: list[Iterator[float]] = []
        self.ledger.use_pacing(works.append)
        kind = Kind(self.ledger, "a")
        kind.account.set(1, LIMIT + 1)
        next(works[0])
        works.pop().close()  # type: ignore[attr-defined]  # it is a generator
        kind.account.set(1, LIMIT + 2)
        self.assertEqual(len(works), 1)

    def test_unrelievable(self) -> None:
        """What gives nothing back is passed over; what never gives way is counted, and stays."""
        stubborn: MemoryAccount[int] = self.ledger.account("a", relieve=lambda holder: STEP)
        silent: MemoryAccount[int] = self.ledger.account("b")
        kind = Kind(self.ledger, "c")
        kind.account.set(1, 10)
        stubborn.set(1, 800)
        silent.set(1, 500)
        self.assertEqual((kind.gone, self.ledger.total), ([1], 1300))
        self.assertEqual((stubborn.relieved, silent.relieved, kind.account.relieved), (0, 0, 1))

    def test_figures(self) -> None:
        """Accounts of one kind are added up; those without a limit have that of all."""
        ledger = self.ledger
        for limit in (100, 200):
            Kind(ledger, "b", limit).account.set(1, 7)
            Kind(ledger, "a").account.set(1, 1)
        kind = Kind(ledger, "c", 50)
        kind.account.set(1, 51)
        self.assertEqual(
            ledger.figures(),
            {
                "a": {"bytes": 2, "limit": LIMIT, "relieved": 0},
                "b": {"bytes": 14, "limit": 300, "relieved": 0},
                "c": {"bytes": 0, "limit": 50, "relieved": 1},
                "total": {"bytes": 16, "limit": LIMIT, "relieved": 1},
            },
        )

    # Over the limit of one account, below that of all: a larger holder of the other one stays.
    @example([(1, 0, 300), *((0, holder, 128) for holder in range(5))], True)
    @given(
        st.lists(st.tuples(st.integers(0, 1), st.integers(0, 9), st.integers(0, 400))),
        st.booleans(),
    )
    def test_model(self, sizes: Sizes, at_once: bool) -> None:
        """It holds what a list does, less those that give way: one of the largest each time."""
        ledger, model = MemoryLedger(LIMIT), Model()
        works: list[Iterator[float]] = []
        if not at_once:
            ledger.use_pacing(works.append)
        accounts: list[MemoryAccount[int]] = []

        def relieving(number: int) -> Callable[[int], float]:
            def relieve(holder: int) -> float:
                size = accounts[number].of(holder)
                model.look_for_room()
                rivals = (0, 1) if model.over else (number,)
                self.assertTrue(model.over or model.total(number) > OWN * RELIEF)
                self.assertGreater(2 * size, max(map(model.largest, rivals)))
                model.set(number, holder, 0)
                accounts[number].set(holder, 0)
                return STEP

            return relieve

        accounts += [
            ledger.account("x", OWN, relieving(0)),
            ledger.account("y", None, relieving(1)),
        ]
        for number, holder, size in sizes:
            model.set(number, holder, size)
            accounts[number].set(holder, size)
            for account, of in zip(accounts, (0, 1), strict=True):
                self.assertEqual(account.total, model.total(of))
            self.assertEqual(ledger.total, model.total())
            room = 1 if at_once else 1 + RESERVE
            self.assertLessEqual(ledger.total, LIMIT * room)
            self.assertLessEqual(accounts[0].total, OWN * room)
            if at_once:
                model.look_for_room()
            if works and holder == 0:
                list(works.pop())
                model.look_for_room()
                self.assertLessEqual(ledger.total, LIMIT)
                self.assertLessEqual(accounts[0].total, OWN)
