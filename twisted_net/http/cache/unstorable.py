"""Which requests had answers that no cache may keep, so that waiting for another's is in vain."""

from __future__ import annotations

from collections.abc import Hashable

MAX_KEYS = 1000
"""Most keys remembered; beyond it, the one noted longest ago is forgotten."""

SECONDS = 120.0
"""How long a key is remembered after it was last noted: as long as Varnish's "hit-for-miss"."""


class Unstorable:
    """
    Remembers for a while which keys' last answers could not be stored.

    It is a hint and no more: to forget one too early costs a wait, too late a second request.

    :param max_keys: at least 1.
    :param seconds: how long a key is remembered.
    """

    def __init__(self, max_keys: int = MAX_KEYS, seconds: float = SECONDS) -> None:
        self._max_keys = max_keys
        self._seconds = seconds
        # By the time of the last note, the oldest first.
        self._until: dict[Hashable, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def note(self, key: Hashable, now: float) -> None:
        """Remember that the answer for *key* could not be stored."""
        self._until.pop(key, None)
        self._until[key] = now + self._seconds
        if len(self._until) > self._max_keys:
            del self._until[next(iter(self._until))]

    def forget(self, key: Hashable) -> None:
        """Note that the answer for *key* could be stored; nothing where it is not remembered."""
        self._until.pop(key, None)

    def includes(self, key: Hashable, now: float) -> bool:
        """Say whether *key* is remembered."""
        until = self._until.get(key)
        if until is None:
            return False
        if now >= until:
            del self._until[key]
            return False
        return True
