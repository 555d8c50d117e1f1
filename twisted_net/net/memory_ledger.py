"""Memory ledger: bytes that are kept for strangers, by kind; at a limit the largest give way."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Annotated, Any, Generic, TypeVar
from weakref import ReferenceType, ref

from msgspec import Meta

from twisted_net.config.record import Record
from twisted_net.config.type_checks import check_arguments

RELIEF = 0.9
"""
Share of a limit that may be used after a relief.

Each begins and ends some bookkeeping, so some room is made each time.
"""

RESERVE = 0.125
"""
Share of a limit that may be used above it while a relief is under way. Over that, whatever grows
ends the largest holder at once, so that nothing outruns the steps of the relief.
"""

LIMIT = 536_870_912
"""Bytes of all kinds together by default."""

_H = TypeVar("_H", bound=Hashable)

Work = Iterator[float]
"""Relieves one holder after the other; yields the share of a step that each takes."""


class MemorySettings(Record, frozen=True):
    """
    The memory of the whole service, ``[memory]``.

    Half a GiB is twice what the buffers of one listener may hold, or 10,000 idle clients over TLS
    and as much again; a machine of 1 GiB has it beside the server and the system.
    """

    limit: Annotated[
        int, Meta(ge=1_048_576, description="bytes kept for clients of all ports, of all kinds")
    ] = LIMIT


class MemoryAccount(Generic[_H]):
    """
    Bytes of one kind, by holder. Made by :meth:`MemoryLedger.account`.

    Holders are in classes, by powers of two of their bytes. The largest holder is the one that has
    been longest in the highest class: none holds twice as much. So each operation takes O(1).

    :ivar kind: what it shows as; several accounts may have the same.
    :ivar last: whether its holders give way after those of other accounts.
    :ivar limit: bytes of all its holders together.
    :ivar total: bytes of all its holders now.
    :ivar relieved: how many holders were relieved.
    """

    __slots__ = (
        "_classes",
        "_ledger",
        "_relieve",
        "_sizes",
        "_used",
        "has_limit",
        "kind",
        "last",
        "limit",
        "over",
        "relieved",
        "total",
    )

    def __init__(
        self,
        ledger: MemoryLedger,
        kind: str,
        limit: int | None,
        relieve: Callable[[_H], float] | None,
        last: bool,
    ) -> None:
        self.kind = kind
        self.last = last
        self.has_limit = limit is not None
        self.limit = ledger.limit if limit is None else limit
        self.total = 0
        self.relieved = 0
        self.over = False  # from when it is over its limit until it is relieved
        self._ledger = ledger
        self._relieve = relieve
        self._sizes: dict[_H, int] = {}
        self._classes: dict[int, OrderedDict[_H, None]] = {}
        self._used = 0  # a bit for each class that has holders

    def __len__(self) -> int:
        """Return how many holders there are."""
        return len(self._sizes)

    @property
    def full(self) -> bool:
        """Whether nothing more should be kept, where one may refuse it instead."""
        return self.total >= self.limit or self._ledger.total >= self._ledger.limit

    @property
    def largest_class(self) -> int:
        """Binary digits of what the largest holder holds; 0 without one, or if none gives way."""
        return 0 if self._relieve is None or not self._used else self._used.bit_length() - 1

    def of(self, holder: _H) -> int:
        """Return the bytes of a holder."""
        return self._sizes.get(holder, 0)

    def set(self, holder: _H, size: int) -> None:
        """
        Set the bytes of a holder; with 0, it is none any more.

        Whoever grows over a limit begins a relief, which ends holders from the next turn on; over
        the :data:`RESERVE` too, some are ended within this call, and this one may be among them.
        """
        sizes = self._sizes
        before = sizes.get(holder, 0)
        if size == before:
            return
        old, new = before.bit_length(), size.bit_length()
        if new != old:
            self._reclassify(holder, old, new)
        if size:
            sizes[holder] = size
        else:
            del sizes[holder]
        ledger = self._ledger
        grown = size - before
        self.total += grown
        ledger.total += grown
        if grown > 0 and (self.total > self.limit or ledger.total > ledger.limit):
            ledger.exceeded(self)

    def add(self, holder: _H, size: int) -> None:
        """Add to the bytes of a holder, or subtract a negative number; otherwise as :meth:`set`."""
        self.set(holder, self.of(holder) + size)

    def largest(self) -> _H | None:
        """Return a holder that holds more than half of what any other does; None without one."""
        if not self._used:
            return None
        return next(iter(self._classes[self._used.bit_length() - 1]))

    def relieve_largest(self) -> float | None:
        """
        End what is kept for the largest holder.

        :return: the share of a step that this took; None if it holds as much as before.
        """
        holder, before = self.largest(), self.total
        if holder is None or self._relieve is None:
            return None
        share = self._relieve(holder)
        if self.total >= before:
            return None
        self.relieved += 1
        return share

    def _reclassify(self, holder: _H, old: int, new: int) -> None:
        classes = self._classes
        if old:
            members = classes[old]
            del members[holder]
            if not members:
                self._used &= ~(1 << old)
        if new:
            if new not in classes:
                classes[new] = OrderedDict()
            classes[new][holder] = None
            self._used |= 1 << new


_Account = MemoryAccount[Any]  # Any: each has holders of its own type


@check_arguments
class MemoryLedger:
    """
    All bytes that are kept for strangers, in accounts; all parts of a service share one.

    Over the limit of an account its holders are relieved, over that of all those of all accounts,
    until :data:`RELIEF` of it is used: those that hold most first, and of those that hold about as
    much, those of the account that holds most. What each session costs is little, and gives way
    last, however much all of them hold. Accounts are few, and live as long as the ledger.

    :param limit: bytes of all accounts together.
    :ivar limit: the same.
    :ivar total: bytes of all accounts now.
    :raises ValueError: for a limit below 1.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        if limit < 1:
            raise ValueError(f"MemoryLedger: limit must be an integer of at least 1, not {limit}")
        self.limit = limit
        self.total = 0
        self._accounts: list[_Account] = []
        self._spread: Callable[[Work], object] | None = None
        self._over = False
        # The relief under way. A weak reference: its steps may be dropped, even before the first.
        self._relieving: ReferenceType[Work] | None = None
        self._urgent = False

    def account(
        self,
        kind: str,
        limit: int | None = None,
        relieve: Callable[[_H], float] | None = None,
        *,
        last: bool = False,
    ) -> MemoryAccount[_H]:
        """
        Open an account.

        :param kind: its name; figures of those that have the same are added up.
        :param limit: bytes of its holders together; None for no other limit than that of all.
        :param relieve: ends what is kept for a holder, sets it to 0 or at least to less, and
            returns the share of a step that it took (:mod:`twisted_net.turns.steps`). None for what
            never gives way, as it has a limit of its own and is small, or refuses what is too much.
        :param last: whether its holders give way only after all those of other accounts: for what a
            session costs, which the one that holds most in buffers has, too.
        """
        account = MemoryAccount(self, kind, limit, relieve, last)
        self._accounts.append(account)
        return account

    def use_pacing(self, spread: Callable[[Work], object]) -> None:
        """
        Spread relief over turns of the reactor, unless another server was first.

        :param spread: goes through the work, as a step scheduler does. Without it, all is done
            within the call that was too much.
        """
        if self._spread is None:
            self._spread = spread

    def figures(self) -> Mapping[str, object]:
        """Return bytes, limit and holders relieved, by kind and for all, as INFO shows them."""
        figures: dict[str, dict[str, int]] = {}
        unlimited = set()
        for account in sorted(self._accounts, key=lambda account: account.kind):
            shown = figures.setdefault(account.kind, {"bytes": 0, "limit": 0, "relieved": 0})
            shown["bytes"] += account.total
            shown["limit"] += account.limit
            shown["relieved"] += account.relieved
            if not account.has_limit:
                unlimited.add(account.kind)
        for kind in unlimited:
            figures[kind]["limit"] = self.limit
        relieved = sum(shown["relieved"] for shown in figures.values())
        figures["total"] = {"bytes": self.total, "limit": self.limit, "relieved": relieved}
        return figures

    def exceeded(self, account: _Account) -> None:
        """Begin a relief: an account has grown, and is over its limit, or all are over theirs."""
        account.over = account.over or account.total > account.limit
        self._over = self._over or self.total > self.limit
        if self._relieving is None or self._relieving() is None:
            work = self._relief()
            self._relieving = ref(work)
            if self._spread is None:
                for _ in work:
                    pass
            else:
                self._spread(work)
        if not self._urgent:
            self._relieve_now(account)

    def _relief(self) -> Work:
        stuck: set[_Account] = set()
        yield 1.0  # A whole step: what has grown is not to be ended while it does.
        while (account := self._next(stuck)) is not None:
            share = account.relieve_largest()
            if share is None:
                stuck.add(account)
            else:
                yield share
        # Not where it was dropped: another one may be under way by then.
        self._relieving = None

    def _relieve_now(self, account: _Account) -> None:
        """Relieve within this call while more than the reserve is used, too."""
        stuck: set[_Account] = set()
        self._urgent = True
        try:
            while _outran(account.total, account.limit) or _outran(self.total, self.limit):
                found = self._next(stuck)
                if found is None:
                    break
                if found.relieve_largest() is None:
                    stuck.add(found)
        finally:
            self._urgent = False

    def _next(self, stuck: set[_Account]) -> _Account | None:
        """Return the account whose largest holder is relieved next; None if there is room."""
        if self._over and self.total <= self.limit * RELIEF:
            self._over = False
        found, highest = None, (False, 0, 0)
        for account in self._accounts:
            if account.over and account.total <= account.limit * RELIEF:
                account.over = False
            if not account.largest_class or account in stuck:
                continue
            rank = not account.last, account.largest_class, account.total
            if (self._over or account.over) and rank > highest:
                found, highest = account, rank
        return found


def _outran(total: int, limit: int) -> bool:
    return total > limit * (1 + RESERVE)
