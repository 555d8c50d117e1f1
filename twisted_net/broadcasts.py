"""Broadcasts: events to the clients of all servers that share one of these, at a bounded pace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import msgspec
from attrs import frozen

from twisted_net.turns.steps import FairPacing


@frozen
class Delivery:
    """The outcome of an event: how many clients got it, and why others did not, by name."""

    delivered: int
    failures: Mapping[str, str]


class Audience(Protocol):
    """The clients of one server."""

    def __len__(self) -> int:
        """Return how many they are."""
        ...

    def send_event(self, line: bytes, failures: dict[str, str]) -> Iterator[int]:
        """
        Send an event to :data:`~twisted_net.turns.steps.CLIENTS_AT_ONCE` clients in each step.

        The value of a step is how many got it. Those that may not receive events are left out.

        :param line: complete, with its LF.
        :param failures: to add those that do not get it, and why, in a word.
        """
        ...


class Broadcasts:
    """
    Sends events to the clients of all servers that share it.

    It is the one place that an event goes through, whichever server it comes from: concurrent ones
    reach all clients in the same order.

    :param pacing: spreads an event to many clients over turns of the reactor; if None, that of the
        first server which uses it, and none without a server.
    :ivar last: the last event, as a line; an empty one before the first.
    """

    def __init__(self, pacing: FairPacing | None = None) -> None:
        self.last = b"{}\n"
        self._pacing = pacing
        self._audiences: list[Audience] = []

    def __len__(self) -> int:
        """Return how many clients there are, those included that may not receive events."""
        return sum(map(len, self._audiences))

    @property
    def sending(self) -> bool:
        """Whether events are being sent, or wait to be: :meth:`send` would overtake these."""
        return self._pacing is not None and len(self._pacing) > 0

    def join(self, audience: Audience) -> None:
        """Send events to the clients of one more server."""
        self._audiences.append(audience)

    def use_pacing(self, new_pacing: Callable[[], FairPacing]) -> None:
        """Spread events by what this returns, unless one was given or another server was first."""
        if self._pacing is None:
            self._pacing = new_pacing()

    def send(self, event: Mapping[str, object]) -> Delivery:
        """
        Send an event to every client now, encoded once; one failure does not affect the others.

        :param event: its members; ``event`` names its kind.
        """
        failures: dict[str, str] = {}
        return Delivery(sum(self._steps(encode_event(event), failures)), failures)

    async def spread(self, event: Mapping[str, object], sender: str = "") -> Delivery:
        """
        Send an event to every client, some in each turn of the reactor.

        Events are sent one after the other, in turns between the senders, each to those that are
        connected when its turn comes. If the wait is cancelled, an event that has begun is
        completed, and any other one is dropped.

        :param sender: whom it counts for, see :attr:`twisted_net.sessions.Session.owner`; empty
            for the application itself.
        :raises TooBusy: if too many wait, and this sender has as many of them as any other.
        """
        failures: dict[str, str] = {}
        line = encode_event(event)
        steps = self._steps(line, failures)
        if self._pacing is None:
            return Delivery(sum(steps), failures)
        return Delivery(sum(await self._pacing(steps, sender, len(line))), failures)

    def _steps(self, line: bytes, failures: dict[str, str]) -> Iterator[int]:
        self.last = line
        for audience in list(self._audiences):
            yield from audience.send_event(line, failures)


_encode = msgspec.json.Encoder().encode


def encode_event(event: Mapping[str, object]) -> bytes:
    """
    Encode an event as the line that goes over the wire.

    :raises TypeError: if it is no mapping, or has no ``event``, so that a client would take it for
        an answer; or if a member is nothing that JSON has.
    """
    if not isinstance(event, Mapping):
        raise TypeError(f"an event must be a mapping, not a {type(event).__name__}")
    if not isinstance(event.get("event"), str):
        raise TypeError('an event must have a member "event", a text that names its kind')
    return _encode(event) + b"\n"
