"""Password queue: which of the passwords that wait is checked next, and which gets no place."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from attrs import frozen

from twisted_net.net.length_ranking import LengthRanking
from twisted_net.net.rate_limit import RateLimiter
from twisted_net.net.recent_use import NEVER, RecentUse, joint_level

HALF_LIFE = 600.0
"""
Seconds after which an attempt counts half. Delayed by a minute after each failure, a guesser keeps
a level of more than ten attempts; a person who mistyped is forgiven within the hour.
"""

ATTEMPT = 0.125
"""Units of an attempt that was not checked, or was right; one that failed is a whole unit more."""

SITE_SHARE = -2.0
"""
Level of a /48 of IPv6 as each of its /64s has it: a quarter of what all have used together. Its
owner has 65,536 of them, each of which would be new.
"""

MAX_KNOWN = 4096
"""Pairs of a source and a name that are remembered because the password was right."""

KNOWN_PER_SECOND, KNOWN_BURST = 0.2, 10
"""
Attempts of one name that come first because they are made where its password was right before. So
few leave the others their turn, if it is a user who guesses.
"""

NAME_LENGTH = 128
"""Characters of a name that distinguish it; no user's name is longer."""

FIRST_ESTIMATE, LONGEST_ESTIMATE = 0.25, 10.0
"""
Seconds that a check is taken to last before one was measured, and at most: a process that was
stopped meanwhile measures hours.
"""

SMOOTHING = 0.125
"""Weight of the latest check in the estimate."""

_T = TypeVar("_T", bound=Hashable)
_Rank = tuple[bool, float, int]


@frozen
class Applicant:
    """
    Who wants a password checked.

    :param source: where the client is, as far as it cannot choose: IPv4 address, IPv6 /64, uid.
    :param site: the /48 around an IPv6 address; else None.
    :param name: the user that it wants to be, whether there is one or not.
    """

    source: str
    site: str | None
    name: str


class PasswordQueue(Generic[_T]):
    """
    Passwords that wait to be checked; the best is taken first, and the worst gives way.

    A check is expensive, so that a crowd of guessers can ask for more than can be made. The order
    decides who is served all the same:

    1. who comes from where this name's password was right before, for some attempts;
    2. newcomers, whose source was never seen: see :class:`Newcomers`;
    3. whose source has used the least lately (:class:`~twisted_net.net.recent_use.RecentUse`), for
       IPv6 with a share of its /48.

    So a newcomer comes before all that have guessed before, however many they are. Nothing here
    depends on whether a name is a user's.

    :param max_waiting: attempts that may wait, however fast checks are.
    :param timeout: seconds that a client has to log in: no more wait than can be checked in this
        time. 0 for no limit.
    :param workers: checks that are made at a time.
    """

    def __init__(self, max_waiting: int, timeout: float, workers: int = 1) -> None:
        self._max_waiting = max_waiting
        self._timeout = timeout
        self._workers = workers
        self._check_time = FIRST_ESTIMATE
        self._newcomers: Newcomers[_T] = Newcomers()
        # All others, the best last. Insertion moves pointers, which takes 2 µs for 10,000.
        self._ranked: list[tuple[_Rank, _T]] = []
        self._ranks: dict[_T, _Rank] = {}
        self._added = 0
        self._sources = RecentUse(HALF_LIFE)
        self._sites = RecentUse(HALF_LIFE)
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._known_rate = RateLimiter(KNOWN_PER_SECOND, KNOWN_BURST, MAX_KNOWN)

    def __len__(self) -> int:
        return len(self._newcomers) + len(self._ranked)

    @property
    def limit(self) -> int:
        """How many may wait now."""
        if not self._timeout:
            return self._max_waiting
        in_time = int(self._timeout * self._workers / self._check_time)
        return max(1, min(self._max_waiting, in_time))

    @property
    def delay(self) -> float:
        """Seconds until all that wait are checked."""
        return (len(self) + 1) * self._check_time / self._workers

    def knows(self, source: str, name: str) -> bool:
        """Whether this name's password was right from this source, among the last ones."""
        return (source, name[:NAME_LENGTH]) in self._known

    def add(self, item: _T, applicant: Applicant, now: float) -> list[_T]:
        """
        Let an attempt wait.

        :param item: hashable, and not waiting yet.
        :return: those that have no place any more; *item* may be among them.
        """
        source, name = applicant.source, applicant.name[:NAME_LENGTH]
        use = self._sources.level(source)
        if applicant.site is not None:
            use = joint_level(use, self._sites.level(applicant.site) + SITE_SHARE)
        first = self._comes_first(source, name, now)
        self._charge(applicant, now, ATTEMPT)
        if use == NEVER and not first:
            self._newcomers.add(item, name)
        else:
            self._added += 1
            rank = self._ranks[item] = (first, -use, self._added)
            insort(self._ranked, (rank, item))
        return [self._remove_worst() for _ in range(len(self) - self.limit)]

    def take(self) -> _T | None:
        """Remove and return the best that waits, or return None."""
        if self._newcomers and not (self._ranked and self._ranked[-1][0][0]):
            return self._newcomers.take()
        if not self._ranked:
            return None
        _, item = self._ranked.pop()
        del self._ranks[item]
        return item

    def discard(self, item: _T) -> None:
        """Remove one that waits, if it does."""
        rank = self._ranks.pop(item, None)
        if rank is None:
            self._newcomers.discard(item)
        else:
            del self._ranked[bisect_left(self._ranked, rank, key=_rank_of)]

    def checked(self, applicant: Applicant, now: float, *, right: bool, took: float) -> None:
        """
        Note the outcome of a check.

        :param took: seconds.
        """
        took = min(took, LONGEST_ESTIMATE)
        self._check_time += (took - self._check_time) * SMOOTHING
        if not right:
            self._charge(applicant, now, 1.0)
            return
        known = (applicant.source, applicant.name[:NAME_LENGTH])
        self._known[known] = None
        self._known.move_to_end(known)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    def _remove_worst(self) -> _T:
        if self._ranked and not (self._newcomers and self._ranked[0][0][0]):
            _, item = self._ranked.pop(0)
            del self._ranks[item]
            return item
        return self._newcomers.remove_worst()

    def _comes_first(self, source: str, name: str, now: float) -> bool:
        if (source, name) not in self._known or self._known_rate.wait(name, now) > 0:
            return False
        self._known_rate.charge(name, now)
        return True

    def _charge(self, applicant: Applicant, now: float, units: float) -> None:
        self._sources.charge(applicant.source, now, units)
        if applicant.site is not None:
            self._sites.charge(applicant.site, now, units)


