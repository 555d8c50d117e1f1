"""MONITOR: shows the commands of all clients to those that watch, at a bounded rate."""

from __future__ import annotations

from typing import Protocol

import msgspec

from twisted_net.errors import CommandError
from twisted_net.net.characters import printable
from twisted_net.net.rate_limit import RateLimiter
from twisted_net.ops.timestamps import iso_time

MAX_MONITORS = 16
"""Clients that may watch at one time: each command that one is shown costs an event."""

LINES_PER_SECOND = 100
"""Commands that a client is shown a second by default; a person reads fewer."""

MAX_PER_SECOND = 10_000
"""Upper bound of the rate that a client may ask for."""


_encode = msgspec.json.Encoder().encode


class MonitoredClient(Protocol):
    """A client that sends commands or watches those of others; hashable by identity."""

    name: str

    @property
    def user(self) -> str | None:
        """The name of the user, if the client has logged in."""
        ...

    def deliver(self, line: bytes) -> str | None:
        """Send a line that is no answer; return in a word why it cannot be sent, else None."""
        ...


class _View:
    """The view of one client: its rate, and how many commands were skipped since the last event."""

    __slots__ = ("rate", "skipped")

    def __init__(self, per_second: float) -> None:
        # As many at once as in a second: lines come in bursts.
        self.rate = RateLimiter(per_second, per_second, max_keys=1)
        self.skipped = 0


class Monitors:
    """
    The clients that watch the commands of others.

    Each sees a sample: commands above its rate, or while it does not read, are skipped and
    counted, and the next event says how many. A client does not see its own commands.

    :ivar views: the state of each watching client.
    :ivar shown: events that were sent.
    :ivar skipped: commands that were not shown, summed over watching clients.
    """

    def __init__(self) -> None:
        self.shown = 0
        self.skipped = 0
        self.views: dict[MonitoredClient, _View] = {}

    def __len__(self) -> int:
        return len(self.views)

    def __contains__(self, client: MonitoredClient) -> bool:
        return client in self.views

    def add(self, client: MonitoredClient, per_second: float) -> None:
        """
        Let a client watch, or change its rate if it watches already.

        :raises CommandError: if :data:`MAX_MONITORS` others watch.
        """
        if client not in self.views and len(self.views) >= MAX_MONITORS:
            raise CommandError(f"{MAX_MONITORS} clients are watching already")
        self.views[client] = _View(per_second)

    def remove(self, client: MonitoredClient) -> bool:
        """Stop showing commands to a client; return whether it watched."""
        return self.views.pop(client, None) is not None

    def show(self, client: MonitoredClient, line: str, wall: float, now: float) -> None:
        """
        Show a command to all clients that watch.

        :param client: the sender.
        :param line: the command, as far as it may be shown; it is made printable here.
        :param wall: its time, in seconds of the wall clock.
        :param now: seconds of a steady clock.
        """
        event = {
            "event": "command",
            "at": iso_time(wall),
            "client": client.name,
            "user": client.user,
            "line": printable(line),
        }
        encoded = _encode(event) + b"\n"
        for monitor, view in list(self.views.items()):
            if monitor is client:
                continue
            if view.rate.take("", now) > 0:
                self._skip(view)
                continue
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
