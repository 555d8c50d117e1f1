"""Presence: who is there, by user, certificate or address, and who has gone, on all doors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from twisted_net.auth.users import NOBODY
from twisted_net.topics.registry import Topics
from twisted_net.topics.settings import PRESENCE

if TYPE_CHECKING:
    from twisted_net.sessions.session import Session

GONE_KEPT = 10_000
"""Identities that are remembered after they have gone, the latest ones; 4 MB."""


class Identity:
    """
    Somebody who is or was there, by one connection or several.

    :ivar kind: ``user``, ``certificate`` or ``address``.
    :ivar name: of the user, in the certificate, or the host.
    :ivar first_seen: when it came for the first time that is remembered, in seconds of the wall
        clock.
    :ivar since: when it came, if it is there, or else when it went.
    :ivar connections: its open sessions, on all doors; 0 if it has gone.
    """

    __slots__ = ("connections", "first_seen", "kind", "name", "since")

    def __init__(self, kind: str, name: str, now: float) -> None:
        self.kind = kind
        self.name = name
        self.first_seen = self.since = now
        self.connections = 0


class Presence:
    """
    The identities of the clients of all doors.

    A client is its user, once it has logged in. Where there are no users it is the name in its
    certificate, or else its address without the port, so that a device that comes back from another
    port is the same. Where there are users, a client without a login is nobody, unless it cannot
    log in, as over CoAP: then it is its address.

    Who comes and goes is published to the topics ``@presence.user``, ``@presence.certificate`` and
    ``@presence.address``.

    :param wall: returns the seconds of the wall clock.
    """

    def __init__(self, topics: Topics, wall: Callable[[], float]) -> None:
        self._topics = topics
        self._wall = wall
        self._present: dict[tuple[str, str], Identity] = {}
        self._gone: OrderedDict[tuple[str, str], Identity] = OrderedDict()
        self._of: dict[Session, Identity] = {}

    def __len__(self) -> int:
        """How many are there."""
        return len(self._present)

    def get(self, kind: str, name: str) -> Identity | None:
        """Return an identity that is there, or is remembered; None if it is neither."""
        return self._present.get((kind, name)) or self._gone.get((kind, name))

    @property
    def gone(self) -> int:
        """How many are remembered that have gone."""
        return len(self._gone)

    def __iter__(self) -> Iterator[Identity]:
        """Iterate over those that are there, oldest first, then those gone, latest first."""
        yield from list(self._present.values())
        yield from list(reversed(self._gone.values()))

    def update(self, session: Session) -> None:
        """Note that a client has come, or is somebody else now; an ended one is nobody."""
        if session.ended:
            return
        key, before = _identity_of(session), self._of.get(session)
        if before is not None and key == (before.kind, before.name):
            return
        if before is None and key is None:
            return
        now = self._wall()
        # First who comes: one that logs in anew as the same is not gone in between.
        if key is not None:
            self._of[session] = self._come(key, now)
        else:
            del self._of[session]
        if before is not None:
            self._leave(before, now)

    def remove(self, session: Session, now: float) -> None:
        """Note that a client has gone, at this time of the wall clock. Idempotent."""
        before = self._of.pop(session, None)
        if before is not None:
            self._leave(before, now)

    def _come(self, key: tuple[str, str], now: float) -> Identity:
        identity = self._present.get(key)
        if identity is None:
            identity = self._gone.pop(key, None) or Identity(*key, now)
            identity.since = now
            self._present[key] = identity
            identity.connections = 1
            self._publish(identity, present=True)
        else:
            identity.connections += 1
        return identity

    def _leave(self, identity: Identity, now: float) -> None:
        identity.connections -= 1
        if identity.connections:
            return
        key = identity.kind, identity.name
        identity.since = now
        del self._present[key]
        self._gone[key] = identity
        while len(self._gone) > GONE_KEPT:
            self._gone.popitem(last=False)
        self._publish(identity, present=False)

    def _publish(self, identity: Identity, *, present: bool) -> None:
        if self._topics.hears_presence:
            value = {"kind": identity.kind, "name": identity.name, "present": present}
            self._topics.publish(f"{PRESENCE}.{identity.kind}", value, retain=False)


def _identity_of(session: Session) -> tuple[str, str] | None:
    """Return the kind and the name of who a client is; None if it is nobody yet."""
    if session.user is not None:
        return "user", session.user
    if session.permissions is None and session.identity:
        return "certificate", session.identity
    if session.permissions is None or (
        session.permissions is not NOBODY and not session.has_connection
    ):
        return "address", session.client[0]
    return None
