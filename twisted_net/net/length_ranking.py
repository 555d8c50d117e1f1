"""Length ranking: which of many queues is the longest, where each change is by one item."""

from __future__ import annotations

from collections import OrderedDict


class LengthRanking:
    """
    Keys by their lengths, each at least 1; the longest is found at once.

    :ivar longest: the largest length, or 0 if there is no key.
    """

    def __init__(self) -> None:
        self.longest = 0
        # By length, the key first that has had it longest.
        self._keys: dict[int, OrderedDict[str, None]] = {}

    def grown(self, key: str, length: int) -> None:
        """Note that a key has one item more than before, *length* in all."""
        if length > 1:
            self._remove(key, length - 1)
        self._keys.setdefault(length, OrderedDict())[key] = None
        self.longest = max(self.longest, length)

    def shrunk(self, key: str, length: int) -> None:
        """Note that a key has one item less than before, *length* in all."""
        self._remove(key, length + 1)
        if length:
            self._keys.setdefault(length, OrderedDict())[key] = None
        # No length is skipped: this key is one below.
        if self.longest not in self._keys:
            self.longest -= 1

    def first(self) -> str:
        """Return a key of the largest length; there must be one."""
        return next(iter(self._keys[self.longest]))

    def _remove(self, key: str, length: int) -> None:
        keys = self._keys[length]
        del keys[key]
        if not keys:
            del self._keys[length]
