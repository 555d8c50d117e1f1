"""How often and how much: rates per key, and delays that grow with each failure."""

from __future__ import annotations

MAX_KEYS = 65_536
"""
Keys of one table. At this many, the key that was touched longest ago is forgotten, so that a
source with endless addresses costs no memory; whoever is forgotten starts anew.
"""


class Rates:
    """
    A rate for each key, with bursts: the generic cell rate algorithm (GCRA, ITU-T I.371).

    Each key has one number, the time at which all that it was charged for is paid off. It may lie
    ahead of now by what the burst is worth. A key that is not in the table has paid everything.

    :param per_second: units that each key is given per second.
    :param burst: units that a key may take at once after a rest; at least 1.
    :param max_keys: keys kept, see :data:`MAX_KEYS`.
    """

    def __init__(self, per_second: float, burst: float, max_keys: int = MAX_KEYS) -> None:
        self._interval = 1.0 / per_second
        self._tolerance = burst * self._interval
        self._max_keys = max_keys
        # Touched longest ago first.
        self._paid: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._paid)

    def wait(self, key: str, now: float, units: float = 1.0) -> float:
        """
        Seconds after which *key* may take so many units; 0 where it may take them now.

        More units than the burst never fit; for them it is the time until the burst is whole.
        """
        paid = self._paid.get(key)
        if paid is None or paid <= now:
            return 0.0
        room = max(self._tolerance - units * self._interval, 0.0)
        return max(paid - now - room, 0.0)

    def charge(self, key: str, now: float, units: float = 1.0) -> None:
        """Charge *key* for units, whether they fit or not: what does not fit is a debt."""
        paid = self._paid.pop(key, now)
        if len(self._paid) >= self._max_keys:
            del self._paid[next(iter(self._paid))]
        self._paid[key] = max(paid, now) + units * self._interval


class Delays:
    """
    How long a source must wait before it may try again, growing with each failure.

    The first attempts are free, as people mistype; then each one doubles the delay. An attempt is
    counted when it begins, so that a hundred at once do not pass as one.

    :param free: attempts that fail without a delay.
    :param first: the first delay, in seconds.
    :param longest: no delay is longer; after ten times this a source is forgotten.
    :param max_keys: sources kept, see :data:`MAX_KEYS`.
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
        # How many failed, and when the last began; touched longest ago first.
        self._failures: dict[str, tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self._failures)

    def attempt(self, key: str, now: float) -> float:
        """
        Begin an attempt, and count it as failed until :meth:`succeeded` says otherwise.

        :return: 0, or the seconds that are to be waited first; then it did not begin.
        """
        failures, last = self._failures.pop(key, (0, now))
        if now - last > 10 * self._longest:
            failures = 0
        wait = last + self._delay(failures) - now
        if wait > 0:
            self._keep(key, failures, last)
            return wait
        self._keep(key, failures + 1, now)
        return 0.0

    def succeeded(self, key: str) -> None:
        """
        Take back one attempt of this source, which was no failure.

        The others stay: an account of one's own is no way to try another one's faster.
        """
        failures, last = self._failures.pop(key, (0, 0.0))
        if failures > 1:
            self._keep(key, failures - 1, last)

    def _delay(self, failures: int) -> float:
        beyond = failures - self._free
        # 2.0**1024 is more than a float holds; a source may well fail as often.
        return min(self._longest, self._first * 2.0 ** min(beyond, 64)) if beyond >= 0 else 0.0

    def _keep(self, key: str, failures: int, last: float) -> None:
        if len(self._failures) >= self._max_keys:
            del self._failures[next(iter(self._failures))]
        self._failures[key] = (failures, last)


class Counts:
    """How many of something each key holds; a key that holds none takes no room."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __getitem__(self, key: str) -> int:
        return self._held.get(key, 0)

    def add(self, key: str) -> None:
        """Count one more."""
        self._held[key] = self._held.get(key, 0) + 1

    def remove(self, key: str) -> None:
        """Count one less; there must be one."""
        held = self._held.pop(key) - 1
        if held:
            self._held[key] = held
