"""Rate limits per key, delays that grow with each failure, and counts per key."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import islice
from typing import TypeVar

MAX_KEYS = 65_536
"""
Keys of one table. At this number those that were used longest ago are evicted, so that a source
with many addresses cannot fill the memory. An evicted key starts again without a history.
"""

EVICTED_SHARE = 64
"""One of so many keys is evicted from a full table at a time."""

_V = TypeVar("_V")


class _RuleTime:
    """
    The time of a rule: it goes on with a clock, and stands still where that clock is set back.

    The clock ought to be steady. If it is not, a step back would else make the debts of all keys
    larger by its size.
    """

    __slots__ = ("_behind", "_latest")

    def __init__(self) -> None:
        self._latest = float("-inf")
        self._behind = 0.0

    def at(self, now: float) -> float:
        """Return the time of the rule when the clock shows *now*."""
        if now < self._latest:
            self._behind += self._latest - now
        self._latest = now
        return now + self._behind


class RateLimiter:
    """
    A rate limit for each key, with bursts: the generic cell rate algorithm (GCRA, ITU-T I.371).

    Each key has one number, its theoretical arrival time: when all units charged to it are paid
    off. It may be later than now by the duration of the burst. A key that is not in the table has
    no debt.

    :param per_second: units per second for each key.
    :param burst: units that a key may use at once after a pause; at least 1.
    :param max_keys: size of the table, see :data:`MAX_KEYS`.
    """

    def __init__(self, per_second: float, burst: float, max_keys: int = MAX_KEYS) -> None:
        self._interval = 1.0 / per_second
        self._tolerance = burst * self._interval
        self._max_keys = max_keys
        self._time = _RuleTime()
        # Least recently used first.
        self._arrivals: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._arrivals)

    def wait(self, key: str, now: float, units: float = 1.0) -> float:
        """
        Seconds until *key* may use that many units; 0 if it may use them now.

        More units than the burst never fit; for them it is the time until the burst is available.
        """
        now = self._time.at(now)
        arrival = self._arrivals.get(key)
        if arrival is None or arrival <= now:
            return 0.0
        room = max(self._tolerance - units * self._interval, 0.0)
        return max(arrival - now - room, 0.0)

    def take(self, key: str, now: float, units: float = 1.0) -> float:
        """
        Charge units to *key* if it may use them now.

        :return: 0, or the seconds to wait first; then nothing is charged.
        """
        now = self._time.at(now)
        arrivals = self._arrivals
        arrival = arrivals.get(key)
        if arrival is not None and arrival > now:
            room = max(self._tolerance - units * self._interval, 0.0)
            wait = arrival - now - room
            if wait > 0.0:
                return wait
            now = arrival
        self._keep(key, now + units * self._interval)
        return 0.0

    def charge(self, key: str, now: float, units: float = 1.0) -> None:
        """Charge units to *key*, whether they fit or not: units that do not fit are a debt."""
        now = self._time.at(now)
        self._keep(key, max(self._arrivals.get(key, now), now) + units * self._interval)

    def _keep(self, key: str, arrival: float) -> None:
        arrivals = self._arrivals
        arrivals.pop(key, None)
        if len(arrivals) >= self._max_keys:
            _evict(arrivals)
        arrivals[key] = arrival


class FailureDelays:
    """
    How long a source must wait before its next attempt: exponential backoff.

    The first attempts are free, as people mistype; then each one doubles the delay. An attempt is
    counted when it begins, so that a hundred concurrent ones do not count as one.

    :param free: failed attempts without a delay.
    :param first: the first delay, in seconds.
    :param longest: longest delay; after ten times this the failures of a source expire.
    :param max_keys: size of the table, see :data:`MAX_KEYS`.
    """

    def __init__(
        self,
        free: int = 3,
        first: float = 1.0,
        longest: float = 60.0,
        max_keys: int = MAX_KEYS,
    ) -> None:
        self._free = free
        self._first = first
        self._longest = longest
        self._max_keys = max_keys
        self._time = _RuleTime()
        # Failures, and when the last attempt began; least recently used first.
        self._failures: dict[str, tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self._failures)

    def attempt(self, key: str, now: float) -> float:
        """
        Begin an attempt, which counts as failed until :meth:`take_back` is called.

        :return: 0, or the seconds to wait first; then the attempt has not begun.
        """
        now = self._time.at(now)
        failures, last = self._failures.pop(key, (0, now))
        if now - last > 10 * self._longest:
            failures = 0
        delay = self._delay(failures)
        wait = min(last + delay - now, delay)
        if wait > 0:
            self._keep(key, failures, last)
            return wait
        self._keep(key, failures + 1, now)
        return 0.0

    def take_back(self, key: str, began: float) -> None:
        """
        Take back one attempt of this source, which did not fail.

        The others stay: logging in to one's own account must not allow faster attempts on others.
        If none began after it, the next one may begin as if it had not been made.

        :param began: the time of the attempt, as it was given.
        """
        failures, last = self._failures.pop(key, (0, 0.0))
        if failures > 1:
            if last == began:
                # It began when the delay of those before it was over, if not later.
                last -= self._delay(failures - 1)
            self._keep(key, failures - 1, last)

    def _delay(self, failures: int) -> float:
        beyond = failures - self._free
        # 2.0**1024 overflows a float, and a source may fail that often.
        return min(self._longest, self._first * 2.0 ** min(beyond, 64)) if beyond >= 0 else 0.0

    def _keep(self, key: str, failures: int, last: float) -> None:
        if len(self._failures) >= self._max_keys:
            _evict(self._failures)
        self._failures[key] = (failures, last)


class KeyedCounts:
    """Counts per key; a key whose count is 0 uses no memory."""

    def __init__(self) -> None:
        self._counts: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def __getitem__(self, key: Hashable) -> int:
        return self._counts.get(key, 0)

    def add(self, key: Hashable) -> None:
        """Increase the count of *key* by one."""
        self._counts[key] = self._counts.get(key, 0) + 1

    def remove(self, key: Hashable) -> None:
        """Decrease the count of *key* by one; it must be at least 1."""
        count = self._counts.pop(key) - 1
        if count:
            self._counts[key] = count


def _evict(table: dict[str, _V]) -> None:
    """
    Remove the oldest keys of a full table: one of :data:`EVICTED_SHARE`, and at least one.

    To find the first key, a dictionary walks over the places of all that were removed in front of
    it: 20 µs for each key of a source with ever new addresses, if they were removed one by one. An
    OrderedDict does not, as in ``bounded_table``, but takes a quarter more time for each command.
    """
    count = max(1, len(table) // EVICTED_SHARE)
    for key in list(islice(table, count)):
        del table[key]
