"""Who has the right password gets it checked soon, however many guess."""

from __future__ import annotations

from itertools import count

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.trial.unittest import SynchronousTestCase

from tests.auth.login_crowds import applicant
from twisted_net.auth.known_users import MAX_KNOWN
from twisted_net.auth.newcomers import Newcomers
from twisted_net.auth.password_queue import (
    FIRST_ESTIMATE,
    FRESH,
    HALF_LIFE,
    LONGEST_ESTIMATE,
    Applicant,
    PasswordQueue,
)
from twisted_net.net.recent_use import NEVER


class Checker:
    """A queue with one worker that takes a quarter of a second for each check."""

    def __init__(self, max_waiting: int = 100, timeout: float = 10.0) -> None:
        self.queue: PasswordQueue[tuple[int, Applicant]] = PasswordQueue(max_waiting, timeout)
        self.now = 1000.0
        self.numbers = count()
        self.refused: list[Applicant] = []

    def add(self, who: Applicant) -> tuple[int, Applicant]:
        """Let somebody wait."""
        item = (next(self.numbers), who)
        self.refused += [other for _, other in self.queue.add(item, who, self.now)]
        return item

    def check(self, *, right: bool = False) -> Applicant | None:
        """Check the next one."""
        item = self.queue.take(self.now, 0.5)
        if item is None:
            return None
        self.now += 0.25
        self.queue.checked(item[1], self.now, right=right, took=0.25)
        return item[1]

    def checks_until(self, who: Applicant) -> int:
        """Return how many are checked before somebody who waits."""
        for before in range(1000):
            checked = self.check()
            if checked == who:
                return before
            assert checked is not None, "it has no place any more"
        raise AssertionError("its turn does not come")


