"""SLOWLOG: the latest commands that took long."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Annotated

from attrs import frozen
from msgspec import Meta

from twisted_net.config.record import Record
from twisted_net.config.type_checks import check_arguments
from twisted_net.net.characters import printable


class SlowLogSettings(Record, frozen=True):
    """
    What SLOWLOG keeps, ``[slowlog]``.

    Ten milliseconds and 128 entries are Redis's defaults: while a command holds the reactor, no
    other client is answered. One that waits, for another server or in a thread, delays only its
    own client, and has a threshold of its own.
    """

    threshold: Annotated[
        float,
        Meta(gt=0, le=86_400, description="seconds in the reactor from which a command is slow"),
    ] = 0.01
    waiting_threshold: Annotated[
        float, Meta(gt=0, le=86_400, description="seconds of waiting from which a command is slow")
    ] = 1.0
    kept: Annotated[int, Meta(ge=1, le=10_000, description="limit of slow commands kept")] = 128


@frozen
class SlowCommand:
    """
    A command that took long.

    :ivar number: counts up from 1, over all that were slow since the start.
    :ivar at: when it ended, in seconds of the wall clock.
    :ivar seconds: how long it took.
    :ivar waited: whether it waited while others were served, rather than held the reactor.
    :ivar line: the command as it was sent, printable, as far as it may be shown.
    """

    number: int
    at: float
    seconds: float
    waited: bool
    client: str
    user: str | None
    line: str


@check_arguments
class SlowLog:
    """
    The slow commands of a server, the latest ones.

    :param settings: what is slow, and how many are kept.
    :ivar count: slow commands since the start, those no longer kept included.
    """

    def __init__(self, settings: SlowLogSettings | None = None) -> None:
        self.settings = settings or SlowLogSettings()
        self.count = 0
        self._latest: deque[SlowCommand] = deque(maxlen=self.settings.kept)

    def __len__(self) -> int:
        return len(self._latest)

    def note(
        self, at: float, seconds: float, client: str, user: str | None, line: str, *, waited: bool
    ) -> None:
        """Add a slow command; at the bound the oldest is dropped."""
        self.count += 1
        line = printable(line)
        self._latest.append(SlowCommand(self.count, at, seconds, waited, client, user, line))

    def latest(self, limit: int) -> Iterator[SlowCommand]:
        """Iterate over the slow commands, latest first, at most *limit* of them."""
        return islice(reversed(self._latest), limit)

    def reset(self) -> int:
        """Drop all entries, but not :attr:`count`; return how many there were."""
        forgotten = len(self._latest)
        self._latest.clear()
        return forgotten
