"""Sessions of CoAP peers: opened by a peer's first request, closed after its last one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias
from weakref import WeakKeyDictionary

from twisted_net.auth.users import NOBODY, Permissions
from twisted_net.dtls.peer import credential_of, identity_of
from twisted_net.net.addresses import Source, format_address
from twisted_net.net.bounded_table import BoundedTable
from twisted_net.net.memory_ledger import MemoryAccount
from twisted_net.reasons import End
from twisted_net.sessions.registry import Sessions
from twisted_net.sessions.session import Session
from twisted_net.turns.steps import WRITE

SESSION_LIFETIME = 600.0
"""Seconds after its last request that a peer's session ends; the idle timeout of a TCP client."""

IDLE_ENDED_AT_ONCE = 8
"""Idle sessions that are ended at a time, as a new one begins too: in one turn of the reactor."""

SESSION_BYTES = 850
"""Bytes of a session, with its entry here."""

PermissionsOf: TypeAlias = Callable[[str | None], Permissions | None]
"""
Returns the permissions of a user by name, None if there is no such user; for None, those of a peer
without a certificate.
"""


class PeerSessions:
    """
    Sessions by the address of their peer.

    They count as memory that is kept, apart from what is kept for a peer, which may be forgotten
    before its session ends. The least recently active ones give way. A peer that observes a
    resource is active as long as it does, and gives way after others.

    :param sessions: where they are opened and closed.
    :param limit: sessions at a time; over it, the least recently active one is closed.
    :param permissions_of: the permissions of users, who are named by the certificates of DTLS
        peers; None if all peers may do everything.
    :param deliver: sends a line, such as a broadcast event, to a peer.
    :param reviewed: called with each peer whose user may do less now, or is none any more.
    :param closed: called with each peer whose session ended because it was idle, over the limit,
        killed, or too much memory was in use.
    :param is_observing: returns whether a peer observes a resource.
    """

    def __init__(
        self,
        sessions: Sessions,
        limit: int,
        permissions_of: PermissionsOf | None,
        deliver: Callable[[Source, bytes], str | None],
        reviewed: Callable[[Source], None],
        closed: Callable[[Source], None],
        is_observing: Callable[[Source], bool],
    ) -> None:
        self._sessions = sessions
        self._permissions_of = permissions_of
        self._deliver = deliver
        self._reviewed = reviewed
        self._closed = closed
        self._is_observing = is_observing
        self._limit = limit
        # With the time of the last request; least recently active first.
        self._by_peer: BoundedTable[Source, tuple[Session, float]] = BoundedTable(
            limit, lambda source, entry: self._end(source, entry[0])
        )
        self._events: WeakKeyDictionary[Session, bytes] = WeakKeyDictionary()
        self._kept: MemoryAccount[Source] = sessions.memory.account(
            "coap_sessions", relieve=self._relieve
        )

    def of(self, source: Source, now: float) -> Session:
        """
        Return the session of a peer that makes a request now; open it if there is none.

        :raises Banned: if its address or its user is kept out.
        """
        known = self._by_peer.get(source)
        if known is not None:
            session = known[0]
            self._by_peer[source] = session, now
            self._by_peer.move_to_end(source)
            if session.identity is not None and session.user is None:
                self._log_in_again(session, source)
            return session
        self.end_idle(now)
        if len(self._by_peer) >= self._limit:
            self._keep_all_observing(now)
        # First: a session that no peer has would stay for ever if this failed.
        identity = identity_of(source)
        bans = self._sessions.doors.bans
        bans.check_address(source[0])
        if self._permissions_of is not None:
            bans.check_user(identity)
        permissions = self._permissions(identity)
        session = self._sessions.open(source[0], source[1], partial(self._send, source))
        session.identity = identity
        session.leave = partial(self._kill, source)
        self._log_in(session, source, permissions)
        self._by_peer[source] = session, now
        self._kept.set(source, SESSION_BYTES)
        self._sessions.doors.presence.update(session)
        return session

    def end_idle(self, now: float) -> float | None:
        """
        End sessions whose time is over, :data:`IDLE_ENDED_AT_ONCE` at most.

        :return: seconds until the time of the next one is over; None without any session.
        """
        for _ in range(IDLE_ENDED_AT_ONCE):
            oldest = self._by_peer.oldest()
            if oldest is None:
                return None
            left = oldest[1][1] + SESSION_LIFETIME - now
            if left > 0:
                return left
            if not self._keep_observing(oldest[0], now):
                del self._by_peer[oldest[0]]
                self._end(oldest[0], oldest[1][0])
        return 0.0

    def stranger(self, source: Source) -> Session:
        """
        Return a session for one request of a peer whose address may be forged.

        It is not among the open ones, and nothing is kept of it; its request is counted here.
        """
        self._sessions.doors.bans.check_address(source[0])
        permissions = self._permissions(None)
        name = format_address(source[0], source[1])
        session = Session(self._sessions, name, source, lambda line: "not_observing")
        self._log_in(session, source, permissions)
        self._sessions.counters.messages += 1
        return session

    def last_event(self, session: Session) -> bytes:
        """Return the last event that was sent to a peer, or to all before it came; as a line."""
        return self._events.get(session, self._sessions.broadcasts.last)

    def _send(self, source: Source, line: bytes) -> str | None:
        """Send an event to a peer, and keep it, as a notification may be repeated."""
        known = self._by_peer.get(source)
        if known is not None:
            self._events[known[0]] = line
            # What all get is kept once.
            own = 0 if line is self._sessions.broadcasts.last else len(line)
            self._kept.set(source, SESSION_BYTES + own)
        return self._deliver(source, line)

    def close(self, source: Source, end: End) -> None:
        """Close the session of a peer, if it has one."""
        known = self._by_peer.pop(source)
        if known is not None:
            self._kept.set(source, 0)
            self._sessions.close(known[0], end)

    def close_all(self) -> Iterator[float]:
        """
        Close all sessions, as the server stops, one after the other.

        :return: yields the share of a step that each takes, see :func:`~.steps.in_steps`.
        """
        while (oldest := self._by_peer.oldest()) is not None:
            self.close(oldest[0], End.DRAINED)
            yield WRITE

    def _keep_observing(self, source: Source, now: float) -> bool:
        """Let a peer that observes a resource count as active; return whether it is one."""
        if not self._is_observing(source):
            return False
        self._by_peer[source] = self._by_peer[source][0], now
        self._by_peer.move_to_end(source)
        return True

    def _keep_all_observing(self, now: float) -> None:
        """Let one that does not observe be the first to give way, if there is one among a few."""
        for _ in range(min(IDLE_ENDED_AT_ONCE, len(self._by_peer))):
            oldest = self._by_peer.oldest()
            if oldest is None or not self._keep_observing(oldest[0], now):
                break

    def _relieve(self, largest: Source) -> float:
        """End the session that has been idle for longest; the only one may be in use now."""
        first = self._by_peer.oldest()
        if first is not None:
            self._keep_all_observing(first[1][1])
        oldest = self._by_peer.oldest()
        if oldest is not None and len(self._by_peer) > 1:
            source, (session, _) = oldest
            del self._by_peer[source]
            self._end(source, session, End.BUFFERS_FULL)
        return WRITE

    def _end(self, source: Source, session: Session, end: End = End.IDLE_TIMEOUT) -> None:
        self._kept.set(source, 0)
        self._closed(source)
        self._sessions.close(session, end)

    def _kill(self, source: Source) -> None:
        """End a session, and the observations of its peer, as an operator wants."""
        self._closed(source)
        self.close(source, End.KILLED)

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
        session.log_in_by_certificate(permissions, credential_of(source))
        session.reviewed = lambda before: self._reviewed(source)

    def _log_in_again(self, session: Session, source: Source) -> None:
        """Log a session in whose user did not exist, if it does now: a peer cannot do it itself."""
        permissions = self._permissions(session.identity)
        if permissions is not None:
            session.log_in_by_certificate(permissions, credential_of(source))