class CrowdTests(SynchronousTestCase):
    """What a crowd of guessers does to one who has the right password."""

    def setUp(self) -> None:
        self.checker = Checker()

    def attack(self, size: int, seconds: float, name: str = "ann") -> None:
        """Let that many addresses guess once a second each, and check what can be checked."""
        crowd = [applicant(f"198.{i >> 16}.{i >> 8 & 255}.{i & 255}", name) for i in range(size)]
        until = self.checker.now + seconds
        while self.checker.now < until:
            for guesser in crowd:
                self.checker.add(guesser)
            for _ in range(4):
                self.checker.check()

    def test_newcomer(self) -> None:
        """A newcomer is next but one: 40 addresses guess or 10,000, and just begin or long have."""
        for size in (40, 200, 10_000):
            for seconds in (0.5, 5.0):
                with self.subTest(size=size, seconds=seconds):
                    self.setUp()
                    self.attack(size, seconds)
                    newcomer = applicant("192.0.2.1")
                    self.checker.add(newcomer)
                    self.assertLessEqual(self.checker.checks_until(newcomer), 1)

    def test_same_network(self) -> None:
        """It need not come from another /24 than the crowd."""
        self.attack(200, 5.0)
        newcomer = applicant("198.0.0.255")
        self.checker.add(newcomer)
        self.assertEqual(self.checker.checks_until(newcomer), 0)

    def test_many_names(self) -> None:
        """It is next or nearly so while addresses that are as new try all names, its own too."""
        for i in range(200):
            self.checker.add(applicant(f"198.51.{i}.1", ("ann", f"user{i}")[i % 2]))
        newcomer = applicant("192.0.2.1")
        self.checker.add(newcomer)
        self.assertLessEqual(self.checker.checks_until(newcomer), 1)

    def test_endless_newcomers(self) -> None:
        """New addresses without end that try one name hold up another name by three checks."""
        person = applicant("192.0.2.1")
        self.checker.add(person)
        checked: list[Applicant | None] = []
        for i in range(4):
            for j in range(8):
                self.checker.add(applicant(f"{60 + i}.{j}.0.1", "admin"))
            checked.append(self.checker.check())
        self.assertIn(person, checked)

    def test_one_mistake(self) -> None:
        """Who has mistyped once comes before those who have guessed twice."""
        person = applicant("192.0.2.1")
        self.checker.add(person)
        self.checker.check()
        self.attack(40, 30.0)
        self.checker.add(person)
        self.assertEqual(self.checker.checks_until(person), 0)

    def test_known(self) -> None:
        """A user comes before all newcomers where its password was right before."""
        person = applicant("192.0.2.1")
        self.checker.add(person)
        self.checker.check(right=True)
        for i in range(200):
            self.checker.add(applicant(f"198.51.{i}.1", f"user{i}"))
            if i == 100:
                self.checker.add(person)
        self.assertEqual(self.checker.checks_until(person), 0)
        self.assertTrue(self.checker.queue.knows("192.0.2.1", "ann"))
        self.assertFalse(self.checker.queue.knows("192.0.2.1", "bob"))
        self.assertFalse(self.checker.queue.knows("192.0.2.2", "ann"))

    def test_known_alternate(self) -> None:
        """A user who logs in without end leaves the others every other check."""
        hosts = [f"198.51.100.{i}" for i in range(20)]
        for host in hosts:
            self.checker.add(applicant(host))
            self.checker.check(right=True)
        for host in hosts:
            self.checker.add(applicant(host))
        newcomer = applicant("192.0.2.1", "bob")
        self.checker.add(newcomer)
        self.assertLessEqual(self.checker.checks_until(newcomer), 1)

    def test_known_names(self) -> None:
        """Of known users the name is next that has asked least, from wherever it does."""
        person = applicant("192.0.2.1", "bob")
        self.checker.add(person)
        self.checker.check(right=True)
        hosts = [f"198.51.100.{i}" for i in range(20)]
        for host in hosts:
            self.checker.add(applicant(host))
            self.checker.check(right=True)
        self.checker.add(person)
        for host in hosts:
            self.checker.add(applicant(host))
        self.assertEqual(self.checker.checks_until(person), 0)

    def test_one_site_of_ipv6(self) -> None:
        """The 65,536 /64s of one site count as a quarter of all that they have used."""
        for i in range(40):
            self.checker.add(applicant(f"2001:db8:1:{i:x}::1"))
            self.checker.check()
        guesser = applicant("2001:db8:1:ffff::1")
        self.checker.add(guesser)
        others = [applicant("2001:db8:2::1"), applicant("192.0.2.1")]
        for other in others:
            for _ in range(5):
                self.checker.add(other)
                self.checker.check()
            self.checker.add(other)
        self.assertEqual(self.checker.checks_until(guesser), 2)

    def test_mapped(self) -> None:
        """An IPv4 address that an IPv6 socket shows is that address, and in its networks."""
        self.assertEqual(applicant("::ffff:192.0.2.1"), applicant("192.0.2.1"))
        self.assertEqual(applicant("192.0.2.1").networks, ("192.0.2.0/24", "192.0.0.0/16"))

    def test_known_pairs_are_bounded(self) -> None:
        """At the limit the name that has most pairs loses its oldest, and no other name one."""
        self.checker.queue.checked(applicant("h", "bob"), 0.0, right=True, took=0.25)
        for i in range(MAX_KNOWN):
            self.checker.queue.checked(applicant(f"h{i}"), 0.0, right=True, took=0.25)
        self.assertFalse(self.checker.queue.knows("h0", "ann"))
        self.assertTrue(self.checker.queue.knows("h1", "ann"))
        self.assertTrue(self.checker.queue.knows("h", "bob"))

    def test_long_names(self) -> None:
        """A name takes no more memory than a user's can, whatever is sent."""
        self.checker.queue.checked(applicant("h", "x" * 16_384), 0.0, right=True, took=0.25)
        self.assertTrue(self.checker.queue.knows("h", "x" * 128))


