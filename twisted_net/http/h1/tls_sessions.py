"""TLS sessions: what a connection leaves, so that another one need not verify the same server."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from OpenSSL.SSL import SENT_SHUTDOWN, TLS1_3_VERSION, Connection, Session

from twisted_net.net.bounded_table import BoundedTable

MAX_HOSTS = 64
"""Hosts whose sessions are kept; that of the one that was used least recently is dropped."""

SESSIONS_PER_HOST = 4
"""
Sessions of one host: as many connections made at once do without its certificate.

A session takes some 10 kB, most of it the server's certificates.
"""

SESSION_AGE = 3600.0
"""
Seconds after a certificate was verified in which sessions take its place, also those of resumed
connections (RFC 8446 §4.6.1).
"""


class TlsSessions:
    """
    Sessions to resume, by host and port; all of them of one client, with the same settings of TLS.

    Each is resumed once, as those who listen could tell the same client by it (RFC 8446 §C.4).

    :param seconds: a steady clock.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.seconds = seconds
        self._kept: BoundedTable[tuple[str, int], deque[tuple[Session, float]]] = BoundedTable(
            MAX_HOSTS
        )

    def __len__(self) -> int:
        """How many are kept."""
        return sum(map(len, self._kept.values()))

    def take(self, host: tuple[str, int]) -> tuple[Session, float] | None:
        """Return the newest session of a host, and when its certificate was verified; or None."""
        kept = self._kept.get(host)
        while kept:
            session, verified = kept.pop()
            if self.seconds() < verified + SESSION_AGE:
                return session, verified
        return None

    def refuse(self, host: tuple[str, int]) -> None:
        """Keep none for this host, now and later: its server fails where it could resume one."""
        self._kept[host] = deque(maxlen=0)
        self._kept.move_to_end(host)

    def keep(self, host: tuple[str, int], session: Session, verified: float) -> None:
        """Keep a session, see :meth:`take`."""
        kept = self._kept.get(host)
        if kept is None:
            kept = self._kept[host] = deque(maxlen=SESSIONS_PER_HOST)
        kept.append((session, verified))
        self._kept.move_to_end(host)


class Resumption:
    """
    The part of one connection: it resumes a session, and leaves another one.

    :param sessions: where both are kept.
    :param host: its name, for which its certificate is, and its port.
    """

    __slots__ = ("_host", "_left", "_offered", "_sessions", "_verified")

    def __init__(self, sessions: TlsSessions, host: tuple[str, int]) -> None:
        self._sessions = sessions
        self._host = host
        self._verified = 0.0  # when the certificate of its session was
        self._left: bool | None = None  # whether it has left one; None before its handshake
        self._offered = False

    def begin(self, connection: Connection) -> None:
        """Offer a session to the server, if there is one; the handshake has not begun."""
        self._verified = self._sessions.seconds()
        found = self._sessions.take(self._host)
        if found is not None:
            # The server may refuse it and be verified again; that is not known here.
            session, self._verified = found
            self._offered = True
            connection.set_session(session)

    def established(self, connection: Connection) -> None:
        """Keep the session, if it is one of TLS 1.2: it is complete with the handshake."""
        self._left = False
        if connection.get_protocol_version() < TLS1_3_VERSION:
            self._keep(connection)

    def failed(self) -> None:
        """TLS has failed; if that is by the session, it is not to happen each time."""
        if self._offered and self._left is None:
            self._sessions.refuse(self._host)

    def got_record(self, connection: Connection) -> None:
        """Keep the session of TLS 1.3: a record without data has come, most likely a ticket."""
        if self._left is False:
            self._keep(connection)

    def end(self, connection: Connection) -> None:
        """Keep the session, if the ticket came with the last data; the connection is over."""
        self.got_record(connection)
        # Otherwise OpenSSL would not resume that of a connection without a close_notify.
        connection.set_shutdown(SENT_SHUTDOWN)

    def _keep(self, connection: Connection) -> None:
        # One of each connection: whether the next is another one cannot be told.
        self._left = True
        session = connection.get_session()
        if session is not None:
            self._sessions.keep(self._host, session, self._verified)
