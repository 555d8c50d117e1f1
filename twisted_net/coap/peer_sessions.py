"""Sessions of CoAP peers: opened by a peer's first request, closed after its last one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

from twisted_net.auth.users import NOBODY, Permissions
from twisted_net.dtls.peer import identity_of
from twisted_net.net.addresses import Source
from twisted_net.net.bounded_table import BoundedTable
from twisted_net.reasons import End
from twisted_net.sessions import Session, Sessions
from twisted_net.turns.steps import WRITE

SESSION_LIFETIME = 600.0
"""Seconds after its last request that a peer's session ends; the idle timeout of a TCP client."""

IDLE_ENDED_AT_ONCE = 8
"""Idle sessions that are ended as a new one begins: more than one, so that none stays for long."""

PermissionsOf: TypeAlias = Callable[[str | None], Permissions | None]
"""
Returns the permissions of a user by name, None if there is no such user; for None, those of a peer
without a certificate.
"""


class PeerSessions:
    """
    Sessions by the address of their peer.

    :param sessions: where they are opened and closed.
    :param limit: sessions at a time; over it, the least recently active one is closed.
    :param permissions_of: the permissions of users, who are named by the certificates of DTLS
        peers; None if all peers may do everything.
    :param deliver: sends a line, such as a broadcast event, to a peer.
    :param reviewed: called with each peer whose user may do less now, or is none any more.
    :param closed: called with each peer whose session ended because it was idle or over the limit.
    """

    def __init__(
        self,
        sessions: Sessions,
        limit: int,
        permissions_of: PermissionsOf | None,
        deliver: Callable[[Source, bytes], str | None],
        reviewed: Callable[[Source], None],
        closed: Callable[[Source], None],
    ) -> None:
        self._sessions = sessions
        self._permissions_of = permissions_of
        self._deliver = deliver
        self._reviewed = reviewed
        self._closed = closed
        # With the time of the last request; least recently active first.
        self._by_peer: BoundedTable[Source, tuple[Session, float]] = BoundedTable(
            limit, lambda source, entry: self._end(source, entry[0])
        )

    def of(self, source: Source, now: float) -> Session:
        """Return the session of a peer that makes a request now; open it if there is none."""
        known = self._by_peer.get(source)
        if known is not None:
            session = known[0]
            self._by_peer[source] = session, now
            self._by_peer.move_to_end(source)
            if session.identity is not None and session.user is None:
                self._log_in_again(session)
            return session
        for _ in range(IDLE_ENDED_AT_ONCE):
            oldest = self._by_peer.oldest()
            if oldest is None or oldest[1][1] + SESSION_LIFETIME > now:
                break
            del self._by_peer[oldest[0]]
            self._end(oldest[0], oldest[1][0])
        # First: a session that no peer has would stay for ever if this failed.
        identity = identity_of(source)
        permissions = self._permissions(identity)
        session = self._sessions.open(source[0], source[1], partial(self._deliver, source))
        session.identity = identity
        self._log_in(session, source, permissions)
        self._by_peer[source] = session, now
        return session

    def close(self, source: Source, end: End) -> None:
        """Close the session of a peer, if it has one."""
        known = self._by_peer.pop(source)
        if known is not None:
            self._sessions.close(known[0], end)

    def close_all(self) -> Iterator[float]:
        """
        Close all sessions, as the server stops, one after the other.

        :return: yields the share of a step that each takes, see :func:`~.steps.in_steps`.
        """
        while (oldest := self._by_peer.oldest()) is not None:
            self.close(oldest[0], End.DRAINED)
            yield WRITE

    def _end(self, source: Source, session: Session) -> None:
        self._closed(source)
        self._sessions.close(session, End.IDLE_TIMEOUT)

    def _permissions(self, identity: str | None) -> Permissions | None:
        return None if self._permissions_of is None else self._permissions_of(identity)

    def _log_in(self, session: Session, source: Source, permissions: Permissions | None) -> None:
        """Log a session in as the user that its peer's certificate names, if it names one."""
        # Administrative commands are for users, see is_served.
        session.administrative = False
        if self._permissions_of is None:
            return
        if session.identity is None:
            session.permissions = NOBODY if permissions is None else permissions
            return
        session.log_in_by_certificate(permissions)
        session.reviewed = lambda before: self._reviewed(source)

    def _log_in_again(self, session: Session) -> None:
        """Log a session in whose user did not exist, if it does now: a peer cannot do it itself."""
        permissions = self._permissions(session.identity)
        if permissions is not None:
            session.log_in_by_certificate(permissions)
