"""Shows the commands of all clients to those who watch, within bounds."""

from __future__ import annotations

from typing import Protocol

import msgspec

from twisted_net.errors import CommandError
from twisted_net.net.rate_limit import RateLimiter
from twisted_net.ops.timestamps import iso_time

MAX_MONITORS = 16
"""Clients that may watch at one time: each costs an event for each command that it is shown."""

LINES_PER_SECOND = 100
"""Commands that a client is shown a second, unless it says how many; a person reads fewer."""

MOST_PER_SECOND = 10_000
"""The most that it may ask for."""


_encode = msgspec.json.Encoder().encode


class Client(Protocol):
    """One who asks, or who watches: a client. It is hashable, and equal to itself alone."""

    name: str

    @property
    def user(self) -> str | None:
        """The name of the user who has logged in, if one has."""
        ...

    def deliver(self, line: bytes) -> str | None:
        """Send a line that the client did not ask for, or say in a word why it cannot be."""
        ...


class _View:
    """What one client sees: at which rate, and how many commands it was not shown since."""

    __slots__ = ("rate", "skipped")

    def __init__(self, per_second: float) -> None:
        # As many at once as in a second: lines come in bursts.
        self.rate = RateLimiter(per_second, per_second, max_keys=1)
        self.skipped = 0


class Monitors:
    """
    The clients that watch what the others ask.

    Each sees a sample: what comes faster than it wished, or while it does not read, is skipped
    and counted, and the next event says how many those were. Nobody sees its own commands.

    :ivar views: what each of them sees.
    :ivar shown: events that were sent.
    :ivar skipped: commands that a monitor was not shown.
    """

    def __init__(self) -> None:
        self.shown = 0
        self.skipped = 0
        self.views: dict[Client, _View] = {}

    def __len__(self) -> int:
        return len(self.views)

    def __contains__(self, client: Client) -> bool:
        return client in self.views

    def add(self, client: Client, per_second: float) -> None:
        """
        Let a client watch; at another rate where it does so already.

        :raises CommandError: where :data:`MAX_MONITORS` others do.
        """
        if client not in self.views and len(self.views) >= MAX_MONITORS:
            raise CommandError(f"{MAX_MONITORS} clients are watching already")
        self.views[client] = _View(per_second)

    def remove(self, client: Client) -> bool:
        """Let a client watch no more; say whether it did."""
        return self.views.pop(client, None) is not None

    def show(self, client: Client, line: str, wall: float, now: float) -> None:
        """
        Show a command to all who watch.

        :param client: who asked.
        :param line: what, as far as it may be shown.
        :param wall: when, in seconds of the wall clock.
        :param now: seconds of a steady clock.
        """
        event = {
            "event": "command",
            "at": iso_time(wall),
            "client": client.name,
            "user": client.user,
            "line": line,
        }
        encoded = _encode(event) + b"\n"
        for monitor, view in list(self.views.items()):
            if monitor is client:
                continue
            if view.rate.wait("", now) > 0:
                self._skip(view)
                continue
            view.rate.charge("", now)
            skipped = view.skipped
            shown = _encode({**event, "skipped": skipped}) + b"\n" if skipped else encoded
            if monitor.deliver(shown) is not None:
                self._skip(view)
                continue
            view.skipped = 0
            self.shown += 1

    def _skip(self, view: _View) -> None:
        view.skipped += 1
        self.skipped += 1
