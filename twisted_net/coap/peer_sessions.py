"""Sessions of CoAP peers: opened by a peer's first request, closed after its last one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from twisted_net.auth.users import Permissions
from twisted_net.dtls.peer import identity_of
from twisted_net.errors import AuthRequired
from twisted_net.net.addresses import Source
from twisted_net.reasons import End
from twisted_net.sessions import Session, Sessions

SESSION_LIFETIME = 600.0
"""Seconds after its last request that a peer's session ends; the idle timeout of a TCP client."""

PermissionsOf: TypeAlias = Callable[[str | None], Permissions]
"""Returns the permissions of a user by name; for None, those of a peer without a certificate."""


class PeerSessions:
    """
    Sessions by the address of their peer.

    :param sessions: where they are opened and closed.
    :param limit: sessions at a time; over it, the least recently active one is closed.
    :param permissions_of: the permissions of users, who are named by the certificates of DTLS
        peers; None if all peers may do everything.
    :param deliver: sends a line, such as a broadcast event, to a peer.
    :param closed: called with each peer whose session ended because it was idle or over the limit.
    """

    def __init__(
        self,
        sessions: Sessions,
        limit: int,
        permissions_of: PermissionsOf | None,
        deliver: Callable[[Source, bytes], str | None],
        closed: Callable[[Source], None],
    ) -> None:
        self._sessions = sessions
        self._limit = limit
        self._permissions_of = permissions_of
        self._deliver = deliver
        self._closed = closed
        # With the time of the last request; least recently active first.
        self._by_peer: OrderedDict[Source, tuple[Session, float]] = OrderedDict()

    def of(self, source: Source, now: float) -> Session:
        """Return the session of a peer that makes a request now; open it if there is none."""
        known = self._by_peer.get(source)
        if known is not None:
            self._by_peer[source] = known[0], now
            self._by_peer.move_to_end(source)
            return known[0]
        while self._by_peer:
            oldest, (session, active) = next(iter(self._by_peer.items()))
            if active + SESSION_LIFETIME > now and len(self._by_peer) < self._limit:
                break
            del self._by_peer[oldest]
            self._closed(oldest)
            self._sessions.close(session, End.IDLE_TIMEOUT)
        session = self._sessions.open(source[0], source[1], partial(self._deliver, source))
        self._log_in(session, source)
        self._by_peer[source] = session, now
        return session

    def close(self, source: Source, end: End) -> None:
        """Close the session of a peer, if it has one."""
        known = self._by_peer.pop(source, None)
        if known is not None:
            self._sessions.close(known[0], end)

    def close_all(self) -> None:
        """Close all sessions, as the server stops."""
        for session, _ in self._by_peer.values():
            self._sessions.close(session, End.DRAINED)
        self._by_peer.clear()

    def _log_in(self, session: Session, source: Source) -> None:
        """Log a session in as the user that its peer's certificate names, if it names one."""
        session.identity = identity_of(source)
        if self._permissions_of is not None:
            session.permissions = self._permissions_of(session.identity)
            if session.identity is not None:
                session.sessions.audit("login", session, "by certificate")


def check_user(session: Session) -> None:
    """
    Check that the peer is a user, if users are configured.

    :raises AuthRequired: if it is not.
    """
    if session.permissions is not None and session.user is None:
        raise AuthRequired
