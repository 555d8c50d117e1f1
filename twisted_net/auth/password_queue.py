"""Password queue: which of the passwords that wait is checked next, and which gets no place."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from attrs import frozen

from twisted_net.auth.known_users import MAX_KNOWN, KnownPairs, KnownUsers
from twisted_net.auth.newcomers import Newcomers
from twisted_net.net.recent_use import NEVER, RecentUse, joint_level

HALF_LIFE = 600.0
"""
Seconds after which an attempt counts half. Delayed by a minute after each failure, a guesser keeps
a level of more than ten attempts; a person who mistyped is forgiven within the hour.
"""

ATTEMPT = 0.125
"""Units of an attempt that was not checked, or was right; one that failed is a whole unit more."""

NETWORK_SHARES = (-2.0, -4.0)
"""
Levels of the networks around a source as the source has them, the smaller network first: a quarter
and a sixteenth of what all in them have used together. Their owner has any number of sources in
them, each of which would be new.
"""

FORGIVEN_SOURCES = 32.0
"""
Right passwords of one name from sources where it was not known, lately, that leave no trace in
their networks: a person has fewer. Without a limit, one account would make all networks of an
attacker look new, as often as it logs in from another of their addresses.
"""

LEVELS_PER_STEP = 0.25
"""
Levels that count as equal, so that the newest of those who have used as much is next: first come,
first served would serve all of them late.
"""

FRESH = 2.0
"""
Seconds for which a newcomer comes before the others. Of those who wait longer, in a crowd, most
have come with it.
"""

TURNS = 4
"""Turns of those who are not known, while newcomers wait, after which one passed over is next."""

RANKED_ANEW = 4
"""Of those that wait, how many are ranked anew whenever one is added: those of longest ago."""

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
_Rank = tuple[float, float, int]


@frozen
class Applicant:
    """
    Who wants a password checked.

    :param source: where the client is, as far as it cannot choose: IPv4 address, IPv6 /64, uid.
    :param networks: those around an address, the smaller first
        (:func:`~twisted_net.net.addresses.networks_around`).
    :param name: the user that it wants to be, whether there is one or not.
    """

    source: str
    networks: tuple[str, ...]
    name: str


class PasswordQueue(Generic[_T]):
    """
    Passwords that wait to be checked; the best is taken first, and the worst gives way.

    A check is expensive, so that a crowd of guessers can ask for more than can be made. The order
    decides who is served all the same. There are three kinds of attempts:

    1. of known users, who come from where this name's password was right before: see
       :class:`~twisted_net.auth.known_users.KnownUsers`;
    2. of newcomers, of whose source and networks nothing was seen but right passwords: see
       :class:`~twisted_net.auth.newcomers.Newcomers`;
    3. of the others: first whose source, with a share of the networks around it, has used the least
       lately (:class:`~twisted_net.net.recent_use.RecentUse`).

    Known users take turns with those who are not known. Of these a newcomer is next as long as it
    is :data:`FRESH`, then one of the others: a crowd that came from everywhere at once does not
    keep out who comes after it. Every fourth time there is a turn more, for those passed over: the
    others while newcomers are fresh, or a newcomer that is not. So a known user, and whoever else
    is the first of its kind, waits for at most two checks after the one that is being made, or
    three if all kinds wait. Nothing here depends on whether a name is a user's.

    Over the limit, known users have half of all places, and those who are no newcomers a quarter.

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
        self._known_pairs = KnownPairs()
        self._known: KnownUsers[_T] = KnownUsers(HALF_LIFE)
        self._newcomers: Newcomers[_T] = Newcomers()
        self._others: LeastUse[_T] = LeastUse(self._levels)
        self._known_is_next = False
        self._turns = 0  # of those who are not known, while newcomers wait
        self._newcomers_are_fresh = False
        self._passed_over_are_next = False
        self._sources = RecentUse(HALF_LIFE)
        self._networks = [RecentUse(HALF_LIFE) for _ in NETWORK_SHARES]
        self._new_sources = RecentUse(HALF_LIFE, MAX_KNOWN)  # of names that were right

    def __len__(self) -> int:
        return len(self._known) + len(self._newcomers) + len(self._others)

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
        return (source, name[:NAME_LENGTH]) in self._known_pairs

    def add(self, item: _T, applicant: Applicant, now: float) -> list[_T]:
        """
        Let an attempt wait.

        :param item: hashable, and not waiting yet.
        :return: those that have no place any more; *item* may be among them.
        """
        name = applicant.name[:NAME_LENGTH]
        is_new = self._levels(applicant) == (NEVER, NEVER)
        self._charge(applicant, now, ATTEMPT)
        if self.knows(applicant.source, name):
            self._known.add(item, name)
        elif is_new:
            self._newcomers.add(item, name, now)
        else:
            self._others.add(item, applicant)
        return [self._remove_worst() for _ in range(len(self) - self.limit)]

    def take(self, now: float, chance: float) -> _T | None:
        """
        Remove and return the best that waits, or return None.

        :param chance: a number drawn evenly from 0 to 1.
        """
        if self._passed_over_are_next:
            self._passed_over_are_next = False
            if (item := self._take_passed_over(chance)) is not None:
                return item
        if self._known and (self._known_is_next or len(self._known) == len(self)):
            self._known_is_next = False
            return self._known.take()
        self._known_is_next = True
        if not self._newcomers:
            return self._others.take() if self._others else None
        self._turns += 1
        self._passed_over_are_next = self._turns % TURNS == 0
        self._newcomers_are_fresh = now - self._newcomers.newest_since() <= FRESH
        if self._newcomers_are_fresh or not self._others:
            return self._newcomers.take()
        return self._others.take()

    def _take_passed_over(self, chance: float) -> _T | None:
        """Remove and return one that the others of these turns keep out; None if none waits."""
        # Of fresh newcomers there may be so many that most of these are kept out, too.
        others_are_next = self._newcomers_are_fresh and self._turns % (2 * TURNS)
        if self._others and (others_are_next or not self._newcomers):
            return self._others.take()
        return self._newcomers.take_passed_over(chance) if self._newcomers else None

    def discard(self, item: _T) -> bool:
        """Remove one that waits, if it does; return whether it did."""
        before = len(self)
        self._known.discard(item)
        self._newcomers.discard(item)
        self._others.discard(item)
        return len(self) < before

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
        name = applicant.name[:NAME_LENGTH]
        was_known = self.knows(applicant.source, name)
        self._known_pairs.add(applicant.source, name)
        if not was_known:
            self._new_sources.charge(name, now)
            if self._new_sources.exceeds(name, now, FORGIVEN_SOURCES):
                return
        # Most right users come from networks where others have logged in.
        for used, network in zip(self._networks, applicant.networks, strict=False):
            used.take_back(network, now, ATTEMPT)

    def _remove_worst(self) -> _T:
        if len(self._known) > (self.limit + 1) // 2 or len(self._known) == len(self):
            return self._known.remove_worst()
        if len(self._others) > (self.limit + 2) // 4 or not self._newcomers:
            return self._others.remove_worst()
        return self._newcomers.remove_worst()

    def _levels(self, applicant: Applicant) -> tuple[float, float]:
        """Return the level of a source with its shares of networks, and that of it alone."""
        level = own = self._sources.level(applicant.source)
        for used, network, share in zip(
            self._networks, applicant.networks, NETWORK_SHARES, strict=False
        ):
            level = joint_level(level, used.level(network) + share)
        return level, own

    def _charge(self, applicant: Applicant, now: float, units: float) -> None:
        self._sources.charge(applicant.source, now, units)
        for used, network in zip(self._networks, applicant.networks, strict=False):
            used.charge(network, now, units)
        name = applicant.name[:NAME_LENGTH]
        if self.knows(applicant.source, name):
            self._known.charge(name, now, units)