class LimitTests(SynchronousTestCase):
    """No more wait than can be checked in time."""

    def test_timeout(self) -> None:
        """The time for a login, divided by the time of a check."""
        queue: PasswordQueue[int] = PasswordQueue(100, 10.0, workers=2)
        self.assertEqual(queue.limit, int(20 / FIRST_ESTIMATE))
        for _ in range(100):
            queue.checked(applicant("h"), 0.0, right=False, took=1.0)
        self.assertEqual(queue.limit, 20)

    def test_setting(self) -> None:
        """At most as many as the setting says, which holds alone where there is no timeout."""
        self.assertEqual(PasswordQueue[int](7, 10.0).limit, 7)
        self.assertEqual(PasswordQueue[int](10_000, 0.0).limit, 10_000)

    def test_outlier(self) -> None:
        """One check that took hours, as the process was stopped, lets others wait as before."""
        queue: PasswordQueue[int] = PasswordQueue(100, 10.0)
        queue.checked(applicant("h"), 0.0, right=False, took=10_000.0)
        self.assertGreaterEqual(queue.limit, 10.0 / LONGEST_ESTIMATE)
        for _ in range(40):
            queue.checked(applicant("h"), 0.0, right=False, took=FIRST_ESTIMATE)
        self.assertGreaterEqual(queue.limit, 35)

    def test_slow(self) -> None:
        """One may wait, even if its check takes longer than there is time."""
        queue: PasswordQueue[int] = PasswordQueue(100, 0.01)
        self.assertEqual(queue.add(1, applicant("h"), 0.0), [])

    def test_delay(self) -> None:
        """The delay is the time for all that wait, and one more."""
        queue: PasswordQueue[int] = PasswordQueue(100, 10.0, workers=2)
        queue.add(1, applicant("h"), 0.0)
        self.assertEqual(queue.delay, FIRST_ESTIMATE)

    def test_gives_way(self) -> None:
        """The source that has used most gives way; a newcomer if no others have many places."""
        checker = Checker(max_waiting=3)
        often, once = applicant("198.51.100.1"), applicant("203.0.113.2")
        for who in (often, often, often, once):
            checker.add(who)
            checker.check()
        for who in (once, often, applicant("10.1.2.1"), applicant("10.2.2.2")):
            checker.add(who)
        self.assertEqual(checker.refused, [often])
        checker.add(often)
        self.assertEqual(checker.refused, [often, often])
        checker.add(applicant("10.3.2.3"))
        # Not the one that was there before all other newcomers.
        self.assertEqual(checker.refused[2:], [applicant("10.2.2.2")])

    def test_known_give_way(self) -> None:
        """Known users have half of the places; the name that has most gives way."""
        checker = Checker(max_waiting=4)
        users = [applicant(f"10.1.1.{i}", "mallory") for i in range(9)] + [applicant("10.2.1.1")]
        for who in users:
            checker.add(who)
            checker.check(right=True)
        for who in (users[-1], *users[:5], *(applicant(f"10.{i}.1.1") for i in range(3, 9))):
            checker.add(who)
        self.assertEqual(len(checker.queue), 4)
        self.assertNotIn(users[-1], checker.refused)
        self.assertEqual(checker.check(), users[-1])

    def test_asking_counts(self) -> None:
        """Who asks again and again without being checked comes after who asks once."""
        checker = Checker(max_waiting=1)
        for _ in range(10):
            checker.add(applicant("198.51.100.1"))
        checker.check()
        for host in ("198.51.100.2", "198.51.100.2"):
            checker.add(applicant(host))
        checker.check()
        checker.add(applicant("198.51.100.2"))
        checker.add(applicant("198.51.100.1"))
        self.assertEqual(checker.check(), applicant("198.51.100.2"))
        self.assertEqual(len(checker.queue), 0)