class Newcomers(Generic[_T]):
    """
    Items of sources that nothing is known of, in an order that a crowd of these cannot fill.

    Every other time the newest one is next: of more than can be served in time, the oldest have
    waited in vain, and first come, first served would serve everybody too late. In between, names
    take turns, the newest name first and the newest item of each: many sources that try one name do
    not keep out those of another. Who gives way is the oldest item of the name that has most.
    """

    def __init__(self) -> None:
        # Oldest first, with their names.
        self._items: OrderedDict[_T, str] = OrderedDict()
        # Items by name, oldest first; the last name is next.
        self._by_name: OrderedDict[str, OrderedDict[_T, None]] = OrderedDict()
        self._lengths = LengthRanking()  # of names
        self._name_is_next = False

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: _T, name: str) -> None:
        """Add an item."""
        self._items[item] = name
        same = self._by_name.setdefault(name, OrderedDict())
        same[item] = None
        self._lengths.grown(name, len(same))

    def take(self) -> _T:
        """Remove and return the one that is next; there must be one."""
        if self._name_is_next:
            name = next(reversed(self._by_name))
            item = next(reversed(self._by_name[name]))
        else:
            item = next(reversed(self._items))
        self._by_name.move_to_end(self._items[item], last=False)
        self._name_is_next = not self._name_is_next
        self.discard(item)
        return item

    def remove_worst(self) -> _T:
        """Remove and return the one that gives way; there must be one."""
        name = self._lengths.first()
        item = next(iter(self._by_name[name]))
        self.discard(item)
        return item

    def discard(self, item: _T) -> None:
        """Remove an item, if it is here."""
        name = self._items.pop(item, None)
        if name is None:
            return
        same = self._by_name[name]
        del same[item]
        if not same:
            del self._by_name[name]
        self._lengths.shrunk(name, len(same))


def _rank_of(entry: tuple[_Rank, object]) -> _Rank:
    return entry[0]