class LeastUse(Generic[_T]):
    """
    Items by how much their source has used; of those that are equal the newest is next.

    First counts what it has used with its networks; of those that are about equal in this, as they
    are in one network, what it has used alone.

    :param levels: returns both levels of an applicant, as they are now.
    """

    def __init__(self, levels: Callable[[Applicant], tuple[float, float]]) -> None:
        self._levels = levels
        # The best last. Insertion moves pointers, which takes 2 µs for 10,000.
        self._ranked: list[tuple[_Rank, _T]] = []
        # Rank and applicant; first those that were ranked longest ago.
        self._ranks: OrderedDict[_T, tuple[_Rank, Applicant]] = OrderedDict()
        self._added = 0

    def __len__(self) -> int:
        return len(self._ranked)

    def add(self, item: _T, applicant: Applicant) -> None:
        """Add an item."""
        self._added += 1
        self._rank(item, applicant, self._added)
        # The levels of those that wait have grown with what others of their networks use.
        for _ in range(RANKED_ANEW):
            item, ((_, _, added), applicant) = next(iter(self._ranks.items()))
            self.discard(item)
            self._rank(item, applicant, added)

    def take(self) -> _T:
        """Remove and return the one that is next; there must be one."""
        return self._remove(-1)

    def remove_worst(self) -> _T:
        """Remove and return the one that gives way; there must be one."""
        return self._remove(0)

    def discard(self, item: _T) -> None:
        """Remove an item, if it is here."""
        if item in self._ranks:
            rank, _ = self._ranks.pop(item)
            del self._ranked[bisect_left(self._ranked, rank, key=_rank_of)]

    def _rank(self, item: _T, applicant: Applicant, added: int) -> None:
        level, own = self._levels(applicant)
        rank = (-(level // LEVELS_PER_STEP), -(own // LEVELS_PER_STEP), added)
        self._ranks[item] = rank, applicant
        insort(self._ranked, (rank, item))

    def _remove(self, place: int) -> _T:
        _, item = self._ranked.pop(place)
        del self._ranks[item]
        return item


def _rank_of(entry: tuple[_Rank, object]) -> _Rank:
    return entry[0]