class NewcomersTests(SynchronousTestCase):
    """:class:`Newcomers` takes the newest, and now and then one that these keep out."""

    def setUp(self) -> None:
        self.newcomers: Newcomers[str] = Newcomers()

    def add(self, *items: str) -> None:
        """Add items, each named by its first letter, one a second."""
        for now, item in enumerate(items):
            self.newcomers.add(item, item[0], float(now))

    def test_newest(self) -> None:
        """The newest is next, but first of all the one that found nobody waiting."""
        self.add("a1", "a2", "a3")
        self.assertEqual([self.newcomers.take() for _ in range(3)], ["a1", "a3", "a2"])
        self.add("b1", "b2")
        self.newcomers.discard("b1")
        self.add("b3", "b4")
        self.assertEqual([self.newcomers.take() for _ in range(3)], ["b4", "b3", "b2"])

    def test_newest_since(self) -> None:
        """It knows since when the newest of those that wait does so."""
        self.add("a1", "a2", "a3")
        self.assertEqual(self.newcomers.newest_since(), 2.0)
        self.newcomers.discard("a3")
        self.assertEqual(self.newcomers.newest_since(), 1.0)
        self.newcomers.discard("a2")
        self.assertEqual(self.newcomers.newest_since(), 0.0)

    def test_passed_over(self) -> None:
        """The names take turns: one that has many does not keep out another."""
        self.add("c1", "b1", "a1", "a2", "a3", "a4", "a5")
        self.assertEqual(self.newcomers.take_passed_over(0.0), "a5")
        self.assertEqual(self.newcomers.take_passed_over(0.99), "a4")
        self.assertEqual(self.newcomers.take_passed_over(0.99), "b1")
        self.assertEqual(self.newcomers.take(), "c1")

    def test_chance(self) -> None:
        """In between one is drawn, each as likely as another."""
        for chance, drawn in ((0.0, "a2"), (0.34, "a3"), (0.99, "a4"), (1.0, "a4")):
            self.setUp()
            self.add("a1", "a2", "a3", "a4", "a5")
            self.newcomers.take_passed_over(0.0)
            self.assertEqual(self.newcomers.take_passed_over(chance), drawn)

    def test_only_one(self) -> None:
        """The only one is taken, whichever way, and gives way if one must."""
        for remove in (
            self.newcomers.take,
            lambda: self.newcomers.take_passed_over(0.5),
            self.newcomers.remove_worst,
        ):
            self.add("a1")
            self.assertEqual(remove(), "a1")
            self.assertEqual(len(self.newcomers), 0)

    def test_worst(self) -> None:
        """The oldest of the name that has most gives way; last, who came when nobody waited."""
        self.add("b0", "b1", "a1", "a2", "c1")
        worst = [self.newcomers.remove_worst() for _ in range(5)]
        self.assertEqual(worst, ["a1", "b1", "c1", "a2", "b0"])
        self.assertEqual(len(self.newcomers), 0)


class TurnsTests(SynchronousTestCase):
    """Who is next, where all kinds wait."""

    def setUp(self) -> None:
        self.checker = Checker(timeout=0.0)

    def known(self) -> Applicant:
        """Let a known user wait."""
        who = applicant("192.0.2.1", "bob")
        if not self.checker.queue.knows(who.source, who.name):
            self.checker.add(who)
            self.checker.check(right=True)
        self.checker.add(who)
        return who

    def test_order(self) -> None:
        """Known users and newcomers take turns; every fourth time another is next."""
        for i in range(100):
            guesser = applicant(f"198.51.100.{i}")
            self.checker.add(guesser)
            self.checker.check()
            self.checker.add(guesser)
        kinds = ""
        for i in range(27):
            known = self.known()
            self.checker.add(applicant(f"10.{i}.1.1"))
            checked = self.checker.check()
            assert checked is not None
            kinds += "o" if checked.source[:3] == "198" else "kn"[checked != known]
        self.assertIn("knknknknnknknknknok", kinds)

    def test_longest_wait(self) -> None:
        """Who comes is checked after two others at most, or three: in any state, each kind."""
        # The very first one is taken first, whoever comes.
        for behind in range(3, 40):
            for kind in ("known", "newcomer"):
                self.setUp()
                self.known()
                for i in range(20):
                    self.checker.add(applicant(f"10.{i}.1.1"))
                    self.checker.add(applicant(f"10.{i}.1.1"))
                for _ in range(behind):
                    self.known()
                    self.checker.check()
                who = self.known() if kind == "known" else applicant("192.88.1.1")
                if kind == "newcomer":
                    self.known()
                    self.checker.add(who)
                with self.subTest(behind=behind, kind=kind):
                    self.assertLessEqual(self.checker.checks_until(who), 2)

    def test_stale_newcomers(self) -> None:
        """A crowd of newcomers that has waited for a while leaves the others their turns."""
        person = applicant("198.51.100.7")
        self.checker.add(applicant("198.51.100.1"))
        self.checker.check()
        for i in range(100):
            self.checker.add(applicant(f"10.{i}.1.1"))
        self.checker.now += FRESH
        self.checker.add(person)
        self.checker.now += 0.01
        self.assertLessEqual(self.checker.checks_until(person), 1)

    def test_all_are_taken(self) -> None:
        """Nobody waits for ever behind newcomers without end, nor behind others without end."""
        first = applicant("198.51.100.1")
        self.checker.add(first)
        self.checker.check()
        self.checker.add(first)
        for i in range(9):
            self.checker.add(applicant(f"10.{200 + i}.1.1"))
            checked = self.checker.check()
            if checked == first:
                break
            self.checker.add(applicant(f"10.{i}.1.1"))
        else:
            self.fail("the others are never taken")
        self.checker.now += 2 * FRESH
        stale = applicant("172.16.1.1")
        self.checker.add(stale)
        self.checker.now += 2 * FRESH
        for i in range(60):
            self.checker.add(applicant(f"10.1.1.{i}"))
            if self.checker.check() == stale:
                return
        self.fail("a newcomer that has waited is never taken")

    def test_right_network(self) -> None:
        """From a network where others have just logged in, one is as new as from any other."""
        for i in range(9):
            self.checker.add(applicant(f"10.1.1.{i}", f"user{i}"))
            self.checker.check(right=True)
        person = applicant("10.1.1.77")
        for host in ("10.2.1.1", "10.3.1.1"):
            self.checker.add(applicant(host))
        self.checker.add(person)
        self.assertLessEqual(self.checker.checks_until(person), 1)


HOSTS = ("192.0.2.1", "192.0.2.2", "2001:db8:1:1::1", "2001:db8:1:2::1", "2001:db8:2::1", "h")


class QueueMachine(RuleBasedStateMachine):
    """The queue beside a plain set of what waits."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: PasswordQueue[int] = PasswordQueue(6, 0.0)
        self.numbers = count()
        self.now = 0.0
        self.known: set[tuple[str, str]] = set()
        self.seen: set[str] = set()
        # Item, who, and whether it is of a known user, a newcomer or another.
        self.waiting: dict[int, tuple[Applicant, str]] = {}
        self.passed_over = 0

    def of(self, kind: str) -> int:
        """Return how many of a kind wait."""
        return sum(other == kind for _, other in self.waiting.values())

    @rule(host=st.sampled_from(HOSTS), name=st.sampled_from(["ann", "bob"]))
    def add(self, host: str, name: str) -> None:
        """Somebody comes; the one who gives way is of a kind that has more than its places."""
        who, item = applicant(host, name), next(self.numbers)
        places = {who.source, *who.networks}
        known = (who.source, name) in self.known
        # Right passwords leave no trace in networks, if nothing else was seen of these.
        new = self.queue._levels(who) == (NEVER, NEVER)
        assert new or places & self.seen
        self.waiting[item] = who, "known" if known else "new" if new else "other"
        self.seen |= places
        for gone in self.queue.add(item, who, self.now):
            kind = self.waiting[gone][1]
            assert len(self.waiting) == 7
            if kind == "new":
                assert self.of("other") <= 2
            assert (self.of("known") > 3) == (kind == "known")
            del self.waiting[gone]
        assert len(self.waiting) <= 6

    @rule(right=st.booleans(), chance=st.floats(0, 1))
    def check(self, right: bool, chance: float) -> None:
        """A known user is taken every third time at least."""
        before = self.of("known")
        item = self.queue.take(self.now, chance)
        assert (item is None) == (not self.waiting)
        if item is None:
            return
        who, kind = self.waiting.pop(item)
        self.passed_over = 0 if kind == "known" or not before else self.passed_over + 1
        assert self.passed_over <= 2
        self.now += 1.0
        self.queue.checked(who, self.now, right=right, took=1.0)
        if right:
            self.known.add((who.source, who.name))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """Somebody leaves, and another time when it is gone already."""
        item = data.draw(st.sampled_from(sorted(self.waiting)))
        del self.waiting[item]
        self.queue.discard(item)
        self.queue.discard(item)

    @rule(seconds=st.sampled_from([1.0, HALF_LIFE]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @invariant()
    def counted(self) -> None:
        """It knows how many wait."""
        assert len(self.queue) == len(self.waiting)


QueueMachineTests = QueueMachine.TestCase
